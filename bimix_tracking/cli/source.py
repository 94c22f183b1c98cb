"""How the commands name a source, and which of its runs they read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bimix_tracking.cli.entries import one_of
from bimix_tracking.cli.teaching import READING, SOURCES, among, sources

if TYPE_CHECKING:
    from bimix_tracking.tracking.ports import RunSource

SOURCE_HELP = ", ".join(SOURCES)
TOKENS_HELP = "Training tokens of the target run, such as 100B or 1.2T."
SIZE_HELP = "Model size of the target run, in the runs' own parameters, such as 7B: runs of all sizes are pooled."
Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help=f"Where the runs are: {SOURCE_HELP}.", autocompletion=sources)
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        help="Only these runs, in the tracker's own language: MLflow's search expressions, W&B's JSON filters.",
        rich_help_panel=READING,
    ),
]
Unfinished = Annotated[
    bool,
    typer.Option(
        "--unfinished",
        help="Read unfinished runs too, running or dead, as far as they got.",
        rich_help_panel=READING,
    ),
]
Mixtures = Annotated[
    Path | None,
    typer.Option(
        "--mixtures",
        help="YAML with the mixtures, names and tokens of runs that were logged without bimix.",
        rich_help_panel=READING,
    ),
]

TargetsFile = Annotated[
    Path | None,
    typer.Option(
        "--targets",
        metavar="FILE",
        help="YAML with what targets are: kind (loss, bpb, accuracy, score), questions, chance, weight, group, task.",
        rich_help_panel=READING,
    ),
]

RunShares = Annotated[
    str,
    typer.Option(
        "--shares",
        help="Fit the law to what the mixtures asked for (nominal), or to the runs' shares of tokens (realised).",
        autocompletion=among("nominal", "realised"),
        rich_help_panel=READING,
    ),
]


def opened(
    source: str,
    filter_: str | None,
    unfinished: bool,
    mixtures: Path | None,
    shares: str = "nominal",
    targets: Path | None = None,
    *,
    pool_sizes: bool = False,
) -> RunSource:
    """Return the source, set to read those runs; a targets file is read before it.

    Args:
        source: Its URI.
        filter_: Of `--filter`, like the four that follow of theirs.
        unfinished: Whether unfinished runs count.
        mixtures: A file.
        shares: Which proportions.
        targets: A file.
        pool_sizes: Whether runs may be of several model sizes.
    """
    from bimix_tracking.data.targets import targets_of  # noqa: PLC0415  # nor for PyYAML
    from bimix_tracking.tracking.other_tools.runs import ForeignRuns  # noqa: PLC0415  # --help must not wait for PyYAML
    from bimix_tracking.tracking.ports import SHARES, Wanted, open_source  # noqa: PLC0415  # nor for NumPy

    of_tokens = one_of(shares, SHARES, "--shares", "kind of shares")
    foreign = None if mixtures is None else ForeignRuns.from_file(mixtures)
    described = targets_of(targets) or None
    return open_source(source, wanted=Wanted(filter_, unfinished, foreign, of_tokens, described, pool_sizes))
