"""Runs with many evaluations are thinned for the fit: 1,000 points determine a curve as well as a million.

Cells of one width in log tokens, the same for all runs: of each, the last evaluation is kept, and the run's very first.
Where that is still too many, cells are joined by twos, so that what one run keeps, a shorter run keeps too: checkpoints
that runs share stay shared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np
import pandas as pd

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.pooling import Note
from bimix_tracking.messages import said

MOST = 1000
"""Evaluations of a run, of one set of domains, that are kept; a run of no more is used as it is."""
WIDTH = 0.02
"""Of a cell, in log tokens: over it a loss changes by less than a run's noise."""
T = TypeVar("T")


def reason() -> str:
    """Return what a note says of a run that was thinned."""
    return said("thinned for the fit to at most {most} evaluations, evenly spaced in log tokens", most=MOST)


class Thinner(Generic[T]):
    """Take items one after another, and keep the first and at most `MOST` others of each kind.

    It holds no more than that in memory, however many come.

    Args:
        where: An item's kind, and its tokens.

    >>> thinner = Thinner[int](lambda item: ("", float(item)))
    >>> for item in range(1, 100_001):
    ...     thinner.add(item)
    >>> kept = thinner.kept()
    >>> kept[:3], kept[-1], 200 < len(kept) <= 1001
    ([1, 2, 3], 100000, True)
    """

    def __init__(self, where: Callable[[T], tuple[Hashable, float]]) -> None:
        self._where = where
        self._kinds: dict[Hashable, _Kind[T]] = {}
        self._added = 0

    def add(self, item: T) -> None:
        """Take an item."""
        kind, tokens = self._where(item)
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind()
        known.add(self._added, tokens, item)
        self._added += 1

    def kept(self) -> list[T]:
        """Return what is kept, in the order in which it came."""
        found = [pair for kind in self._kinds.values() for pair in kind.kept.values()]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def dropped(self) -> dict[Hashable, int]:
        """Return how many items of a kind are not kept, of the kinds of which there are any."""
        counts = {name: kind.added - len(kind.kept) for name, kind in self._kinds.items()}
        return {name: count for name, count in counts.items() if count}


class _Kind(Generic[T]):
    """The items of one kind: all of them up to `MOST`, then the last of each cell."""

    def __init__(self) -> None:
        self.kept: dict[Hashable, tuple[int, T]] = {}
        self.added = 0
        self._level: int | None = None  # cells are 2^level widths wide; None: each item has one of its own
        self._cells: dict[int, int | None] = {}  # place → cell of level 0; None where the tokens aren't known

    def add(self, place: int, tokens: float, item: T) -> None:
        self.added += 1
        self._put(place, math.floor(math.log(tokens) / WIDTH) if 0 < tokens < math.inf else None, item)
        while len(self.kept) > MOST + 1:
            self._level = 0 if self._level is None else self._level + 1
            cells, in_order = self._cells, sorted(self.kept.values(), key=lambda pair: pair[0])
            self.kept, self._cells = {}, {}
            for at, one in in_order:
                self._put(at, cells[at], one)

    def _put(self, place: int, cell: int | None, item: T) -> None:
        key: Hashable = "first"
        if self.kept:
            key = ("item", place) if self._level is None else ("cell", None if cell is None else cell >> self._level)
        if key in self.kept:
            del self._cells[self.kept[key][0]]
        self.kept[key] = (place, item)
        self._cells[place] = cell


def kind_and_tokens(row: Mapping[str, float]) -> tuple[Hashable, float]:
    """Return which losses and targets a row has, none if it has no evaluation, and its tokens."""
    kind = tuple(filter(metric_names.is_value, row))
    return kind, row.get(metric_names.TOKENS, math.nan)


def thinned(record: RunRecord) -> RunRecord:
    """Return a run with as many rows as a fit needs, and a note where evaluations were dropped."""
    if len(record.rows) <= MOST:
        return record
    thinner = Thinner[Mapping[str, float]](kind_and_tokens)
    for row in record.rows:
        thinner.add(row)
    return dataclasses.replace(record, rows=thinner.kept(), notes={**record.notes, **note_of(thinner)})


def note_of(thinner: Thinner[Mapping[str, float]]) -> dict[str, int]:
    """Return the note that rows of a run were thinned: reason → evaluations that are not used; none if all are."""
    counts = thinner.dropped()
    dropped = sum(counts[kind] for kind in counts if kind != ())
    return {reason(): dropped} if dropped else {}


def thinned_table(table: pd.DataFrame, notes: list[Note]) -> pd.DataFrame:
    """Return a table of losses with as many rows as a fit needs.

    Args:
        table: One row a (run, checkpoint, domain), with columns `run`, `tokens` and `domain`.
        notes: Added to, for each run that is thinned.
    """
    sizes = table.groupby(["run", "domain"], sort=False)["tokens"].transform("size").to_numpy()
    if not (long := sizes > MOST).any():
        return table
    of_long = table.loc[long, ["run", "domain", "tokens"]]
    thinner = Thinner[tuple[int, str, str, float]](lambda item: ((item[1], item[2]), item[3]))
    columns = (of_long[name].tolist() for name in ("run", "domain", "tokens"))
    for item in zip(np.flatnonzero(long).tolist(), *columns, strict=True):
        thinner.add(item)
    kept = ~long
    kept[[item[0] for item in thinner.kept()]] = True
    counts: dict[str, int] = {}
    for run in table["run"].to_numpy()[~kept].tolist():
        counts[run] = counts.get(run, 0) + 1
    notes += [Note(said("kept"), reason(), count, run=run) for run, count in counts.items()]
    return table[kept]
