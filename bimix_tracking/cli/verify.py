"""`bimix verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bimix_tracking.cli.console import (
    answer,
    named_numbers,
    number,
    print_table,
    progress_shown,
    say,
    talk,
)
from bimix_tracking.cli.question import Lang, known_lang
from bimix_tracking.cli.source import Filter, Mixtures, Source, Unfinished, opened
from bimix_tracking.cli.teaching import OUTPUT

if TYPE_CHECKING:
    from bimix_tracking.analysis.verification import Verification

_COLUMNS: Mapping[str, Literal["left", "right"]] = {
    "run": "left",
    "domain": "left",
    "predicted": "right",
    "interval": "right",
    "observed": "right",
    "verdict": "left",
}


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
        list[str] | None, typer.Option(metavar="DOMAIN=NUMBER", help="Weight of a domain's loss. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the artifacts into this folder.", rich_help_panel=OUTPUT)
    ] = None,
    write_back: Annotated[
        bool,
        typer.Option(
            "--write-back", help="Write the verification into the source, as a run of its own.", rich_help_panel=OUTPUT
        ),
    ] = False,
    lang: Lang = "en",
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
) -> None:
    r"""Compare runs that followed a recommendation with its prediction.

    The laws are fitted again with these runs, and the recommendation renewed.

    \b
    Examples:
      bimix verify mlflow:my-sweep big-run-1 --analysis analysis --write-back
      # two seeds, from plain files
      bimix verify jsonl:runs seed-1 seed-2 --analysis analysis --out verification
    """
    from bimix_tracking.analysis.verifying import verify as run  # noqa: PLC0415  # --help must not wait for SciPy

    target = None if tokens is None else number(tokens, "--tokens")
    weights = named_numbers(weight or [], "--weight")
    options: dict[str, Any] = {"lang": known_lang(lang)} | ({} if weights is None else {"weights": weights})
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
        say(f"\nArtifacts: {out}")
    if found.location is not None:
        say(f"Written back: {found.location}")
    answer(found.to_dict() | {"artifacts": out, "written_back": found.location})


def _print(found: Verification) -> None:
    from rich.markup import escape  # noqa: PLC0415  # --help must not wait for it

    console = talk()
    first, *rest = found.sentences()
    console.print(escape(first), soft_wrap=True, style="bold")
    rows = []
    for row in found.table.to_dict("records"):
        numbers = f"{row['predicted']:.4f}", f"{row['low']:.4f}–{row['high']:.4f}", f"{row['observed']:.4f}"
        rows.append((row["run"], row["target"], *numbers, row["verdict"]))
    title = f"Predicted without these runs, and observed: {100 * found.level:.0f} % interval of one run"
    print_table(title, _COLUMNS, rows, "predicted|interval")
    for text in rest:
        console.print(escape(text), soft_wrap=True)
    for text in found.warnings:
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")
