"""Where the warm-up ends: the first evaluations that no power law fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.options import USUAL, FitOptions
from bimix_tracking.fitting.problem import Points, points_of
from bimix_tracking.fitting.solver import best_of
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import law as find_law

_FACTOR, _ERROR = 3.0, 0.02
_LEVELS = 5
_BENT, _LEAST = 1.5, 1e-4
"""The others are missed so many times more with the warm-up in the fit, and by at least so much."""
_SURE = 4.0
"""A miss so many times the threshold needs no such proof: the Huber loss may keep it from bending anything."""
_RUNS = 4


def settled(obs: Observations, options: FitOptions) -> FitOptions:
    """Return options whose warm-up is known: as it was asked for, else as the data have it."""
    return options if options.warmup is not None else replace(options, warmup=find_warmup(obs, options))


def find_warmup(obs: Observations, options: FitOptions = USUAL) -> float:
    """Return up to how many tokens the losses don't follow a power law yet; 0 if they do from the first.

    The first evaluations of all runs are the warm-up if BiMix, fitted to the others, misses them by more than 2 % and
    by three times its miss at the others (medians), and if they spoil the fit of the others or the miss is above 8 %.
    Then the second ones are asked the same, as long as five are left.

    Args:
        obs: The sweep; fewer than four runs, or than six evaluations a run, tell nothing.
        options: How laws are fitted; a warm-up in them doesn't count.
    """
    model = find_law("bimix")
    points = points_of(obs, model, replace(options, warmup=0.0))
    if not points.targets or len(obs.runs) < _RUNS:
        return 0.0
    # Points are in the order of runs, and within a run of tokens: the evaluation's number within its run.
    _, start = np.unique(points.run, return_index=True)
    number = np.arange(len(points.run)) - np.repeat(start, np.diff(np.r_[start, len(points.run)]))
    found, levels = 0.0, int(number.max()) + 1
    for first in range(levels - _LEVELS):
        tested = number == first
        weight = points.weight[:, tested].copy()
        # Fitted without it: as the earliest, it would bend the curve to itself.
        points.weight[:, tested] = 0.0
        off = _misses(points, number > first, options.huber_delta)
        usual = _usual(off, points, number, range(first + 1, levels))
        missed = off[:, tested][weight > 0]
        if not (len(missed) and np.median(missed) > max(_ERROR, _FACTOR * usual)):
            break
        # A curve of few points may miss the next one by chance. Then it takes it in at no cost to the others.
        points.weight[:, tested] = weight
        bent = _usual(_misses(points, number > first, options.huber_delta), points, number, range(first, levels))
        points.weight[:, tested] = 0.0
        if bent < max(_BENT * usual, _LEAST) and np.median(missed) < _SURE * max(_ERROR, usual):
            break
        found = float(np.exp(points.log_u[tested].max()) * points.scale)
    return found


def _misses(points: Points, later: npt.NDArray[np.bool_], delta: float) -> Array:
    """Return how far BiMix is off each point, (targets, points), beside how far it is off the run's later ones."""
    model = find_law("bimix")
    best = best_of(model, points, delta, polish=False)[0]
    off = model.evaluate(best, points.own, points.inputs)[0] - points.log_loss
    # A law that misses a run's mixture misses all of its evaluations: that is no warm-up.
    return np.asarray(np.abs(off - _later_mean(off, points, later)))


def _usual(off: Array, points: Points, number: npt.NDArray[np.intp], levels: range) -> float:
    """Return the median over evaluations of the median miss there."""
    each = [off[:, number == n][points.weight[:, number == n] > 0] for n in levels]
    return float(np.median([np.median(at) for at in each if len(at)]))


def _later_mean(off: Array, points: Points, later: npt.NDArray[np.bool_]) -> Array:
    """Return at each point the mean of its run's later values, shape (targets, points)."""
    runs = len(points.inputs.shares)
    counts = (points.weight > 0) & later
    sums = np.stack([np.bincount(points.run, row, runs) for row in np.where(counts, off, 0.0)])
    numbers = np.stack([np.bincount(points.run, row, runs) for row in counts])
    return np.asarray((sums / np.maximum(numbers, 1))[:, points.run])
