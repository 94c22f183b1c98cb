"""What the commands share: how they end, how they show progress, how they read `NAME=NUMBER`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from bimix_tracking.errors import BimixError, MissingDependencyError, RecommendationError, SourceError

if TYPE_CHECKING:
    from bimix_tracking.pooling import Note
    from bimix_tracking.tracking import Progress

_EXIT_CODES = {SourceError: 4, RecommendationError: 5, MissingDependencyError: 6}
_BAD_DATA = 3


@contextlib.contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Print a mistake of the user's as one line; a bug of ours keeps its traceback."""
    try:
        yield
    except BimixError as error:
        typer.echo(f"error: {error}", err=True)
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), _BAD_DATA)
        raise typer.Exit(code) from error


@contextlib.contextmanager
def progress_shown() -> Iterator[Progress]:
    """Show progress on standard error: a moving bar on a terminal, a line for each stage in a log file."""
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.markup import escape  # noqa: PLC0415
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
                tasks[what] = bars.add_task(escape(what), total=total)  # it may quote a tracker
                if not console.is_terminal:
                    console.print(f"{escape(what)}…" if total == 1 else f"{escape(what)} ({total})…")
            bars.update(tasks[what], completed=done, total=total)

        yield show


def print_notes(notes: Sequence[Note]) -> None:
    """Print what was set aside, on standard error."""
    from bimix_tracking.report.content import grouped  # noqa: PLC0415  # --help must not wait for SciPy

    for line in grouped(notes):
        typer.echo(line, err=True)


def number(text: str, option: str) -> float:
    """Return a positive number of tokens given as text."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise typer.BadParameter(f"{text!r} is no positive number of tokens, such as 100e9", param_hint=option)
    return number


def named_numbers(pairs: Sequence[str], option: str) -> dict[str, float] | None:
    """Return `NAME=NUMBER` entries as a mapping; None where there is none. Names may hold `=`."""
    weights = {}
    for pair in pairs:
        domain, equals, value = pair.rpartition("=")
        try:
            weights[domain] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not DOMAIN=NUMBER", param_hint=option)
    return weights or None


def bounds_of(pairs: Sequence[str], option: str) -> dict[str, float | tuple[float, float]] | None:
    """Return `NAME=LOW:HIGH` and `NAME=SHARE` entries as bounds and pins; None where there is none."""
    bounds: dict[str, float | tuple[float, float]] = {}
    for pair in pairs:
        domain, equals, value = pair.rpartition("=")
        low, colon, high = value.partition(":")
        try:
            bounds[domain] = (float(low), float(high)) if colon else float(low)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{pair!r} is neither DOMAIN=LOW:HIGH nor DOMAIN=SHARE", param_hint=option)
    return bounds or None
