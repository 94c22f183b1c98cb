"""The best of several starts: rough searches side by side, and the best one of each target to its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.fitting.engine.least_squares import Minimum, huber
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.laws.protocol import Array, Index

_AGREE = 1e-3
"""Starts agree whose cost is within this of the best one's, relatively."""
_STARTS = 3
"""So many of a law's starts are followed, those that fit best before the first step."""
_ROUGH, _ROUGH_STEPS = 0.03, 30
"""Offset and steps of the searches among which the best is chosen, and of what only a residual is wanted of."""


@dataclass(frozen=True)
class Searched:
    """What the searches of each target found.

    Args:
        theta: The best θ, shape (targets, parameters).
        cost: Its cost, shape (targets,).
        offset: Its relative offset, shape (targets,).
        agreeing: How many searches reached that cost, shape (targets,).
        searches: Of how many.
        identifiable: Which parameters are identifiable, shape (targets, parameters).
    """

    theta: Array
    cost: Array
    offset: Array
    agreeing: Index
    searches: int
    identifiable: npt.NDArray[np.bool_]


def searched(problem: FitProblem, *, polish: bool = True) -> Searched:
    """Fit all targets: roughly from several starts, then the best of each to the end.

    Args:
        problem: The law on the sweep.
        polish: Whether last digits are wanted; otherwise one start is followed, roughly.
    """
    grid, count = problem.grid, len(problem.targets)
    known = problem.identifiable(np.ones((1, len(grid.shares)), bool))[0]
    starts = problem.law.starts(grid.own, grid.inputs(problem.options.floor), grid.log_loss, grid.weight)
    starts = _screened(problem, starts, _STARTS if polish else 1)
    _, tries, size = starts.shape
    which = np.repeat(np.arange(count), tries)
    rough = problem.solve(
        which, starts.reshape(-1, size), known[which], offset=_ROUGH, steps=_ROUGH_STEPS, persistent=False
    )
    theta, cost, offset = (
        part.reshape(count, tries, *part.shape[1:]) for part in (rough.theta, rough.cost, rough.offset)
    )
    each = np.arange(count)
    if polish:
        # Where the rough ends differ, the searches must go to their ends before anything is said about them.
        alone = np.flatnonzero(_agreeing(cost, grid.weight) < min(2, tries))
        of = np.repeat(alone, tries)
        ends = problem.solve(of, theta[alone].reshape(-1, size), known[of])
        theta[alone], cost[alone] = ends.theta.reshape(-1, tries, size), ends.cost.reshape(-1, tries)
        offset[alone] = ends.offset.reshape(-1, tries)
    at = cost.argmin(-1)
    best = Minimum(theta[each, at], cost[each, at], offset[each, at])
    if polish:
        best = problem.solve(each, best.theta, known)
    return Searched(best.theta, best.cost, best.offset, _agreeing(cost, grid.weight), tries, known)


def _agreeing(cost: Array, weight: Array) -> Index:
    """Return how many searches reached the best cost of their target, from (targets, searches)."""
    # Costs of a perfect fit are rounding: compare them against what 1e-8 of relative error would cost.
    rounding = 0.5e-16 * weight.sum((1, 2))[:, None]
    return np.asarray((cost <= cost.min(-1, keepdims=True) * (1 + _AGREE) + rounding).sum(-1), np.intp)


def _screened(problem: FitProblem, starts: Array, most: int) -> Array:
    """Return the best starts of each target, by the cost they start at: steps from the others would be wasted."""
    if starts.shape[1] <= most:
        return starts
    grid, every = problem.grid, np.arange(len(problem.targets))
    cost = np.stack(
        [
            huber(problem.predict(starts[:, k], every) - grid.log_loss, grid.weight, problem.options.huber_delta)
            for k in range(starts.shape[1])
        ],
        axis=1,
    )
    best = np.argsort(cost, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(starts, best[..., None], axis=1)
