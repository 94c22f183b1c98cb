"""Data volumes at which a target's losses can be known: one that was observed at a single volume is known there."""

from __future__ import annotations

from collections.abc import Iterable

from bimix_tracking.fitting.levels import SAME_VOLUME


def only_volume(tokens: tuple[float, float]) -> float | None:
    """Return the one data volume that a target was observed at; None where there are several.

    Args:
        tokens: The smallest and the largest.
    """
    low, high = tokens
    return high if high <= SAME_VOLUME * low else None


def comparable(tokens: float, single: Iterable[float | None]) -> float:
    """Return the data volume at which mixtures can be compared for a run of so many tokens.

    It is that run's, unless a target was observed at one volume only: its loss is unknown at another.

    Args:
        tokens: Of the run.
        single: The only volume of each target, where it has one.

    >>> comparable(1e9, [None, None]), comparable(1e9, [None, 2e8])
    (1000000000.0, 200000000.0)
    """
    largest = max((volume for volume in single if volume is not None), default=tokens)
    return tokens if max(tokens / largest, largest / tokens) <= SAME_VOLUME else largest
