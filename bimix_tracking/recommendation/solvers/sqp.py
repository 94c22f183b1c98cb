"""The least value of smooth functions of a mixture: Σ r = 1, lower ≤ r ≤ upper; a batch of problems at once.

Sequential quadratic programming: each step minimises the quadratic model within the box and on the simplex by a
primal-dual active set (Hintermüller, Ito, Kunisch 2002), and is shortened until the function falls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, Index

Objective = Callable[[Array, Index], tuple[Array, Array, Array]]
"""r (n, domains), which problems these are (n,) → value (n,), gradient (n, domains), a positive semidefinite bend
(n, domains, domains)."""

_STEPS = 200
_STALLS, _NOTHING = 8, 1e-11
"""So many steps in a row that neither lower a value by this part of it nor halve the residual end a search."""
_HALVINGS = 40
_ROUNDS, _EXCHANGES = 60, 20
"""Sets that haven't settled after so many exchanges go round in a circle: most take fewer than ten."""
_ARRIVED = 1e-11
_ARMIJO = 1e-4
_SNAP, _ROUNDING = 1e-12, 1e-13
_LARGEST_FALL, _NEAR_ZERO = 0.9, 1e-9


@dataclass(frozen=True)
class SimplexMinimum:
    """Where the searches ended.

    Args:
        shares: The mixtures, shape (problems, domains).
        value: The objective there, shape (problems,).
        kkt_residual: Largest violation of optimality, relative to the gradient's size, shape (problems,): a free
            domain's gradient off the common value, or one at a bound that pulls inwards. 0 at an exact local optimum.
    """

    shares: Array
    value: Array
    kkt_residual: Array


def minimize_on_simplex(
    objective: Objective, lower: Array, upper: Array, start: Array, *, precision: float = 0.0
) -> SimplexMinimum:
    """Minimise a batch of functions from one start each.

    Args:
        objective: Values, gradients and bends.
        lower: Shape (domains,) or (problems, domains), Σ lower ≤ 1.
        upper: Likewise, Σ upper ≥ 1.
        start: Shape (problems, domains); cut to the box and brought onto the simplex.
        precision: How good a value need be: a search ends where the next step promises less than this. 0: as good as
            the numbers are.

    >>> goal = np.array([0.7, 0.5, 0.0])
    >>> def squares(r, which):
    ...     return ((r - goal) ** 2).sum(-1), 2 * (r - goal), np.broadcast_to(2 * np.eye(3), (len(r), 3, 3))
    >>> found = minimize_on_simplex(squares, np.zeros(3), np.ones(3), np.full((1, 3), 1 / 3))
    >>> found.shares.round(6), bool(found.kkt_residual[0] < 1e-8)
    (array([[0.6, 0.4, 0. ]]), True)
    """
    start = np.atleast_2d(np.asarray(start, float))
    low, high = (np.broadcast_to(side, start.shape) for side in (lower, upper))
    shares = onto_simplex(start, low, high)
    active = np.arange(len(shares))
    value, gradient, bend = objective(shares, active)
    residual = kkt(shares, gradient, low, high)
    stalls = np.zeros(len(shares), int)
    for _ in range(_STEPS):
        going = residual[active] > _ARRIVED
        active, gradient, bend = active[going], gradient[going], bend[going]
        if not len(active):
            break
        here = shares[active]
        # No share falls to a bound near 0 at once: a law's slope there may be without end, and the model doesn't know.
        near = np.where(here > _NEAR_ZERO, -_LARGEST_FALL * here, -np.inf)
        step = _quadratic(gradient, bend, np.maximum(low[active] - here, near), high[active] - here, 1 - here.sum(-1))
        if precision > 0:
            # gᵀd of a Newton step is twice what its model says is to be won.
            worth = -(gradient * step).sum(-1) > precision
            active, here, gradient, step = active[worth], here[worth], gradient[worth], step[worth]
            if not len(active):
                break
        taken, here, found = _shortened(objective, here, value[active], gradient, step, active, (low, high))
        active = active[taken]
        now = kkt(here, found[1], low[active], high[active])
        helped = (now < residual[active]) | (found[0] < value[active] - _ROUNDING * np.abs(value[active]))
        stalled = (now > residual[active] / 2) & (found[0] > value[active] - _NOTHING * np.abs(value[active]))
        stalls[active] = np.where(stalled, stalls[active] + 1, 0)
        helped &= stalls[active] < _STALLS
        active = active[helped]
        shares[active], residual[active] = here[helped], now[helped]
        value[active], gradient, bend = (part[helped] for part in found)
    # The steps leave rounding in the sum, and a bound is to be met to the last digit.
    return SimplexMinimum(onto_simplex(shares, low, high), value, residual)


