"""How often each pair of neighbouring tokens was seen: sorted runs that merge, in memory and on disk."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import CorpusError

Keys = npt.NDArray[np.uint64]
Packed = npt.NDArray[np.uint32 | np.uint64]
"""Pairs of 64 bits, or of 32 where both ids are below 2¹⁶."""
Counts = npt.NDArray[np.int64]

SHIFT = 32
"""A pair's key holds the first token in its upper half."""
MEMORY = 1 << 30
"""Bytes of counts held in memory by default; more go to the disk."""
_BUFFER = 1 << 24
"""Pairs that are sorted at once: 64 MiB of them stay near the processor."""
_NARROW = 16
"""Ids below 2¹⁶ make pairs of 32 bits, which sort twice as fast."""
_WIDE_BITS = np.uint64(0xFFFF0000FFFF0000)
_MOST_RUNS = 16
_PIECE = 1 << 18
"""Entries that are merged at once."""
_ENTRY = 16
_MERGING = 6
"""Bytes that merging takes for each byte merged: both inputs, an order, and the result."""


class Run(NamedTuple):
    """Distinct pairs in ascending order and how often each was seen."""

    keys: Keys
    counts: Counts


class PairCounts:
    """A table of counts that adds: what comes in is sorted, and sorted runs of like size are merged.

    Args:
        memory: Bytes that counts may take in memory, and their merging; what is more goes to a temporary folder as
            sorted runs, and is merged piece by piece when it is asked for. What is being sorted comes on top: about
            20 bytes for each of up to 16 million pairs.
        folder: Where that folder is made; by default where the system keeps temporary files.
    """

    def __init__(self, memory: int = MEMORY, folder: str | Path | None = None) -> None:
        self._memory = memory
        self._parent = folder
        self._lock = threading.Lock()
        self._buffer: Packed = np.zeros(0, np.uint32)
        self._filled = 0
        self._runs: list[Run] = []
        self._spilled: list[Run] = []
        self._folders: list[_Folder] = []
        self._own: _Folder | None = None
        self._written = 0

    def add(self, first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> None:
        """Count pairs, two arrays of one shape; of 16 bits they are counted twice as fast."""
        if first.ndim == 1:
            first, second = first[None], second[None]
        kind = np.uint32 if first.dtype == second.dtype == np.uint16 else np.uint64
        if self._filled and self._buffer.dtype != kind:
            self._sort()
        rows = max(1, _BUFFER // max(first.shape[1], 1))
        for row in range(0, len(first), rows):
            for column in range(0, first.shape[1], _BUFFER):
                part = np.s_[row : row + rows, column : column + _BUFFER]
                self._put(first[part], second[part], kind)

    def add_run(self, run: Run) -> None:
        """Add counts that are sorted already."""
        if len(run.keys):
            with self._lock:
                self._runs.append(run)
            self.settle()

    def __iadd__(self, other: PairCounts) -> Self:
        other._sort()
        with self._lock:
            self._runs += other._runs
            # Files stay as long as someone holds their folder.
            self._spilled += other._spilled
            self._folders += other._folders
        return self

    def settle(self) -> None:
        """Merge runs where there are many, and write out what takes too much memory. Threads may call it at once."""
        while runs := self._take():
            merged = merge(runs)
            with self._lock:
                self._runs.append(merged)
        self._spill()

    def unite(self, workers: int) -> None:
        """Merge all that is in memory, in threads: what `runs` would do in one."""
        self._sort()
        if len(self._runs) > 1:
            self._runs = [merge(self._runs, workers)]

    def runs(self) -> Iterator[Run]:
        """Yield all counts in ascending order of pairs, in pieces that hold no pair in common."""
        self.unite(1)
        if not self._spilled:
            yield from self._runs
            return
        runs = [*self._runs, *self._spilled]
        yield from _in_pieces(runs, max(self._memory // (_ENTRY * (1 + _MERGING)), 1 << 12))

    def whole(self) -> Run:
        """Return all counts at once, however many there are."""
        found = list(self.runs())
        return merge(found or [Run(np.zeros(0, np.uint64), np.zeros(0, np.int64))])

    def _put(self, first: npt.NDArray[Any], second: npt.NDArray[Any], kind: type[np.uint32 | np.uint64]) -> None:
        if self._filled + first.size > _BUFFER:
            self._sort()
        if len(self._buffer) < self._filled + first.size or self._buffer.dtype != kind:
            # Small counters, of which there are many, don't take the whole of it.
            larger = np.empty(min(max(2 * (self._filled + first.size), 1 << 12), _BUFFER), kind)
            larger[: self._filled] = self._buffer[: self._filled]
            self._buffer = larger
        pairs = self._buffer[self._filled : self._filled + first.size].reshape(first.shape)
        shift = _NARROW if kind is np.uint32 else SHIFT
        np.left_shift(first, shift, out=pairs, dtype=kind, casting="unsafe")
        np.bitwise_or(pairs, second, out=pairs, dtype=kind, casting="unsafe")
        self._filled += first.size

    def _sort(self) -> None:
        """Sort what waits into a run."""
        if not self._filled:
            return
        pairs, self._filled = self._buffer[: self._filled], 0
        pairs.sort()
        ends = np.append(np.flatnonzero(pairs[1:] != pairs[:-1]), len(pairs) - 1)
        keys: Keys = pairs[ends].astype(np.uint64)
        run = Run(_wide(keys) if pairs.dtype == np.uint32 else keys, np.diff(ends, prepend=-1))
        with self._lock:
            self._runs.append(run)
        self.settle()

    def _take(self) -> list[Run]:
        """Take out the smaller half of many runs: so each pair is merged few times, and many runs at once."""
        with self._lock:
            if len(self._runs) < _MOST_RUNS:
                return []
            self._runs.sort(key=lambda run: len(run.keys))
            half = len(self._runs) // 2
            taken, self._runs = self._runs[:half], self._runs[half:]
            return taken

    def _spill(self) -> None:
        with self._lock:
            if _ENTRY * (1 + _MERGING) * sum(len(run.keys) for run in self._runs) <= self._memory:
                return
            runs, self._runs = self._runs, []
            if self._own is None:
                self._own = _Folder(self._parent)
                self._folders.append(self._own)
            self._written += 1
            paths = [self._own.path / f"{self._written}.{what}.npy" for what in Run._fields]
        try:
            for path, values in zip(paths, merge(runs), strict=True):
                np.save(path, values)
        except OSError as error:
            raise CorpusError(
                f"counts beyond the memory of {self._memory:,} bytes cannot be written to {paths[0].parent}: "
                f"{error.strerror}. Give more memory, or a TMPDIR with more room"
            ) from error
        with self._lock:
            self._spilled.append(Run(*(np.load(path, mmap_mode="r") for path in paths)))


class _Folder:
    """A temporary folder that goes with the last object that holds it."""

    def __init__(self, parent: str | Path | None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="bimix-pairs-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def merge(runs: Sequence[Run], workers: int = 1) -> Run:
    """Return one run with the counts of all.

    Args:
        runs: In any order.
        workers: Threads, each of which merges a range of keys.
    """
    if len(runs) == 1:
        return runs[0]
    # By ranges of keys, so small that they stay near the processor.
    longest = max(runs, key=lambda run: len(run.keys)).keys
    count = 1 + sum(len(run.keys) for run in runs) // _PIECE if len(longest) else 1
    borders = longest[np.arange(1, count) * len(longest) // count] if len(longest) else longest
    places = [[0, *np.searchsorted(run.keys, borders).tolist(), len(run.keys)] for run in runs]

    def merged(part: int) -> Run:
        bounds = [slice(*ends[part : part + 2]) for ends in places]
        keys, counts = (np.concatenate([run[i][b] for run, b in zip(runs, bounds, strict=True)]) for i in (0, 1))
        return _added(keys, counts)

    if workers == 1:
        parts = list(map(merged, range(count)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(merged, range(count)))
    return Run(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _added(keys: Keys, counts: Counts) -> Run:
    """Return keys once each, in their order, with the sum of their counts."""
    if not len(keys):
        return Run(keys, counts)
    narrow = not np.bitwise_or.reduce(keys) & _WIDE_BITS and counts.min() >= 0 and not counts.max() >> SHIFT
    if narrow:
        # A narrow pair and its count are one number, which sorts in a third of the time that an order takes.
        keys = ((keys >> np.uint64(_NARROW)) | keys) << np.uint64(SHIFT)
        keys |= counts.view(np.uint64)
        keys.sort()
        counts = (keys & np.uint64((1 << SHIFT) - 1)).view(np.int64)
        keys >>= np.uint64(SHIFT)
    else:
        # A stable sort finds the runs that are sorted already, and merges them.
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    distinct = keys[starts]
    return Run(_wide(distinct) if narrow else distinct, np.add.reduceat(counts, starts))


def _wide(pairs: Keys) -> Keys:
    """Return keys of pairs of 32 bits."""
    return ((pairs >> np.uint64(_NARROW)) << np.uint64(SHIFT)) | (pairs & np.uint64((1 << _NARROW) - 1))


def _in_pieces(runs: list[Run], most: int) -> Iterator[Run]:
    """Merge runs by ranges of keys, about `most` entries at a time."""
    step = max(1, most // (2 * len(runs)))
    # Of every `step`-th key of each run, so many in order that the entries between two borders are few.
    sampled = np.sort(np.concatenate([run.keys[::step] for run in runs]))
    borders = [*np.unique(sampled[len(runs) :: len(runs)]).tolist(), None]
    places = [0] * len(runs)
    for border in borders:
        ends = [len(run.keys) if border is None else int(np.searchsorted(run.keys, np.uint64(border))) for run in runs]
        parts = [
            Run(np.asarray(run.keys[place:end]), np.asarray(run.counts[place:end]))
            for run, place, end in zip(runs, places, ends, strict=True)
            if end > place
        ]
        places = ends
        if parts:
            yield merge(parts)
