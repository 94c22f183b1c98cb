"""CSV that people give, read strictly: a column stands once, and every line has as many cells as the header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bimix_tracking.errors import listed, shown


@dataclass(frozen=True)
class Table:
    """What a CSV text holds; it is read while its rows are.

    Args:
        header: The columns' names, each once.
        rows: Line, counted from 1, and cells, as many as columns; empty lines are skipped.
    """

    header: list[str]
    rows: Iterator[tuple[int, list[str]]]


def read_table(text: str | Iterable[str]) -> Table:
    r"""Return the header and the rows of a CSV text, or of a file that was opened with `newline=""`.

    Raises:
        ValueError: A column appears twice, a line has another number of cells, a quote isn't closed,
            or the cells are not separated by commas; the text names the line.

    >>> list(read_table("run,code\na,0.5\n\n").rows)
    [(2, ['a', '0.5'])]
    >>> read_table("run,code,code\na,0.5,0.5\n")
    Traceback (most recent call last):
    ValueError: line 1: the column 'code' appears twice: name each once
    """
    lines = _lines(io.StringIO(text, newline="") if isinstance(text, str) else text)
    line, header = next(lines, (1, []))
    other = next((letter for letter in ";\t|" if letter in header[0]), None) if len(header) == 1 else None
    if other is not None:
        raise ValueError(f"line {line}: its cells are separated by {shown(other)}: save it with commas")
    doubled = [name for name, count in Counter(header).items() if count > 1]
    if doubled:
        raise ValueError(f"line {line}: the column {listed(doubled)} appears twice: name each once")
    return Table(header, _rows(header, lines))


def _rows(header: list[str], lines: Iterable[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"line {line}: {len(cells)} cells, but the header has {len(header)}. Quote a cell that has a comma; "
                f"the line begins with {listed(cells, 3)}"
            )
        yield line, cells


def _lines(text: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {line}: {error}") from error
