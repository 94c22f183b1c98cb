"""The near-optimal range: how far each proportion can move within a tolerance of the least loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.optimum import Problem

_MOST_DOMAINS = 64
"""With more domains than that the near-optimal set isn't measured: two searches a domain and step."""
_ROUNDS = 30
_NEAR, _NEARER = 1e-3, 1e-4
"""An end is found where the loss is the tolerance above the optimum to this part of it; a loss, to the second part."""
_WIDTH = 1e-6
_LEAST = 1e-10


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class NearOptimal:
    """The mixtures within a tolerance of the least predicted loss.

    Args:
        tolerance: So many nats of weighted loss above the optimum at most.
        extent: Smallest and largest proportion of each domain in such a mixture, one row a domain, columns low and
            high; the other domains then make the best of what is left.
    """

    tolerance: float
    extent: pd.DataFrame


def near_optimal(
    problem: Problem,
    shares: Array,
    replicates: Replicates | None,
    tolerance: float | None = None,
    *,
    progress: Progress | None = None,
) -> NearOptimal | None:
    """Return the near-optimal range of each proportion; None without a tolerance, or with many domains.

    Domain i's extent is where min over the other domains of F(r) with r_i = x exceeds the optimum by the tolerance.
    That minimum is convex in x where F is, and close to a parabola about the optimum: its root is almost straight in x,
    so secants of it find the two ends.

    Args:
        problem: What was minimised.
        shares: Its optimum, shape (domains,).
        replicates: Give the tolerance, where none is given.
        tolerance: Nats of the weighted loss.
        progress: Called as (what, ends found, ends in all).
    """
    if tolerance is None and replicates is not None:
        tolerance = replicates.run_noise(problem.weights)
    count = len(problem.fit.domains)
    if tolerance is None or not np.isfinite(tolerance) or count > _MOST_DOMAINS:
        return None
    if problem.guarded:
        return NearOptimal(float(tolerance), _extent_within(problem, shares, tolerance))
    places = np.tile(np.arange(count), 2)
    best = float(problem.held_at(places[:1], shares[:1], shares[None]).value[0])
    lower, upper = problem.box.lower, problem.box.upper
    # What the others can neither take nor give up limits a domain too.
    least = np.maximum(lower, 1 - (upper.sum() - upper))
    most = np.minimum(upper, 1 - (lower.sum() - lower))
    inside, outside = np.tile(shares, 2), np.r_[np.minimum(least, shares), np.maximum(most, shares)]
    # Losses are numbers of so many digits: a smaller tolerance would be lost in their rounding.
    allowed = max(tolerance, _LEAST * abs(best))
    precision = _NEARER * allowed
    edge = problem.held_at(places, outside, np.tile(shares, (2 * count, 1)), precision=precision)
    start = edge.shares
    free = edge.value <= best + allowed
    inside = np.where(free, outside, inside)
    # Roots of what is lost at either side of the end, over that of the tolerance: below 1, and above.
    low, high = np.zeros(len(places)), _root(edge.value, best, allowed)
    last = np.zeros(len(places))
    going = np.flatnonzero(~free & (np.abs(outside - inside) > _WIDTH))
    for _ in range(_ROUNDS):
        if progress:
            progress("near-optimal range", len(places) - len(going), len(places))
        if not len(going):
            break
        a, b, below, above = inside[going], outside[going], low[going], high[going]
        part = np.clip((1 - below) / (above - below), 0.02, 0.98)
        # Two steps that ended on one side: the curve isn't straight there.
        part = np.where(np.abs(last[going]) > 1, 0.5, part)
        middle = a + part * (b - a)
        found = problem.held_at(places[going], middle, start[going], precision=precision)
        start[going] = found.shares
        root = _root(found.value, best, allowed)
        good = root <= 1
        inside[going], outside[going] = np.where(good, middle, a), np.where(good, b, middle)
        low[going], high[going] = np.where(good, root, below), np.where(good, above, root)
        side = np.where(good, 1, -1)
        last[going] = np.where(last[going] * side > 0, last[going] + side, side)
        arrived = np.abs(root**2 - 1) <= _NEAR
        inside[going] = np.where(arrived, middle, inside[going])
        going = going[~arrived & (np.abs(outside - inside)[going] > _WIDTH)]
    extent = pd.DataFrame({"low": inside[:count], "high": inside[count:]}, index=list(problem.fit.domains))
    return NearOptimal(float(tolerance), extent)


def _extent_within(problem: Problem, shares: Array, tolerance: float) -> pd.DataFrame:
    """Return the extents within guards: the smallest and the largest of each proportion, with F as one more limit."""
    count = len(shares)
    one = np.zeros(1, np.intp)
    best = float(problem.within(one, start=shares).value[0])
    aim = np.concatenate([np.eye(count), -np.eye(count)])
    ceiling = best + max(tolerance, _LEAST * abs(best))
    found = problem.within(np.zeros(2 * count, np.intp), start=shares, aim=aim, ceiling=ceiling)
    ends = np.where(found.feasible[:, None], found.shares, shares)
    own = np.arange(count)
    return pd.DataFrame(
        {"low": np.minimum(ends[own, own], shares), "high": np.maximum(ends[count + own, own], shares)},
        index=list(problem.fit.domains),
    )


def _root(value: Array, best: float, tolerance: float) -> Array:
    """Return the root of what is lost, in tolerances."""
    return np.sqrt(np.maximum(value - best, 0) / tolerance)
