"""The least weighted loss within guards and near a mixture: where to start, whether it is possible, how exact it is.

A search needs a mixture strictly within the guards. Where none of those at hand is, the largest relative excess over
the limits is minimised first; above 0 it says that no mixture meets them, and how much they lack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.recommendation.solvers.interior_point import Interior, search
from bimix_tracking.recommendation.solvers.measuring import Measured, Model, Region
from bimix_tracking.recommendation.solvers.sqp import SimplexMinimum, onto_simplex

MET = 1e-9
"""Guards and distances are met to so much: of a limit, and of a proportion."""
_INSIDE, _ROOMY = 1e-6, 1e-4
"""A start with less room than the first is sought first; one with more than the second is as good as any."""
_ENOUGH = 1e-3
_SNAP = 1e-9
_BROKEN, _REPAIRS = 1e-11, 3
_TOGETHER = 1e-9
_ALONE = 1e-13
_ROUGH = 1e5


@dataclass(frozen=True)
class GuardedMinimum(SimplexMinimum):
    """Where the searches within guards ended.

    Args:
        multipliers: Shadow price of each guard, of f per unit of its room, shape (problems, guards).
        ball: Shadow price of the distance, of f per unit of total variation, shape (problems,).
        excess: Largest relative excess over a limit that no mixture avoids, shape (problems,): not above 0 where the
            guards can be met; infinite where no mixture of the box is near enough.
    """

    multipliers: Array
    ball: Array
    excess: Array

    @property
    def feasible(self) -> npt.NDArray[np.bool_]:
        """Which problems have a mixture that meets the guards; of the others, `shares` breaks them least."""
        return np.asarray(self.excess <= MET)


def minimize_within(
    model: Model, region: Region, starts: Sequence[Array], which: Index, *, rough: bool = False
) -> GuardedMinimum:
    """Minimise a batch of functions within guards.

    Args:
        model: f and the guards.
        region: Box and distance of each problem.
        starts: Mixtures to start from, each of shape (problems, domains): the first with some room is taken, or else
            the one with the most.
        which: Which of the model's problems these are, shape (problems,).
        rough: Six digits will do.
    """
    region, nearest, too_far = _reachable(region, starts[-1])
    start, room = _start(model, region, nearest, starts, which)
    count, guards = len(start), model(start, which).room.shape[1]
    excess = np.where(too_far, np.inf, -room)
    found = Interior(start, np.zeros((count, guards)), np.zeros(count), np.zeros(count), excess)
    outside = np.flatnonzero((room <= _INSIDE) & ~too_far)
    if len(outside):
        first = search(model, region.of(outside), start[outside], which[outside], relaxed=True, enough=_ENOUGH)
        found.shares[outside], excess[outside] = first.shares, first.excess
        found.multipliers[outside] = first.multipliers
    strictly = np.flatnonzero(excess < -MET)
    inside = found.shares.copy()
    spare = model(inside, which).room.min(-1, initial=np.inf)
    _minimise(model, region, inside, which, strictly, found, _ROUGH if rough else 1.0)
    shares = _tidy(found.shares, region)
    at = model(shares, which)
    for _ in range(0 if rough else _REPAIRS):
        short = np.maximum(-at.room.min(-1, initial=0.0), 0.0)
        broken = strictly[(short[strictly] > _BROKEN) & (spare[strictly] > 2 * short[strictly])]
        if not len(broken):
            break
        # What was moved to a bound, or to where a law has another slope, is made up for.
        tighter = _Tighter(model, np.zeros(count))
        tighter.by[broken] = 2 * short[broken]
        _minimise(tighter, region, inside, which, broken, found)
        shares[broken] = _tidy(found.shares, region)[broken]
        at = model(shares, which)
    residual = _kkt(shares, at, region, found)
    # A single mixture meets such guards: it is the optimum, whatever the objective's slope there.
    residual = np.where(excess < -MET, residual, 0.0)
    return GuardedMinimum(shares, at.value, residual, found.multipliers, found.ball, excess)


def _minimise(
    model: Model, region: Region, inside: Array, which: Index, rows: Index, found: Interior, rough: float = 1.0
) -> None:
    """Search for the optima of some problems from strictly inside, and write them down."""
    if not len(rows):
        return
    part = search(model, region.of(rows), inside[rows], which[rows], rough=rough)
    found.shares[rows], found.multipliers[rows] = part.shares, part.multipliers
    found.ball[rows], found.common[rows] = part.ball, part.common


@dataclass(frozen=True)
class _Tighter:
    """A model with less room, by problem."""

    model: Model
    by: Array

    def __call__(self, shares: Array, which: Index) -> Measured:
        """Return what the model says, with less room."""
        at = self.model(shares, which)
        return replace(at, room=at.room - self.by[which][:, None])


def nearest_in(lower: Array, upper: Array, near: Array) -> tuple[Array, Array]:
    """Return a mixture of the box that is nearest to another in total variation, and how far it is.

    Args:
        lower: Shape (problems, domains).
        upper: Likewise.
        near: Likewise.
    """
    nearest = onto_simplex(near, lower, upper)
    return nearest, np.abs(nearest - near).sum(-1) / 2


def _reachable(region: Region, start: Array) -> tuple[Region, Array, npt.NDArray[np.bool_]]:
    """Return the region with what has no interior pinned, its nearest mixtures, and which have none near enough."""
    lower, upper = (np.array(side, float) for side in (region.lower, region.upper))
    alone = (1 - lower.sum(-1) <= _ALONE) | (upper.sum(-1) - 1 <= _ALONE)
    too_far = np.zeros(len(lower), bool)
    nearest = onto_simplex(start, lower, upper)
    if region.near is not None and region.radius is not None:
        nearest, far = nearest_in(lower, upper, region.near)
        too_far = region.radius < far - MET
        alone |= region.radius <= far + MET
        region = replace(region, radius=np.where(alone, np.maximum(region.radius, far) + 2 * MET, region.radius))
    lower[alone], upper[alone] = nearest[alone], nearest[alone]
    return replace(region, lower=lower, upper=upper), nearest, too_far


def _start(model: Model, region: Region, nearest: Array, starts: Sequence[Array], which: Index) -> tuple[Array, Array]:
    """Return mixtures strictly inside box and distance, and the room they have."""
    lower, upper = region.lower, region.upper
    width = (upper - lower).sum(-1, keepdims=True)
    middle = lower + (upper - lower) * (1 - lower.sum(-1, keepdims=True)) / np.where(width > 0, width, 1.0)
    candidates = [0.9 * onto_simplex(start, lower, upper) + 0.1 * middle for start in starts]
    if region.near is not None:
        candidates += [part * nearest + (1 - part) * middle for part in (0.9, 0.999)]
    best, most = candidates[0], np.full(len(lower), -np.inf)
    for candidate in candidates:
        tried = candidate
        if region.near is not None and region.radius is not None:
            far = np.abs(nearest - region.near).sum(-1) / 2
            away = np.abs(candidate - nearest).sum(-1) / 2
            part = np.minimum((region.radius - far) / 2 / np.maximum(away, 1e-300), 1.0)[:, None]
            tried = nearest + np.maximum(part, 0.0) * (candidate - nearest)
        room = model(tried, which).room.min(-1, initial=np.inf)
        better = (room > most) & (most < _ROOMY)
        best, most = np.where(better[:, None], tried, best), np.where(better, room, most)
    return best, most


def _tidy(shares: Array, region: Region) -> Array:
    """Return mixtures with what is within rounding of a bound, or unchanged, exactly there."""
    shares = np.where(shares - region.lower < _SNAP, region.lower, shares)
    shares = np.where(region.upper - shares < _SNAP, region.upper, shares)
    if region.near is not None:
        same = (np.abs(shares - region.near) < _SNAP) & (region.near >= region.lower) & (region.near <= region.upper)
        shares = np.where(same, region.near, shares)
    return onto_simplex(shares, region.lower, region.upper)


def _kkt(shares: Array, at: Measured, region: Region, found: Interior) -> Array:
    """Return the largest violation of optimality, relative to the gradient's size, shape (n,).

    Of the slope of the Lagrangian, with any part of the distance's slope where a proportion is unchanged; and of
    complementarity, z_k times the room.
    """
    on = np.isfinite(at.room)
    z = np.where(on, found.multipliers, 0.0)
    slope = at.gradient + (z[:, None] @ at.slopes)[:, 0] + found.common[:, None]
    low = high = slope
    if region.near is not None:
        moved, ball = shares - region.near, found.ball[:, None]
        low = slope + ball * (moved > _TOGETHER)
        high = slope + ball * (moved >= -_TOGETHER)
    at_low, at_high = shares <= region.lower, shares >= region.upper
    wrong = np.maximum(np.where(at_low, 0.0, low), np.where(at_high, 0.0, -high)).clip(0)
    wrong = np.where(at_low & ~at_high, np.maximum(-high, 0), np.where(at_high & ~at_low, np.maximum(low, 0), wrong))
    wrong = np.where(at_low & at_high, 0.0, wrong)
    size = np.maximum(np.where(region.free, np.abs(at.gradient), 0.0).max(-1), 1e-300)
    apart = (z * np.abs(np.where(on, at.room, 0.0))).max(-1, initial=0.0)
    return np.asarray(np.maximum(wrong.max(-1), apart) / size)
