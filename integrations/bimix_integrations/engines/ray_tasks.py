"""What workers of a Ray cluster do: count the blocks of a task, add up results, and say how far they are."""

from __future__ import annotations

import os
import pickle
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from bimix_tracking.corpora.documents import Block
from bimix_tracking.counting import DomainCounts, EntropySettings, count_blocks
from bimix_tracking.errors import BimixError, CorpusError, MissingDependencyError

_SCHEMA = pa.schema([("domain", pa.int64()), ("task", pa.int64()), ("counts", pa.large_binary())])


def count(batch: pa.Table, settings: EntropySettings, tally: Any, retries: int) -> pa.Table:
    """Count one task's blocks: one row in, one out.

    Raises:
        CorpusError: As `count_blocks`.
        BimixError: Too many workers have died of this task.
    """
    # A worker has one processor, and the threads of tokenizers would take all: Ray says so to OpenMP alone.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    blocks: list[Block]
    number, domain, blocks = pickle.loads(batch["task"][0].as_py())  # noqa: S301  # from our own driver
    _begin(tally, (0, number), retries, f"counting {len(blocks)} blocks from {blocks[0].path} on")
    counts, size = DomainCounts.empty(settings), 0
    for block in blocks:
        # Each by itself, as in threads: what is named first of many problems depends on it.
        counts += _counts_of(block, settings)
        counts.entropy.settle()
        size += block.size
        tally.add.remote(number, size)
    return _table([(domain, number, counts.to_bytes())])


def _counts_of(block: Block, settings: EntropySettings) -> DomainCounts:
    try:
        return count_blocks([block], settings)
    except MissingDependencyError as error:
        raise CorpusError(f"on {socket.gethostname()}, a node of the cluster: {error}") from None


def merge(batch: pa.Table, level: int, tally: Any, retries: int) -> pa.Table:
    """Add up results of the same domain.

    Raises:
        BimixError: Too many workers have died of this.
    """
    parts: dict[int, list[tuple[int, pa.Scalar]]] = {}
    for domain, number, counts in zip(*(batch[name] for name in _SCHEMA.names), strict=True):
        parts.setdefault(domain.as_py(), []).append((number.as_py(), counts))
    merged = []
    for domain, several in parts.items():
        number = several[0][0]
        _begin(tally, (level, number), retries, f"adding up {len(several)} results of one domain")
        merged.append((domain, number, _sum([counts for _, counts in several])))
    return _table(merged)


def _sum(parts: Sequence[pa.Scalar]) -> bytes:
    first: bytes = parts[0].as_py()
    if len(parts) == 1:
        return first
    total = DomainCounts.from_bytes(first)
    for part in parts[1:]:
        total += DomainCounts.from_bytes(part.as_py())
        total.entropy.settle()
    return total.to_bytes()


def _table(rows: Sequence[tuple[int, int, bytes]]) -> pa.Table:
    return pa.table(list(zip(*rows, strict=True)), schema=_SCHEMA)


def _begin(tally: Any, task: tuple[int, int], retries: int, what: str) -> None:
    """Refuse a task that too many workers have died of: Ray Data would try it for ever."""
    try:
        died = ray.get(tally.begin.remote(task), timeout=60)
    except RayError:  # the tally went with its node: nothing is known of what was before
        return
    if died > retries >= 0:
        raise BimixError(
            f"{what}: {died} workers in turn died of it. Mostly that is want of memory: let fewer workers share a "
            "node, or give RayEngine fewer task_bytes"
        )


class Tally:
    """What tasks have done, kept by an actor; by task, since what a dead worker did is done again."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int]] = Counter()
        self._sizes: dict[int, int] = {}

    def begin(self, task: tuple[int, int]) -> int:
        """Return how often a task was begun before."""
        self._begun[task] += 1
        return self._begun[task] - 1

    def add(self, number: int, size: int) -> None:
        """Note that so many bytes of a task's files were counted."""
        self._sizes[number] = max(size, self._sizes.get(number, 0))

    def size(self) -> int:
        """Return how many bytes of all files were counted."""
        return sum(self._sizes.values())
