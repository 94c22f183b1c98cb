"""How the commands talk: sentences and tables, progress, one line of JSON."""

from __future__ import annotations

import contextlib
import math
import os
import re
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
_WIDTH = 80
"""Where neither a terminal nor COLUMNS says how wide a line may be."""
_CLOSING = "\\u3001\\u3002\\u300d\\u301c\\u30fc\\uff09\\uff1a"
"""Of the wide characters, those that no line begins with."""
_GAP = 2
"""Spaces between two columns."""
_LEAST_NAME = 12
"""A name of a domain that is cut into shorter pieces than this can't be read."""


Column = tuple[str, Literal["left", "right"]]
"""A column's heading, and the side its cells are on."""

Cells = tuple[Column, Sequence[str]]
"""A column with its cells."""


@dataclass
class Manner:
    """How this process was asked to talk."""

    debug: bool = False
    quiet: bool = False
    as_json: bool = False
    answers: TextIO | None = None
    """Where JSON goes: standard output as it was when the command began."""
    lang: str = "en"
    """The language of the answer."""


manner: ContextVar[Manner] = ContextVar("manner", default=Manner())  # noqa: B039  # one process, one command


def speak(lang: str) -> None:
    """Give the answer in a language from here on."""
    manner.get().lang = lang


def say(text: str = "", style: str = "", *, whole: bool = False) -> None:
    """Print a sentence in the language of the answer: on standard output, or on standard error where that is for JSON.

    It is wrapped between words where the width is known; in a pipe or a file it stays one line.

    Args:
        text: The sentence.
        style: As Rich has them, for terminals.
        whole: Not to be wrapped: it holds a path.
    """
    if whole or not (style or _bounded(sys.stdout)):
        typer.echo(translated(text))
        return
    from rich.text import Text  # noqa: PLC0415  # --help must not wait for it

    shown, bounded = translated(text), _bounded(sys.stdout)
    talk().print(Text(folded(shown, talk().width) if bounded else shown), style=style, soft_wrap=not bounded)


def translated(text: str) -> str:
    """Return a sentence of `said` in the language of the answer."""
    lang = manner.get().lang
    if lang == "en":
        return str(text)
    from bimix_tracking.report.language import Language  # noqa: PLC0415  # only then

    return Language(lang)(text)


def folded(text: str, room: int) -> str:
    """Return a sentence with its line breaks, if it is in a script without spaces: before any wide character.

    No line begins with a closing mark.

    >>> print(folded("ホールドアウト誤差は 0.91% です。", 17))
    ホールドアウト誤
    差は 0.91% です。
    """
    from rich.cells import cell_len  # noqa: PLC0415  # --help must not wait for it

    from bimix_tracking.display.texts import WIDE  # noqa: PLC0415  # likewise

    if not re.search(f"[{WIDE}]", text):
        return text
    lines = [""]
    for piece in re.findall(f"(?:[^\\s{WIDE}]+|[{WIDE}])[{_CLOSING}]*\\s*", text):
        if lines[-1] and cell_len(lines[-1]) + cell_len(piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


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
    """Return where tables and sentences are printed: as wide as the terminal, or as COLUMNS says."""
    return _console(sys.stdout)


def _console(to: TextIO, *, quiet: bool = False) -> Console:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it

    # The size is given, since Rich takes a dumb terminal for one of 80 columns, whatever it is
    there = shutil.get_terminal_size()
    return Console(file=to, quiet=quiet, width=there.columns if _bounded(to) else _WIDTH, height=there.lines)


def _bounded(to: TextIO) -> bool:
    return to.isatty() or bool(os.environ.get("COLUMNS"))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> None:
    """Print a table; where there is no room, optional columns are dropped whole: no number is cut.

    Args:
        columns: Their headings, and on which side their cells are. The first one's cells may wrap.
        rows: Cells.
        optional: Headings that go where there is no room for all, the least important first.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  # --help must not wait for it
    from rich.table import Table  # noqa: PLC0415  # likewise
    from rich.text import Text  # noqa: PLC0415  # likewise

    console, droppable, kept = talk(), list(optional), list(range(len(columns)))
    widths = widths_of(columns, rows, console.width)
    while widths is None and droppable:
        dropped = droppable.pop(0)
        kept = [i for i in kept if columns[i][0] != dropped]
        widths = widths_of([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], console.width)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, (heading, side) in enumerate(columns[i] for i in kept):
        width = None if widths is None else widths[place]
        table.add_column(Text(translated(heading)), justify=side, overflow="fold", width=width)
    for row in rows:
        table.add_row(*(Text(translated(row[i])) for i in kept))
    console.print(table)


def print_in_tables(first: Sequence[Cells], groups: Sequence[Sequence[Cells]]) -> None:
    """Print columns in as many tables as the width asks for.

    Args:
        first: Columns that each table begins with: heading, side and cells.
        groups: Columns that stay together.
    """
    shown = list(first)
    for number, group in enumerate(groups):
        shown += group
        after = groups[number + 1] if number + 1 < len(groups) else None
        if after is None or not _fit([*shown, *after], talk().width):
            print_table([column for column, _ in shown], list(zip(*(cells for _, cells in shown), strict=True)))
            shown = list(first)
            say()


def _fit(columns: Sequence[Cells], room: int) -> bool:
    return (
        widths_of([column for column, _ in columns], list(zip(*(c for _, c in columns), strict=True)), room) is not None
    )


def widths_of(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return how wide each column is: headings wrap first, then names, numbers never; None where there is no room.

    >>> columns = [("domain", "left"), ("held-out error", "right")]
    >>> widths_of(columns, [("stackexchange", "1.19 %")], 40), widths_of(columns, [("stackexchange", "1.19 %")], 22)
    ([13, 14], [12, 8])
    """
    from rich.cells import cell_len  # noqa: PLC0415  # --help must not wait for it

    headings = [translated(heading) for heading, _ in columns]
    content = [max((cell_len(translated(row[i])) for row in rows), default=0) for i in range(len(columns))]
    whole = [max(most, cell_len(heading)) for most, heading in zip(content, headings, strict=True)]
    gaps = _GAP * (len(columns) - 1)
    if sum(whole) + gaps <= room:
        return whole
    least = [max([most, *map(cell_len, heading.split())]) for most, heading in zip(content, headings, strict=True)]
    left = room - sum(least[1:]) - gaps
    if left < min(whole[0], _LEAST_NAME):
        return None
    return [min(whole[0], left), *least[1:]]


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
            typer.echo(translated(line), err=True)
