"""`bimix verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import (
    Column,
    answer,
    print_table,
    progress_shown,
    say,
    speak,
)
from bimix_tracking.cli.entries import parameters_of, tokens_of, weights_by_target
from bimix_tracking.cli.question import Lang, known_lang
from bimix_tracking.cli.source import Filter, Mixtures, Source, TargetsFile, Unfinished, opened
from bimix_tracking.cli.teaching import OUTPUT
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING

if TYPE_CHECKING:
    from bimix_tracking.analysis.verification import Verification

_COLUMNS: Sequence[Column] = (
    (said("run"), "left"),
    (said("target"), "left"),
    (said("predicted"), "right"),
    (said("interval"), "right"),
    (said("observed"), "right"),
    (said("verdict"), "left"),
)
_SIDES = {
    "inside": said("inside"),
    "above": said("above"),
    "below": said("below"),
    "unknown": said("level unknown"),
}


def verify(
    source: Source,
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Names or ids of runs that followed it.")],
    tokens: Annotated[
        str | None, typer.Option(help="Tokens the recommendation was for; else the analysis's, or the longest run's.")
    ] = None,
    model_size: Annotated[
        str | None,
        typer.Option(
            metavar="PARAMETERS",
            help="Model size the recommendation was for, such as 7B; else the analysis's, or the largest run's.",
        ),
    ] = None,
    analysis: Annotated[
        Path | None,
        typer.Option(help="Folder that `analyze --out` left: its runs and law predict, its question is kept."),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(metavar="TARGET=NUMBER", help="Weight of a target, or of a group of targets. Repeatable."),
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
    targets: TargetsFile = None,
) -> None:
    r"""Compare runs that followed a recommendation with its prediction.

    Each is compared at its own model size, and as far as it is in its schedule. Then the laws are fitted again with
    these runs, and the recommendation is renewed, with all that the analysis was asked.

    \b
    Examples:
      bimix verify mlflow:my-sweep big-run-1 --analysis analysis --write-back
      # a run of 7B that is still going, against proxies and anchors
      bimix verify mlflow:my-sweep big-run-1 --analysis analysis --unfinished
      # two seeds, from plain files
      bimix verify jsonl:runs seed-1 seed-2 --analysis analysis --out verification
    """
    from bimix_tracking.analysis.verifying import verify as run  # noqa: PLC0415  # --help must not wait for SciPy

    target = None if tokens is None else tokens_of(tokens, "--tokens")
    size = None if model_size is None else parameters_of(model_size)
    weights = weights_by_target(weight)
    options: dict[str, Any] = {"lang": known_lang(lang)} | ({} if weights is None else {"weights": weights})
    speak(lang)
    with progress_shown() as progress:
        found = run(
            opened(source, filter_, unfinished, mixtures, targets=targets),
            runs,
            tokens=target,
            model_size=size,
            analysis=analysis,
            out=out,
            write_back=write_back,
            progress=progress,
            **options,
        )
    _print(found)
    if out is not None:
        say(said("Artifacts: {where}", where=out), whole=True)
    if found.location is not None:
        say(said("Written back: {where}", where=found.location), whole=True)
    answer(found.to_dict() | {"artifacts": out, "written_back": found.location})


def _print(found: Verification) -> None:
    from bimix_tracking.analysis.verification import SUM  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.display.texts import isolated, printable  # noqa: PLC0415  # likewise

    first, *rest = found.sentences()
    say(first, "bold")
    for text in found.warnings:
        say(joined([said("Warning:"), text]), "yellow")
    say()
    say(
        said(
            "Predicted without these runs, with the {level:.0f} % interval of one run, and observed",
            level=100 * found.level,
        )
    )
    rows = []
    for row in found.table.to_dict("records"):
        predicted, low, high, observed = (
            found.shown(row["target"], row[column]) for column in ("predicted", "low", "high", "observed")
        )
        target = said("weighted sum") if row["target"] == SUM else isolated(printable(row["target"]))
        interval = MISSING if row["verdict"] == "unknown" else f"{low}–{high}"
        rows.append((printable(row["run"]), target, predicted, interval, observed, _SIDES[row["verdict"]]))
    print_table(_COLUMNS, rows, ("predicted",))
    say()
    for text in rest:
        say(text)
