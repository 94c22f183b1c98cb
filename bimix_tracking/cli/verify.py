"""`bimix verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bimix_tracking.cli.console import errors_as_exit_codes, named_numbers, number, progress_shown
from bimix_tracking.cli.source import Filter, Mixtures, Source, Unfinished, opened

if TYPE_CHECKING:
    from bimix_tracking.verification import Verification


def verify(
    source: Source,
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names or ids of runs that followed it.")],
    tokens: Annotated[
        str | None, typer.Option(help="Tokens the recommendation was for; else the analysis's, or the longest run's.")
    ] = None,
    analysis: Annotated[
        Path | None, typer.Option(help="Folder that `analyze --out` left: its runs, law and tokens are the prediction.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Weight of a domain's loss, as DOMAIN=NUMBER. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the artifacts into this folder.")] = None,
    write_back: Annotated[
        bool, typer.Option("--write-back", help="Write the verification into the source, as a run of its own.")
    ] = False,
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
) -> None:
    """Compare runs that followed a recommendation with its prediction, and fit again with them.

    Example: bimix verify mlflow:my-sweep big-run-1 --analysis analysis --write-back
    """
    from bimix_tracking.verification import verify as run  # noqa: PLC0415  # --help must not wait for SciPy

    target = None if tokens is None else number(tokens, "--tokens")
    weights = named_numbers(weight or [], "--weight")
    options = {} if weights is None else {"weights": weights}
    with errors_as_exit_codes():
        with progress_shown() as progress:
            found = run(
                opened(source, filter_, unfinished, mixtures),
                runs,
                tokens=target,
                analysis=analysis,
                out=out,
                write_back=write_back,
                progress=progress,
                **options,
            )
        _print(found)
        if out is not None:
            typer.echo(f"\nArtifacts: {out}")
        if found.location is not None:
            typer.echo(f"Written back: {found.location}")


def _print(found: Verification) -> None:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    console = Console(width=None if sys.stdout.isatty() else 140)
    first, *rest = found.sentences()
    console.print(escape(first), soft_wrap=True, style="bold")
    table = Table(title=f"Predicted without these runs, and observed: {100 * found.level:.0f} % interval of one run")
    for name in ("run", "domain", "predicted", "interval", "observed", "verdict"):
        table.add_column(name, justify="left" if name in ("run", "domain", "verdict") else "right")
    for row in found.table.to_dict("records"):
        numbers = f"{row['predicted']:.4f}", f"{row['low']:.4f}–{row['high']:.4f}", f"{row['observed']:.4f}"
        table.add_row(escape(row["run"]), escape(row["target"]), *numbers, row["verdict"])
    console.print(table)
    for text in rest:
        console.print(escape(text), soft_wrap=True)
    for text in found.warnings:
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")