def onto_simplex(shares: Array, lower: Array, upper: Array) -> Array:
    """Return mixtures within the box: cut to it, and what is missing to 1 spread over the domains that have room.

    >>> onto_simplex(np.array([[0.9, 0.9, 0.0]]), np.zeros(3), np.array([0.5, 1.0, 1.0])).round(3)
    array([[0.5, 0.5, 0. ]])
    """
    result: Array = np.clip(np.asarray(shares, float), lower, upper)
    for _ in range(_ROUNDS):
        missing = 1 - result.sum(-1, keepdims=True)
        if np.abs(missing).max() < 1e-15:
            break
        room = np.where(missing > 0, upper - result, result - lower)
        # What is at a bound stays there, as long as the others can take it.
        inner = np.where((result > lower) & (result < upper), room, 0.0)
        room = np.where(inner.sum(-1, keepdims=True) >= np.abs(missing), inner, room)
        total = room.sum(-1, keepdims=True)
        result = np.clip(result + np.where(total > 0, missing * room / np.where(total > 0, total, 1), 0), lower, upper)
    return np.asarray(result, np.float64)


def kkt(shares: Array, gradient: Array, lower: Array, upper: Array) -> Array:
    """Return the largest violation of optimality of each mixture, relative to the gradient's size, shape (n,)."""
    low, high = shares <= lower + _SNAP, shares >= upper - _SNAP
    free = ~(low | high)
    count = free.sum(-1)
    # Without a free domain any common value between the two sides' gradients will do.
    above = np.where(low, -np.inf, gradient).max(-1)
    below = np.where(high, np.inf, gradient).min(-1)
    sided = np.isfinite(above) & np.isfinite(below)
    corner = np.where(sided, above, np.where(np.isfinite(above), above, np.where(np.isfinite(below), below, 0.0)))
    common = np.where(count > 0, (gradient * free).sum(-1) / np.maximum(count, 1), corner)
    excess = gradient - common[..., None]
    inwards = np.where(low, np.maximum(-excess, 0), np.maximum(excess, 0))
    wrong = np.where(free, np.abs(excess), np.where(low & high, 0.0, inwards))
    # A share held near 0 may have a slope without end, beside which everything would look exact.
    size = np.where(free, np.abs(gradient), 0.0).max(-1)
    size = np.where(count > 0, size, np.abs(gradient).max(-1))
    return np.asarray(wrong.max(-1) / np.maximum(size, 1e-300), np.float64)


def _quadratic(gradient: Array, bend: Array, lower: Array, upper: Array, missing: Array) -> Array:
    """Return d that minimises gᵀd + ½ dᵀHd with lower ≤ d ≤ upper and Σ d = `missing`, shape (n, domains)."""
    count, size = gradient.shape
    scale = np.maximum(np.einsum("nkk->nk", bend).max(-1), 1e-300)[:, None]
    g, h = gradient / scale, bend / scale[..., None] + 1e-12 * np.eye(size)
    at_low = (lower >= 0) & (g > g.mean(-1, keepdims=True))
    at_high = (upper <= 0) & ~at_low
    step: Array = np.zeros_like(gradient)
    going = np.arange(count)
    for _ in range(_EXCHANGES):
        sides = (lower[going], upper[going])
        step[going], next_low, next_high = _round(
            g[going], h[going], *sides, missing[going], at_low[going], at_high[going]
        )
        changed = ((next_low != at_low[going]) | (next_high != at_high[going])).any(-1)
        at_low[going], at_high[going] = next_low, next_high
        going = going[changed]
        if not len(going):
            break
    if len(going):
        # Where the sets went round in a circle the step may leave the box, or go up.
        step[going] = _diagonal(g[going], np.abs(h[going]).sum(-1), lower[going], upper[going], missing[going])
    even = ((1 - missing) / size)[:, None]
    return np.asarray(onto_simplex(step + even, lower + even, upper + even) - even, np.float64)


