"""Which passes of a model are those of an evaluation batch, where the trainer has an event after each, and none before.

Somebody's own passes may have come before the first batch: a user's callback that evaluates by itself, a trial call.
Between any two later events there are the batch's alone, and those show how many the first one has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from bimix_integrations.trainers.forward import Pass

Rows = Callable[[int], int]
"""From the rows of a process's batch to how many of them count: a sampler may have filled it up."""
Counted = tuple[Pass, int]
"""A pass, and how many of its rows count."""


def has_labels(batch: object) -> bool:
    """Return whether a trainer's batch has labels."""
    return isinstance(batch, Mapping) and isinstance(batch.get("labels"), Tensor)


def counted(passes: Sequence[Pass], rows: Rows | None) -> list[Counted]:
    """Return how many rows of each pass count, where the passes are of one batch, one part after the other."""
    sizes = [len(one.labels) for one in passes]
    left = sum(sizes) if rows is None else rows(sum(sizes))
    found = []
    for one, size in zip(passes, sizes, strict=True):
        found.append((one, min(size, left)))
        left -= found[-1][1]
    return found


class EvaluationBatches:
    """Hold the first batch of each evaluation back until the second one shows how many passes a batch has."""

    def __init__(self) -> None:
        self._first: list[list[Counted]] | None = None
        self._begun = False
        self._usual: int | None = None

    def add(self, passes: Sequence[Pass], rows: Rows | None) -> Iterator[Counted]:
        """Take the passes since the last event, and return those that count for certain."""
        if not self._begun and len(passes) > 1:
            # How many rows are real can be asked now only.
            self._first = [counted(passes[-size:], rows) for size in range(1, len(passes) + 1)]
            self._begun = True
            return
        self._begun = True
        if passes:
            self._usual = len(passes)
            yield from self._released(len(passes))
            yield from counted(passes, rows)

    def end(self, likely: int | None) -> Iterator[Counted]:
        """Return what is held back of an evaluation of one batch, which has as many passes as earlier ones had.

        Args:
            likely: How many a training batch has, for the first such evaluation.
        """
        yield from self._released(self._usual or likely)
        self._begun = False

    def _released(self, size: int | None) -> list[Counted]:
        """Return the last `size` passes of the first batch, or all of them."""
        first, self._first = self._first, None
        return [] if first is None else first[-1 if size is None else min(size, len(first)) - 1]
