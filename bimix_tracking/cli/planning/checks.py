"""Which options of `bimix plan` go together: what contradicts itself is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import typer

_PILOT_ONLY = "--candidate, --method, --repeats and --noise are for a pilot: drop them"


def one_kind(after: str | None, anchor: str | None, budget: float | None, pool: Path | None) -> None:
    """Refuse two questions at once."""
    kinds = [name for name, of in (("--after", after), ("--anchor", anchor), ("--budget-flops", budget)) if of]
    if len(kinds) > 1:
        raise typer.BadParameter(f"{' and '.join(kinds)} are different plans: give one", param_hint=kinds[0])
    if pool is not None and (anchor is not None or budget is not None):
        raise typer.BadParameter(f"has no use with {kinds[0]}: drop it", param_hint="--pool")


def needed(kinds: dict[str, object], size: float | None, tokens: float | None, *, folder: bool) -> None:
    """Refuse a plan for a target run that isn't described, and a size that no plan is for."""
    asked = next((name for name, of in kinds.items() if of is not None), None)
    if asked is None:
        if size is not None:
            raise typer.BadParameter(f"needs {' or '.join(kinds)}", param_hint="--model-size")
        return
    if size is None:
        raise typer.BadParameter("needs --model-size, that of the target run, such as 7B", param_hint=asked)
    if tokens is None and not folder:
        raise typer.BadParameter("needs --tokens, those of the target run", param_hint=asked)


def only_with(kind: str, given: object, options: dict[str, object]) -> None:
    """Refuse options that a plan of another kind doesn't use."""
    for name, value in options.items():
        if value is not None and given is None:
            raise typer.BadParameter(f"needs {kind}", param_hint=name)


def consistent(domains: list[str], sweep: str | None, pool: Path | None, of_pilot: bool) -> None:
    """Refuse what contradicts itself."""
    if sweep is not None:
        if domains:
            raise typer.BadParameter(f"{domains} and a sweep: the domains are the sweep's", param_hint="DOMAIN")
        if of_pilot:
            raise typer.BadParameter(_PILOT_ONLY, param_hint="--after")
    elif len(domains) < 2 and (domains or pool is None):
        raise typer.BadParameter("name at least two domains, or a sweep with --after", param_hint="DOMAIN")
