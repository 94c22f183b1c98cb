"""`bimix export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bimix_tracking.cli.console import errors_as_exit_codes
from bimix_tracking.errors import SourceError


def export(
    mixture: Annotated[Path, typer.Argument(metavar="MIXTURE", help="A mixture.yaml, as `analyze --out` leaves it.")],
    fmt: Annotated[str, typer.Option("--format", help="Which trainer's; `--format list` shows them.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; else standard output.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(help="Where a domain's data are, as DOMAIN=PATH (or data-set name). Repeatable."),
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
    with errors_as_exit_codes():
        text = exports.export(
            Mixture.from_yaml(mixture), fmt, paths=_paths(path or []), provenance=f"{mixture.name}, by bimix export"
        )
        if output is None:
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SourceError(f"cannot write {output}: {error}") from error


def _paths(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        domain, equals, where = pair.partition("=")
        if not equals or not where:
            raise typer.BadParameter(f"{pair!r} is not DOMAIN=PATH", param_hint="--path")
        found[domain] = where
    return found
