"""What the commands share: how they talk, how they show progress, how they read `NAME=NUMBER`."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

import typer

from bimix_tracking.credentials import without_credentials

if TYPE_CHECKING:
    from rich.console import Console

    from bimix_tracking.data.pooling import Note
    from bimix_tracking.progress import Progress

_LOG_EVERY = 10.0
"""Seconds between two lines of progress in a log file."""
_LOG_WIDTH = 140
"""In a log file there is no width to fit: a table that wraps there cannot be read."""

_NO_LIMIT = 100_000


@dataclass
class Manner:
    """How this process was asked to talk."""

    debug: bool = False
    quiet: bool = False
    as_json: bool = False
    answers: TextIO | None = None
    """Where JSON goes: standard output as it was when the command began."""


manner: ContextVar[Manner] = ContextVar("manner", default=Manner())  # noqa: B039  # one process, one command


def say(text: str) -> None:
    """Print a line of talk: on standard output, which is put aside where it is for JSON."""
    typer.echo(text)


def answer(value: Mapping[str, Any]) -> None:
    """Print the result as one line of JSON, if that was asked for."""
    if manner.get().as_json:
        import json  # noqa: PLC0415  # --help must not wait for it

        typer.echo(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False), file=manner.get().answers)


def _plain(value: Any) -> Any:
    """Return JSON types: null for what is no number, since strict JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):  # of NumPy
        return _plain(value.item())
    return str(value)


def talk() -> Console:
    """Return where tables and sentences are printed, as wide as the terminal; wide enough in a log file."""
    return _console(sys.stdout)


def _console(to: TextIO, *, quiet: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it

    # The size is told, since Rich takes a dumb terminal for one of 80 columns, whatever it is
    there = shutil.get_terminal_size()
    return Console(file=to, quiet=quiet, width=there.columns if to.isatty() else _LOG_WIDTH, height=there.lines)


def print_table(
    title: str | None, columns: Mapping[str, Literal["left", "right"]], rows: Sequence[Sequence[str]], less: str = ""
) -> None:
    """Print a table; where the terminal is too narrow, columns are left out whole, not numbers cut.

    Args:
        title: Above it.
        columns: Their headings, and on which side their cells are.
        rows: Cells.
        less: Headings that go where there is no room for all, the least important first, with `|` between them.
    """
    from rich.markup import escape  # noqa: PLC0415  # --help must not wait for it
    from rich.table import Table  # noqa: PLC0415  # likewise

    console, shown = talk(), list(columns)
    left_out = [name for name in less.split("|") if name in columns]
    while True:
        table = Table(title=title and escape(title))
        for name in shown:
            table.add_column(escape(name), justify=columns[name], overflow="fold")
        for row in rows:
            cells = dict(zip(columns, row, strict=True))
            table.add_row(*(escape(cells[name]) for name in shown))
        needed = console.measure(table, options=console.options.update(max_width=_NO_LIMIT)).maximum
        if needed <= console.width or not left_out or not console.is_terminal:
            break
        shown.remove(left_out.pop(0))
    console.print(table)
    if len(shown) < len(columns):
        missing = ", ".join(name for name in columns if name not in shown)
        console.print(f"(A wider terminal, or a file, has also: {escape(missing)}.)", soft_wrap=True, style="dim")


@contextlib.contextmanager
def progress_shown() -> Iterator[Progress]:
    """Show progress and the time left on standard error: a moving bar on a terminal, now and then a line in a log."""
    from rich.markup import escape  # noqa: PLC0415  # --help must not wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415  # likewise
    from rich.progress import Progress as Bars  # noqa: PLC0415  # likewise

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = _console(sys.stderr, quiet=manner.get().quiet)
    moving = console.is_terminal and not console.is_dumb_terminal
    with Bars(*columns, console=console, transient=True, disable=not moving) as bars:
        tasks = {"": bars.add_task("opening the source", total=None)}
        told: dict[str, float] = {}
        begun: dict[str, float] = {}

        def log(what: str, done: int, total: int) -> None:
            now = time.monotonic()
            if what not in told:
                told[what] = begun[what] = now
                said = escape(without_credentials(what))
                console.print(f"{said}…" if total == 1 else f"{said} ({total})…")
            elif now - told[what] >= _LOG_EVERY and 0 < done < total:
                told[what] = now
                left = (now - begun[what]) * (total - done) / done
                console.print(f"{escape(without_credentials(what))}: {done} of {total}, about {left:.0f} s left")

        def show(what: str, done: int, total: int) -> None:
            if "" in tasks:
                bars.remove_task(tasks.pop(""))
            if what not in tasks:
                # It may quote a tracker
                tasks[what] = bars.add_task(escape(without_credentials(what)), total=total)
            bars.update(tasks[what], completed=done, total=total)
            if not moving:
                log(what, done, total)

        yield show


def print_notes(notes: Sequence[Note]) -> None:
    """Print what was excluded, on standard error."""
    from bimix_tracking.report.evidence import grouped  # noqa: PLC0415  # --help must not wait for SciPy

    if not manner.get().quiet:
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
