"""`bimix export`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from bimix_tracking.cli.console import errors_as_exit_codes, number
from bimix_tracking.errors import SourceError


def export(
    mixture: Annotated[Path, typer.Argument(metavar="MIXTURE", help="A mixture.yaml, as `analyze --out` leaves it.")],
    fmt: Annotated[str, typer.Option("--format", help="Which trainer's; `--format list` shows them.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; else standard output.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(help="Where a domain's data are, as DOMAIN=PATH (or data-set name). Repeatable."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Training tokens it is for, such as 100e9; the file says so.")
    ] = None,
) -> None:
    """Write a mixture in the form that a trainer reads.

    Example: bimix export analysis/mixture.yaml --format megatron --path code=/data/code_text_document
    """
    from bimix_tracking import exports  # noqa: PLC0415  # --help must not wait for NumPy
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise

    if fmt == "list":
        for name, form in exports.FORMATS.items():
            typer.echo(f"{name:14}{form.about}")
        return
    if fmt not in exports.FORMATS:
        raise typer.BadParameter(f"no format {fmt!r}; there are {', '.join(exports.FORMATS)}", param_hint="--format")
    budget = None if tokens is None else number(tokens, "--tokens")
    with errors_as_exit_codes():
        read = Mixture.from_yaml(mixture)
        provenance = f"{mixture.name}, by bimix export"
        text = exports.export(read, fmt, paths=_paths(path or [], read), tokens=budget, provenance=provenance)
        if output is None:
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SourceError(f"cannot write {output}: {error}") from error


def _paths(pairs: Iterable[str], domains: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        # Names and paths may both hold `=`: the longest domain that fits is the one that is meant.
        named = max((domain for domain in domains if pair.startswith(f"{domain}=")), key=len, default="")
        domain, where = (named, pair[len(named) + 1 :]) if named else pair.partition("=")[::2]
        if not domain or not where:
            raise typer.BadParameter(f"{pair!r} is not DOMAIN=PATH", param_hint="--path")
        if domain in found:
            raise typer.BadParameter(
                f"domain {domain!r} has two paths: {found[domain]!r}, {where!r}", param_hint="--path"
            )
        found[domain] = where
    return found
