"""`bimix …`: thin; every command is a few calls of the public API.

Exit codes: 0 done; 1 a bug of ours; 2 wrong usage; 3 data that cannot be used; 4 a source that cannot be read or
written; 5 a fit from which nothing can be recommended; 6 an optional dependency is missing.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bimix_tracking.errors import (
    BimixError,
    MissingDependencyError,
    RecommendationError,
    SourceError,
)

if TYPE_CHECKING:
    from bimix_tracking.analysis import Analysis
    from bimix_tracking.pooling import Note
    from bimix_tracking.tracking import Progress

_EXIT_CODES = {SourceError: 4, RecommendationError: 5, MissingDependencyError: 6}
_BAD_DATA = 3
_SOURCE_HELP = (
    "mlflow:EXPERIMENT, mlflow+sqlite:///FILE#EXPERIMENT, mlflow+http://HOST:PORT#EXPERIMENT, jsonl:DIR, csv:FILE"
)

app = typer.Typer(
    help="Fit a mixture law to a sweep's losses by domain, and recommend the data mixture to pretrain on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=f"Where the runs are: {_SOURCE_HELP}.")]


@app.command()
def analyze(
    source: Source,
    tokens: Annotated[str, typer.Option(help="Training tokens of the run that will use the mixture, such as 100e9.")],
    out: Annotated[Path | None, typer.Option(help="Write the artifacts into this folder.")] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Weight of a domain's loss, as DOMAIN=NUMBER; 1 where not given. Repeatable."),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="auto (which predicts left-out mixtures best), bimix, transfer, additive, exponential or ensemble."
        ),
    ] = "auto",
    write_back: Annotated[
        bool, typer.Option("--write-back", help="Write the analysis into the source, as a run of its own.")
    ] = False,
) -> None:
    """Read a sweep, fit the laws, recommend a mixture.

    Example: bimix analyze mlflow:my-sweep --tokens 100e9 --out analysis --write-back
    """
    from bimix_tracking.analysis import AUTO  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.analysis import analyze as run  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.laws import ENSEMBLE  # noqa: PLC0415  # nor these for NumPy
    from bimix_tracking.laws import law as find_law  # noqa: PLC0415  # likewise

    target, weights = _number(tokens, "--tokens"), _weights(weight or [])
    if law not in (AUTO, ENSEMBLE):
        try:
            find_law(law)
        except ValueError as error:
            raise typer.BadParameter(f"{error}, {AUTO}", param_hint="--law") from error
    with _errors_as_exit_codes():
        with _progress() as progress:
            found = run(source, target, law=law, weights=weights, out=out, write_back=write_back, progress=progress)
        _print_analysis(found)
        if out is not None:
            typer.echo(f"\nArtifacts: {out}")
        if found.location is not None:
            typer.echo(f"Written back: {found.location}")


@app.command()
def pull(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file; `csv:FILE` reads it back.")],
) -> None:
    """Pull every finished training run of a source into one table.

    Example: bimix pull mlflow:my-sweep -o sweep.csv
    """
    from bimix_tracking.observations import Observations  # noqa: PLC0415  # --help must not wait for pandas

    with _errors_as_exit_codes():
        with _progress() as progress:
            obs = Observations.from_source(source, progress=progress)
        try:
            obs.to_csv(output)
        except OSError as error:
            raise SourceError(f"cannot write {output}: {error}") from error
        _print_notes(obs.notes)
        typer.echo(f"{output}: {len(obs.runs)} runs, {len(obs.targets)} domains, {len(obs.losses)} losses")


def main() -> None:
    """Run the command line."""
    app()


@contextlib.contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    """Print a mistake of the user's as one line; a bug of ours keeps its traceback."""
    try:
        yield
    except BimixError as error:
        typer.echo(f"error: {error}", err=True)
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), _BAD_DATA)
        raise typer.Exit(code) from error


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show progress on standard error: a moving bar on a terminal, a line for each stage in a log file."""
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {"": bars.add_task("opening the source", total=None)}

        def show(what: str, done: int, total: int) -> None:
            if "" in tasks:
                bars.remove_task(tasks.pop(""))
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
                if not console.is_terminal:
                    console.print(f"{what}…" if total == 1 else f"{what} ({total})…")
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _print_analysis(found: Analysis) -> None:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    _print_notes(found.fit.notes)
    rec, fit, unseen = found.recommendation, found.fit, found.validation
    # In a log file there is no width to fit: a table that wraps there cannot be read.
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"Mixture for {rec.tokens:.4g} tokens, from {len(found.observations.runs)} runs")
    table.add_column("domain")
    for name in (
        "recommended",
        "reference",
        "tried",
        "predicted loss",
        "on reference",
        "held-out error",
        "fit",
    ):
        table.add_column(name, justify="left" if name == "fit" else "right")
    for domain in fit.domains:
        fitted = fit.targets[domain]
        table.add_row(
            escape(domain),
            f"{rec.mixture[domain]:.4f}",
            f"{rec.reference[domain]:.4f}",
            f"{fitted.shares[0]:.3f}–{fitted.shares[1]:.3f}",
            f"{rec.predicted[domain]:.4f}",
            f"{rec.reference_predicted[domain]:.4f}",
            f"{100 * unseen.error[domain]:.2f} %" if unseen and domain in unseen.error else "–",
            fitted.outcome.name.lower().replace("_", " "),
        )
    console.print(table)
    console.print(
        f"Predicted gain over the reference: {rec.gain:.4f} nats, all domains together, as weighted. "
        + escape(found.noise()),
        soft_wrap=True,
    )
    if found.selection is not None:
        console.print(escape(found.selection.sentences()), soft_wrap=True)
    if unseen is not None:
        console.print(escape(unseen.sentences()), soft_wrap=True)
    if found.extrapolation is not None:
        console.print(escape(found.extrapolation.sentences()), soft_wrap=True)
    diagnosed = (str(one) for one in found.diagnostics if one.kind not in ("outcome", "outside"))
    for text in (*rec.warnings, *(f"domain {d!r} {why}" for d, why in rec.held.items()), *diagnosed):
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")


def _print_notes(notes: Sequence[Note]) -> None:
    from bimix_tracking.report.content import grouped  # noqa: PLC0415  # --help must not wait for SciPy

    for line in grouped(notes):
        typer.echo(line, err=True)


def _number(text: str, option: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"{text!r} is no positive number of tokens, such as 100e9", param_hint=option)
    return number


def _weights(pairs: list[str]) -> dict[str, float] | None:
    weights = {}
    for pair in pairs:
        domain, equals, value = pair.rpartition("=")
        try:
            weights[domain] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not DOMAIN=NUMBER", param_hint="--weight")
    return weights or None
