"""How free the choice of a mixture is: how far each proportion can move at nearly the same loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.recommendation.optimum import Problem

_MOST_DOMAINS = 64
"""With more domains than that the near-optimal set isn't measured: two searches a domain and step."""
_HALVINGS = 22


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class NearOptimal:
    """The mixtures that the law can hardly tell from the best one.

    Args:
        tolerance: So many nats of weighted loss above the optimum at most.
        extent: Smallest and largest proportion of each domain in such a mixture, one row a domain, columns low and
            high; the other domains then make the best of what is left.
    """

    tolerance: float
    extent: pd.DataFrame


def near_optimal(
    problem: Problem, shares: Array, replicates: Replicates | None, tolerance: float | None = None
) -> NearOptimal | None:
    """Return how far each proportion can move at nearly the same loss; None without a tolerance, or with many domains.

    Domain i's extent is where min over the other domains of F(r) with r_i = x exceeds the optimum by the tolerance.
    That minimum is convex in x where F is, so the two ends are found by halving.

    Args:
        problem: What was minimised.
        shares: Its optimum, shape (domains,).
        replicates: Give the tolerance, where none is given.
        tolerance: Nats of the weighted loss.
    """
    if tolerance is None and replicates is not None:
        tolerance = replicates.run_noise(problem.weights)
    count = len(problem.fit.domains)
    if tolerance is None or not np.isfinite(tolerance) or count > _MOST_DOMAINS:
        return None
    places = np.tile(np.arange(count), 2)
    best = float(problem.held_at(places[:1], shares[:1], shares[None]).value[0])
    lower, upper = problem.box.lower, problem.box.upper
    # What the others can neither take nor give up limits a domain too.
    least = np.maximum(lower, 1 - (upper.sum() - upper))
    most = np.minimum(upper, 1 - (lower.sum() - lower))
    inside, outside = np.tile(shares, 2), np.r_[np.minimum(least, shares), np.maximum(most, shares)]
    start = np.tile(shares, (2 * count, 1))
    edge = problem.held_at(places, outside, start)
    inside = np.where(edge.value <= best + tolerance, outside, inside)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        found = problem.held_at(places, middle, start)
        good = found.value <= best + tolerance
        inside, outside = np.where(good, middle, inside), np.where(good, outside, middle)
        start = found.shares
    extent = pd.DataFrame({"low": inside[:count], "high": inside[count:]}, index=list(problem.fit.domains))
    return NearOptimal(float(tolerance), extent)
