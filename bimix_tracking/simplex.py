"""The least value of a smooth function of a mixture: Σ r = 1, lower ≤ r ≤ upper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize as scipy_minimize

from bimix_tracking.laws.protocol import Array

Objective = Callable[[Array], tuple[float, Array]]
"""r (domains,) → value, gradient (domains,)."""

_AT_BOUND = 1e-7
_SAME = 1e-6
_STEPS = 100


@dataclass(frozen=True)
class SimplexMinimum:
    """Where the search ended.

    Args:
        shares: The best mixture, shape (domains,).
        value: The objective there.
        kkt_residual: Largest violation of optimality, relative to the gradient's size: a free domain's gradient off
            the common value, or one at a bound that pulls inwards. 0 at an exact local optimum.
        agree: How many starts ended at this value, of how many.
    """

    shares: Array
    value: float
    kkt_residual: float
    agree: tuple[int, int]


def minimize_on_simplex(objective: Objective, lower: Array, upper: Array, starts: Sequence[Array]) -> SimplexMinimum:
    """Minimise from several starts by SLSQP, then by Newton steps on the free domains.

    Args:
        objective: Value and gradient.
        lower: Shape (domains,), Σ lower ≤ 1.
        upper: Likewise, Σ upper ≥ 1.
        starts: Mixtures; they are cut to the bounds.

    >>> def squares(r):
    ...     return float(((r - np.array([0.7, 0.5, 0.0])) ** 2).sum()), 2 * (r - np.array([0.7, 0.5, 0.0]))
    >>> found = minimize_on_simplex(squares, np.zeros(3), np.ones(3), [np.full(3, 1 / 3)])
    >>> found.shares.round(6), found.kkt_residual < 1e-8
    (array([0.6, 0.4, 0. ]), True)
    """
    found = [_slsqp(objective, lower, upper, start) for start in starts]
    values = np.array([objective(r)[0] for r in found])
    agree = int((values <= values.min() + _SAME * (1 + abs(values.min()))).sum())
    best = _polish(objective, found[int(values.argmin())], lower, upper)
    residual = _residual(objective, best, lower, upper)
    return SimplexMinimum(best, objective(best)[0], residual, (agree, len(found)))


def _slsqp(objective: Objective, lower: Array, upper: Array, start: Array) -> Array:
    ones = np.ones(len(start))
    options: dict[str, Any] = {
        "method": "SLSQP",
        "jac": True,
        "bounds": list(zip(lower.tolist(), upper.tolist(), strict=True)),
        "constraints": [{"type": "eq", "fun": lambda r: r.sum() - 1, "jac": lambda _: ones}],
        "options": {"ftol": 1e-13, "maxiter": 500},
    }
    result = scipy_minimize(objective, np.clip(start, lower, upper), **options)
    shares = np.clip(result.x, lower, upper)
    return _onto_simplex(shares, lower, upper)


def _onto_simplex(shares: Array, lower: Array, upper: Array) -> Array:
    """Spread what is missing to 1 over the domains that have room for it."""
    for _ in range(_STEPS):
        missing = 1 - shares.sum()
        room = (upper - shares) if missing > 0 else (shares - lower)
        if abs(missing) < 1e-15 or room.sum() <= 0:
            break
        shares = np.clip(shares + missing * room / room.sum(), lower, upper)
    return shares


def _free(shares: Array, gradient: Array, lower: Array, upper: Array) -> tuple[Array, float]:
    """Return which domains are off their bounds (as 0 or 1), and the common gradient there."""
    inside = (shares > lower + _AT_BOUND) & (shares < upper - _AT_BOUND)
    common = float(gradient[inside].mean()) if inside.any() else float(np.median(gradient))
    return inside.astype(float), common


def _polish(objective: Objective, shares: Array, lower: Array, upper: Array) -> Array:
    """Take Newton steps with a Hessian by differences of the exact gradient, as long as they help."""
    for _ in range(8):
        gradient = objective(shares)[1]
        inside, common = _free(shares, gradient, lower, upper)
        index = np.flatnonzero(inside)
        if len(index) < 2:
            break
        hessian = np.empty((len(index), len(index)))
        for column, j in enumerate(index):
            step = 1e-5 * max(shares[j], 1e-3)
            moved = np.zeros(len(shares))
            moved[j] = step
            hessian[:, column] = (objective(shares + moved)[1] - objective(shares - moved)[1])[index] / (2 * step)
        size = len(index)
        system = np.zeros((size + 1, size + 1))
        system[:size, :size], system[size, :size], system[:size, size] = (hessian + hessian.T) / 2, 1, 1
        try:
            move = np.linalg.solve(system, np.r_[-(gradient[index] - common), 0.0])[:size]
        except np.linalg.LinAlgError:
            break
        candidate = shares.copy()
        candidate[index] += move
        inside_box = (candidate >= lower - 1e-15).all() and (candidate <= upper + 1e-15).all()
        if not inside_box or _residual(objective, candidate, lower, upper) >= _residual(
            objective, shares, lower, upper
        ):
            break
        shares = candidate
    return shares


def _residual(objective: Objective, shares: Array, lower: Array, upper: Array) -> float:
    gradient = objective(shares)[1]
    inside, common = _free(shares, gradient, lower, upper)
    off = gradient - common
    low = shares <= lower + _AT_BOUND
    wrong = np.where(inside > 0, np.abs(off), np.where(low, np.maximum(-off, 0), np.maximum(off, 0)))
    wrong[upper - lower <= 2 * _AT_BOUND] = 0.0
    return float(wrong.max() / max(np.abs(gradient).max(), 1e-300))