def _round(
    g: Array,
    h: Array,
    lower: Array,
    upper: Array,
    missing: Array,
    at_low: npt.NDArray[np.bool_],
    at_high: npt.NDArray[np.bool_],
) -> tuple[Array, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return the step with those domains at their bounds, and who is to be at which bound next."""
    size = g.shape[1]
    fixed = at_low | at_high
    free = ~fixed
    held = np.where(at_low, lower, np.where(at_high, upper, 0.0))
    system = np.zeros((len(g), size + 1, size + 1))
    system[:, :size, :size] = np.where(free[:, :, None], h * free[:, None, :], fixed[:, :, None] * np.eye(size))
    system[:, :size, size] = free
    system[:, size, :size] = free
    system[:, size, size] = -1e-13  # with nothing free the multiplier grows until something is
    right = np.empty((len(g), size + 1))
    right[:, :size] = np.where(free, -g - (h @ held[..., None])[..., 0], held)
    right[:, size] = missing - held.sum(-1)
    solved = np.linalg.solve(system, right[..., None])[..., 0]
    step, common = solved[:, :size], solved[:, size:]
    pull = g + (h @ step[..., None])[..., 0] + common
    next_low = np.where(fixed, at_low & (pull >= 0), step < lower)
    next_high = np.where(fixed, at_high & (pull <= 0), step > upper)
    # A domain whose bounds are one number has no side to leave.
    pinned = lower == upper
    return step, next_low | pinned, next_high & ~pinned


def _diagonal(gradient: Array, bend: Array, lower: Array, upper: Array, missing: Array) -> Array:
    """Return the step of the model whose bend is a diagonal above the true one: short, but down."""
    low = -(gradient + bend * upper).max(-1, keepdims=True) - 1
    high = -(gradient + bend * lower).min(-1, keepdims=True) + 1
    for _ in range(_HALVINGS * 2):
        middle = (low + high) / 2
        much = np.clip(-(gradient + middle) / bend, lower, upper).sum(-1, keepdims=True) > missing[:, None]
        low, high = np.where(much, middle, low), np.where(much, high, middle)
    return np.asarray(np.clip(-(gradient + (low + high) / 2) / bend, lower, upper), np.float64)


def _shortened(
    objective: Objective,
    here: Array,
    value: Array,
    gradient: Array,
    step: Array,
    which: Index,
    box: tuple[Array, Array],
) -> tuple[Index, Array, tuple[Array, Array, Array]]:
    """Return who moves, to where, and what the objective is there: half the step, and half again, until it falls."""
    slope = (gradient * step).sum(-1)
    # At the last digits value and slope are rounding: the step is tried.
    seeking = (slope < 0) | (np.abs(slope) < _ROUNDING * np.abs(value))
    length = np.ones(len(here))
    moved, found = here.copy(), (np.empty_like(value), np.empty_like(here), np.empty((*here.shape, here.shape[1])))
    taken = np.zeros(len(here), bool)
    # Whether it helps, the caller's residual shows.
    slack = np.where(-slope < _ROUNDING * np.abs(value), _ROUNDING, 1e-15) * np.abs(value)
    for _ in range(_HALVINGS):
        index = np.flatnonzero(seeking)
        if not len(index):
            break
        lower, upper = (side[which[index]] for side in box)
        candidate = here[index] + length[index, None] * step[index]
        # A bound is met to the last digit or not at all.
        candidate = np.where(candidate <= lower + _SNAP, lower, np.where(candidate >= upper - _SNAP, upper, candidate))
        tried = objective(candidate, which[index])
        fell = tried[0] <= value[index] + _ARMIJO * length[index] * slope[index] + slack[index]
        done = index[fell]
        moved[done], taken[done], seeking[done] = candidate[fell], True, False
        for kept, part in zip(found, tried, strict=True):
            kept[done] = part[fell]
        length[seeking] /= 2
    values, gradients, bends = found
    return np.flatnonzero(taken), moved[taken], (values[taken], gradients[taken], bends[taken])
