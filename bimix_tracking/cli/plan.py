"""`bimix plan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import (
    bounds_of,
    errors_as_exit_codes,
    named_numbers,
    number,
    print_notes,
    progress_shown,
)
from bimix_tracking.cli.source import SOURCE_HELP
from bimix_tracking.errors import SourceError

if TYPE_CHECKING:
    from bimix_tracking.design import Plan
    from bimix_tracking.follow_up import NextRuns
    from bimix_tracking.planned import PlannedRuns

_METHODS = ("informative", "space-filling")
_PILOT_ONLY = (
    "--candidate, --method, --repeats and --noise are for a pilot: a sweep that was run says itself what it lacks"
)


def plan(
    domains: Annotated[
        list[str] | None, typer.Argument(metavar="DOMAIN…", help="The domains of a pilot; with --after, none.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="How many runs, repeats included.")] = 8,
    after: Annotated[
        str | None, typer.Option(metavar="SOURCE", help=f"A sweep to add runs to, instead of a pilot: {SOURCE_HELP}.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(help="Training tokens, such as 2e9: of one pilot run; with --after, of the final run."),
    ] = None,
    available: Annotated[
        list[str] | None,
        typer.Option(help="Distinct tokens a domain has, as DOMAIN=TOKENS: caps its proportion. Repeatable."),
    ] = None,
    max_epochs: Annotated[float, typer.Option(help="How often an available token may be repeated.")] = 4.0,
    bound: Annotated[
        list[str] | None,
        typer.Option(help="Least and most of a domain, as DOMAIN=LOW:HIGH, or pinned, as DOMAIN=SHARE. Repeatable."),
    ] = None,
    candidate: Annotated[
        list[Path] | None, typer.Option(help="mixture.yaml to run for certain, such as the current one. Repeatable.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="informative (the default) or space-filling.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=0, help="Runs that repeat the first mixture, to measure noise; 1 from 6 runs on.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="By how much of itself a run's loss is off by chance; 0.005 if not given.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="With --after: weight of a domain's loss, as DOMAIN=NUMBER. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice: the same one gives the same plan.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Write plan.jsonl, plan.csv, sweep.yaml (W&B), runs.sh (Slurm or bash), mixtures/*.yaml."),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Training command of runs.sh; {mixture} (JSON), {file}, {name}, {index}, {seed} are filled in."
        ),
    ] = None,
) -> None:
    """Propose the mixtures to run, and say what they will be able to tell before one of them is paid for.

    Example: bimix plan code web books --runs 8 --out plan --command 'python train.py --mixture {mixture}'

    More runs for a sweep: bimix plan --after mlflow:my-sweep --runs 3 --tokens 100e9
    """
    from bimix_tracking.planned import COMMAND, filled  # noqa: PLC0415  # --help must not wait for PyYAML

    volume = None if tokens is None else number(tokens, "--tokens")
    bounds, tokens_of = bounds_of(bound or [], "--bound"), named_numbers(available or [], "--available")
    if tokens_of and volume is None:
        raise typer.BadParameter("caps need the tokens of one run: give --tokens", param_hint="--available")
    try:
        filled(command or COMMAND)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--command") from error
    found: PlannedRuns
    if after is not None:
        if domains:
            raise typer.BadParameter(f"{domains} and --after: the domains are the sweep's", param_hint="DOMAIN")
        if candidate or method or repeats is not None or noise is not None:
            raise typer.BadParameter(_PILOT_ONLY, param_hint="--after")
        if volume is None:
            raise typer.BadParameter(
                "the tokens of the run that will use the mixture are needed", param_hint="--tokens"
            )
        weights = named_numbers(weight or [], "--weight")
        with errors_as_exit_codes():
            found = _after(after, runs, volume, weights=weights, bounds=bounds, available_tokens=tokens_of,
                           max_epochs=max_epochs, seed=seed)  # fmt: skip
    else:
        if len(domains or []) < 2:
            raise typer.BadParameter("name at least two domains, or a sweep with --after", param_hint="DOMAIN")
        if method not in (None, *_METHODS):
            raise typer.BadParameter(f"{method!r} is none of {', '.join(_METHODS)}", param_hint="--method")
        if noise is not None and not 0 < noise < 1:
            raise typer.BadParameter(f"{noise:g} is no part of the loss, such as 0.005", param_hint="--noise")
        if weight:
            raise typer.BadParameter(
                "a pilot tells every domain's loss; weights come with --after", param_hint="--weight"
            )
        with errors_as_exit_codes():
            found = _pilot(domains or [], runs, candidate or [], noise, method=method or _METHODS[0], tokens=volume,
                           bounds=bounds, available_tokens=tokens_of, max_epochs=max_epochs, repeats=repeats,
                           seed=seed)  # fmt: skip
    if out is not None:
        with errors_as_exit_codes():
            try:
                found.write(out, command or COMMAND)
            except OSError as error:
                raise SourceError(f"cannot write {out}: {error}") from error
        typer.echo(f"\nWritten to {out}: plan.jsonl, plan.csv, sweep.yaml, runs.sh, mixtures/")


def _pilot(domains: list[str], runs: int, candidates: list[Path], noise: float | None, **options: Any) -> Plan:
    from bimix_tracking.design import NOISE, plan_pilot  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise

    mixtures = []
    for path in candidates:
        try:
            mixtures.append(Mixture.from_yaml(path))
        except OSError as error:
            raise typer.BadParameter(f"cannot read {path}: {error}", param_hint="--candidate") from error
    noise = NOISE if noise is None else noise
    found = plan_pilot(domains, runs, candidates=mixtures, noise=noise, **options)
    told = found.identifiable(noise)
    _print_mixtures(found, f"{len(found)} pilot runs, {found.method}", told.domains["alpha_error"].to_dict())
    for text in (*told.sentences(), *found.notes):
        typer.echo(text)
    return found


def _after(source: str, runs: int, tokens: float, **options: Any) -> NextRuns:
    from bimix_tracking.follow_up import next_runs  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.observations import Observations  # noqa: PLC0415  # likewise
    from bimix_tracking.selection import select_law  # noqa: PLC0415  # likewise

    with progress_shown() as progress:
        obs = Observations.from_source(source, progress=progress)
        progress("fitting", 0, 1)
        fit = select_law(obs, weights=options["weights"]).fit
        progress("fitting", 1, 1)
    found = next_runs(obs, fit, runs, tokens=tokens, **options)
    print_notes(fit.notes)
    _print_mixtures(found, f"{len(found)} runs after the {len(obs.runs)} there are, by {fit.law}", {})
    for text in found.sentences():
        typer.echo(text)
    return found


def _print_mixtures(found: PlannedRuns, title: str, errors: Mapping[Any, float]) -> None:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    # A domain a row: names are long, and there are more domains than a line has room for. As many runs a table as fit.
    width = 10
    console = Console(width=None if sys.stdout.isatty() else 140)
    for first in range(0, len(found), width):
        part = range(first, min(first + width, len(found)))
        table = Table(title=title if not first else None)
        table.add_column("domain")
        for i in part:
            table.add_column(
                f"{found.names[i]}" + (f" seed {found.seeds[i]}" if found.seeds[i] else ""), justify="right"
            )
        if errors:
            table.add_column("alpha ±", justify="right")
        for domain in found.domains:
            error = [f"{errors[domain]:.2g}" if errors[domain] < 1e6 else "–"] if errors else []
            table.add_row(escape(domain), *(f"{found.mixtures[i][domain]:.4f}" for i in part), *error)
        console.print(table)
