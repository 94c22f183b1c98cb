"""Where the warm-up ends: the first evaluations that no power law fits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import Grid
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.engine.starts import searched
from bimix_tracking.fitting.options import USUAL, FitOptions
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.laws.registry import law as find_law

_FACTOR, _ERROR = 3.0, 0.02
_LEVELS = 5
_BENT, _LEAST = 1.5, 1e-4
"""The others are missed so many times more with the warm-up in the fit, and by at least so much."""
_CLEAR = 4.0
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
        obs: The sweep; fewer than four runs, or than six evaluations a run, show no warm-up.
        options: How laws are fitted; a warm-up in them doesn't count.
    """
    problem = FitProblem.of(obs, find_law("bimix"), replace(options, warmup=0.0))
    if not problem.targets or len(obs.runs) < _RUNS:
        return 0.0
    weight, number = problem.grid.weight, _number(problem.grid)
    found, levels = 0.0, int(number.max()) + 1
    for first in range(levels - _LEVELS):
        tested = number == first
        kept = weight[:, tested].copy()
        # Fitted without it: as the earliest, it would bend the curve to itself.
        weight[:, tested] = 0.0
        residual = _misses(problem, number > first)
        usual = _usual(residual, weight, number, range(first + 1, levels))
        missed = residual[:, tested][kept > 0]
        if not (len(missed) and np.median(missed) > max(_ERROR, _FACTOR * usual)):
            break
        # A curve of few points may miss the next one by noise. Then it takes it in at no cost to the others.
        weight[:, tested] = kept
        bent = _usual(_misses(problem, number > first), weight, number, range(first, levels))
        weight[:, tested] = 0.0
        if bent < max(_BENT * usual, _LEAST) and np.median(missed) < _CLEAR * max(_ERROR, usual):
            break
        found = float(np.exp(np.broadcast_to(problem.grid.log_u, tested.shape)[tested].max()) * problem.grid.scale)
    return found


def _number(grid: Grid) -> Index:
    """Return the number of each cell within its run, (runs, volumes); −1 where nothing was measured."""
    run, volume = grid.cells
    _, start = np.unique(run, return_index=True)
    result = np.full(grid.log_loss.shape[1:], -1, np.intp)
    result[run, volume] = np.arange(len(run)) - np.repeat(start, np.diff(np.r_[start, len(run)]))
    return result


def _misses(problem: FitProblem, later: npt.NDArray[np.bool_]) -> Array:
    """Return BiMix's residual of each loss, less the mean residual of the run's later ones."""
    best = searched(problem, polish=False).theta
    residual = problem.predict(best, np.arange(len(best))) - problem.grid.log_loss
    counts = (problem.grid.weight > 0) & later
    # A law that misses a run's mixture misses all of its evaluations: that is no warm-up.
    mean = np.where(counts, residual, 0.0).sum(-1) / np.maximum(counts.sum(-1), 1)
    return np.asarray(np.abs(residual - mean[..., None]))


def _usual(residual: Array, weight: Array, number: Index, levels: range) -> float:
    """Return the median over evaluations of the median miss there."""
    each = [residual[:, number == n][weight[:, number == n] > 0] for n in levels]
    return float(np.median([np.median(at) for at in each if len(at)]))
