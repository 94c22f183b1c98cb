"""The box of a plan without bounds: every domain in every run, and none that crowds out the others."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from bimix_tracking.laws.protocol import Array
from bimix_tracking.recommendation.constraints import Constraints

MOST, LEAST = 0.7, 0.02
"""Largest and smallest proportion of a domain without bounds of its own. Beyond them a run is no mixture that a team
would train, and the laws, which hold near what they are fitted to, bend for it."""
_PART = 0.2
"""Of an equal part, for the smallest: with more than ten domains 2 % each would leave little to choose."""
_WHY = "the practical box of a plan: bound the domain to lift it"


def practical(box: Constraints, asked: Collection[str]) -> Constraints:
    """Return constraints in which domains without bounds of their own keep to between 2 and 70 %.

    The smallest proportion is 2 %, or a fifth of an equal part of what pins and bounds leave, where that is less. Where
    the practical limits would keep a bounded domain from a proportion that its bounds allow, they give way.

    Args:
        box: What is asked.
        asked: Domains with bounds of their own.

    >>> from bimix_tracking.recommendation.constraints import constrain
    >>> practical(constrain(["a", "b", "c"], bounds={"a": (0.0, 0.9)}), {"a"}).rows()
    [('a', 0.0, 0.9), ('b', 0.02, 0.7), ('c', 0.02, 0.7)]
    """
    own = np.array([domain in asked for domain in box.domains])
    if own.all():
        return box
    free = ~own
    lower = np.where(own, box.lower, 0.0)
    equal = max(1 - box.lower[own].sum(), 0.0) / free.sum()
    least = min(LEAST, _PART * equal)
    lower[free] = np.maximum(box.lower[free], np.minimum(least, _PART * box.upper[free]))
    # What a bounded domain's largest proportion leaves to the others must hold their smallest ones.
    for i in np.flatnonzero(own):
        over = lower.sum() - lower[i] + box.upper[i] - 1
        given = lower[free] - box.lower[free]
        if over > 0 and given.sum() > 0:
            lower[free] -= given * min(1.0, over / given.sum())
    upper = np.where(own | (box.upper < MOST), box.upper, MOST)
    lifted = free & (box.upper > MOST)
    # The others must be able to fill what a capped domain leaves at its smallest.
    capped = np.flatnonzero(box.upper < MOST)
    wanted = max([1 - lower[i] - (upper.sum() - upper[i]) for i in {*capped.tolist(), *np.flatnonzero(own)}], default=0)
    if wanted > 0 and lifted.any():
        upper[lifted] = np.minimum(upper[lifted] + wanted / lifted.sum(), box.upper[lifted])
    return box.narrowed(lower, upper, _WHY)


def widened(box: Constraints, practical_box: Constraints, about: Array) -> tuple[Array, Array]:
    """Return the practical proportions, and those of mixtures that were run, within what is asked; each (domains,).

    Args:
        box: What is asked.
        practical_box: The same, kept practical.
        about: Mixtures, shape (n, domains).
    """
    low = np.clip(np.minimum(practical_box.lower, about.min(0)), box.lower, box.upper)
    high = np.clip(np.maximum(practical_box.upper, about.max(0)), box.lower, box.upper)
    return low, high
