"""Where the warm-up ends: the first evaluations that no power law fits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws import law as find_law
from bimix_tracking.laws.protocol import Array
from bimix_tracking.observations import Observations
from bimix_tracking.points import ZERO_SHARE, Points, points_of
from bimix_tracking.solver import best_of

_FACTOR, _ERROR = 3.0, 0.01
_LEVELS = 5


def find_warmup(obs: Observations, *, huber_delta: float = 0.01, zero_share: float | None = ZERO_SHARE) -> float:
    """Return up to how many tokens the losses don't follow a power law yet; 0 if they do from the first.

    The first evaluations of all runs are the warm-up if BiMix misses them by more than 1 % and three times its miss
    at the others (medians); then the second ones are asked the same, as long as five are left.

    Args:
        obs: The sweep; runs with fewer than six evaluations tell nothing.
        huber_delta: As in `fit_law`.
        zero_share: As in `fit_law`.
    """
    model = find_law("bimix")
    points = points_of(obs, model, zero_share=zero_share, warmup=0.0, notes=[])
    if not points.targets:
        return 0.0
    # Points are in the order of runs, and within a run of tokens: the evaluation's number within its run.
    _, start = np.unique(points.run, return_index=True)
    number = np.arange(len(points.run)) - np.repeat(start, np.diff(np.r_[start, len(points.run)]))
    found, levels = 0.0, int(number.max()) + 1
    for first in range(levels - _LEVELS):
        best = best_of(model, points, huber_delta, polish=False)[0]
        off = model.evaluate(best, points.own, points.inputs)[0] - points.log_loss
        # A law that misses a run's mixture misses all of its evaluations: that is no warm-up.
        off = np.abs(off - _later_mean(off, points, number > first))
        off[points.weight == 0] = np.nan
        at = [
            np.nanmedian(off[:, number == n]) for n in range(first, levels) if (points.weight[:, number == n] > 0).any()
        ]
        if not (at and at[0] > max(_ERROR, _FACTOR * float(np.median(at[1:])))):
            break
        early = number == first
        found = float(np.exp(points.log_u[early].max()) * points.scale)
        points.weight[:, early] = 0.0
    return found


def _later_mean(off: Array, points: Points, later: npt.NDArray[np.bool_]) -> Array:
    """Return at each point the mean of its run's later values, shape (targets, points)."""
    runs = len(points.inputs.shares)
    counts = (points.weight > 0) & later
    sums = np.stack([np.bincount(points.run, row, runs) for row in np.where(counts, off, 0.0)])
    numbers = np.stack([np.bincount(points.run, row, runs) for row in counts])
    return np.asarray((sums / np.maximum(numbers, 1))[:, points.run])
