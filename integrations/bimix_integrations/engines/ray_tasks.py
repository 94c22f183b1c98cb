"""What workers of a Ray cluster do: count the blocks of a task, add up results, and say how far they are."""

from __future__ import annotations

import os
import pickle
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.exceptions import RayError

from bimix_tracking.entropy.block_counts import count_blocks
from bimix_tracking.entropy.corpora.documents import Block
from bimix_tracking.entropy.domain_counts import DomainCounts, EntropySettings
from bimix_tracking.errors import BimixError, CorpusError, MissingDependencyError

_SCHEMA = pa.schema(
    [("domain", pa.int64()), ("task", pa.int64()), ("counts", pa.large_binary()), ("error", pa.large_binary())]
)
"""A result. It has either counts or, pickled, an error; or neither: the task was left since another had an error."""


class Tally:
    """What tasks have done, kept by an actor; by task, since what a dead worker did is done again."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[int, int]] = Counter()
        self._sizes: dict[int, int] = {}
        self._failed: set[int] = set()

    def begin(self, level: int, number: int) -> tuple[int, bool]:
        """Return how often a task was begun before, and whether it may be left: another one has failed."""
        self._begun[level, number] += 1
        return self._begun[level, number] - 1, bool(self._failed - {number})

    def add(self, number: int, size: int) -> None:
        """Note that so many bytes of a task's files were counted."""
        self._sizes[number] = max(size, self._sizes.get(number, 0))

    def fail(self, number: int) -> None:
        """Note that a task has ended in an error."""
        self._failed.add(number)

    def size(self) -> int:
        """Return how many bytes of all files were counted."""
        return sum(self._sizes.values())


def count(batch: pa.Table, settings: EntropySettings, tally: Any, retries: int) -> pa.Table:
    """Count one task's blocks: one row in, one out. An error is a result too: Ray Data would log it, and reword it."""
    # A worker has one processor, and the threads of tokenizers would take all: Ray says so to OpenMP alone.
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    blocks: list[Block]
    number, domain, blocks = pickle.loads(batch["task"][0].as_py())  # noqa: S301  # from our own driver
    try:
        what = f"counting {len(blocks)} blocks from {blocks[0].path} on"
        if _begin(tally, 0, number, retries, what):
            return _table([(domain, number, None, None)])
        counts, size = DomainCounts.empty(settings), 0
        for block in blocks:
            # Each by itself, as in threads: what is named first of many problems depends on it.
            counts += count_blocks([block], settings, counts)
            counts.entropy.settle()
            size += block.size
            tally.add.remote(number, size)
    except BimixError as error:
        tally.fail.remote(number)
        return _table([(domain, number, None, _sent(error))])
    return _table([(domain, number, counts.to_bytes(), None)])


def merge(batch: pa.Table, level: int, tally: Any, retries: int) -> pa.Table:
    """Add up results of the same domain."""
    without = batch.filter(pc.is_null(batch["counts"]))
    if without.num_rows:
        return without.sort_by("error").slice(0, 1)  # nulls last
    parts: dict[int, list[tuple[int, pa.Scalar]]] = {}
    for domain, number, counts in zip(batch["domain"], batch["task"], batch["counts"], strict=True):
        parts.setdefault(domain.as_py(), []).append((number.as_py(), counts))
    merged = []
    for domain, several in parts.items():
        number = several[0][0]
        try:
            _begin(tally, level, number, retries, f"adding up {len(several)} results of one domain")
        except BimixError as error:
            return _table([(domain, number, None, _sent(error))])
        merged.append((domain, number, _sum([counts for _, counts in several]), None))
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


def _table(rows: Sequence[tuple[int, int, bytes | None, bytes | None]]) -> pa.Table:
    return pa.table(list(zip(*rows, strict=True)), schema=_SCHEMA)


def _begin(tally: Any, level: int, number: int, retries: int, what: str) -> bool:
    """Return whether a task may be left; refuse one that too many workers have died of, which Ray Data never does."""
    try:
        died, left = ray.get(tally.begin.remote(level, number), timeout=60)
    except RayError:  # the tally went with its node: what was before is unknown
        return False
    if died > retries >= 0:
        raise BimixError(
            f"{what}: {died} workers died in turn, mostly for lack of memory. Let fewer workers share a node, or give "
            "RayEngine fewer task_bytes"
        )
    return bool(left)


def _sent(error: BimixError) -> bytes:
    if isinstance(error, MissingDependencyError):
        error = CorpusError(f"on {socket.gethostname()}, a node of the cluster: {error}")
    return pickle.dumps(error)
