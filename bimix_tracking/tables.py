"""CSV that people give, read strictly: a column stands once, and every line has as many cells as the header."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass

from bimix_tracking.errors import listed, shown


@dataclass(frozen=True)
class Table:
    """What a CSV text holds.

    Args:
        header: The columns' names, each once.
        rows: Line, counted from 1, and cells, as many as columns; lines with nothing in them are left out.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_table(text: str) -> Table:
    r"""Return the header and the rows of a CSV text.

    Raises:
        ValueError: A column stands twice, a line has another number of cells, a quote isn't closed, or the cells are
            not separated by commas; the text names the line.

    >>> read_table("run,code\na,0.5\n\n").rows
    ((2, ('a', '0.5')),)
    >>> read_table("run,code,code\na,0.5,0.5\n")
    Traceback (most recent call last):
    ValueError: the column 'code' stands twice in line 1: name each once
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: tuple[str, ...] = ()
    rows: list[tuple[int, tuple[str, ...]]] = []
    line = 0
    try:
        for cells in reader:
            begins, line = line + 1, reader.line_num
            if not any(map(str.strip, cells)):
                continue
            if not header:
                header = _header(cells, begins)
            elif len(cells) != len(header):
                raise ValueError(
                    f"line {begins}: {len(cells)} cells, but the header has {len(header)}. Put a cell with a comma in "
                    f"quotes; the line begins with {listed(cells, 3)}"
                )
            else:
                rows.append((begins, tuple(cells)))
    except csv.Error as error:
        raise ValueError(f"line {line + 1}: {error}") from error
    return Table(header, tuple(rows))


def _header(cells: list[str], line: int) -> tuple[str, ...]:
    if len(cells) == 1:
        other = next((letter for letter in (";", "\t", "|") if letter in cells[0]), None)
        if other is not None:
            raise ValueError(f"line {line}: its cells are separated by {shown(other)}: save it with commas")
    doubled = [name for name, count in Counter(cells).items() if count > 1]
    if doubled:
        raise ValueError(f"the column {listed(doubled)} stands twice in line {line}: name each once")
    return tuple(cells)
