"""The closed form of losses that are powers of the own proportion: shares filled up to one common slope, λ."""

from __future__ import annotations

import numpy as np

from bimix_tracking.laws.protocol import Array
from bimix_tracking.recommendation.solvers.sqp import onto_simplex

_NOTHING = 1e-30
_HALVINGS = 80
_STEEPEST = 50.0


def filled(pull: Array, alpha: Array, floor: Array, lower: Array, upper: Array) -> Array:
    """Return r = cut(exp((pull − log λ) / (1 + α)), lower, upper) with the λ at which Σ r = 1.

    Below the floor f the slope is that at the floor, times 1 + (1 + α) (1 − r / f).

    Args:
        pull: log(w α K), shape (n, domains).
        alpha: α, likewise, not below 0.
        floor: f, shape (domains,); 0: none.
        lower: Shape (domains,) or (n, domains).
        upper: Likewise.
    """
    power = 1 / (1 + alpha)
    floored = floor > lower
    at_floor = pull - (1 + alpha) * np.log(np.where(floor > 0, floor, 1.0))

    def shares(log_lambda: Array) -> Array:
        free = np.exp(np.minimum((pull - log_lambda) * power, 1.0))
        under = floored & (free < floor)
        if not under.any():
            return np.clip(free, lower, upper)
        steeper = np.expm1(np.clip(log_lambda - at_floor, 0.0, _STEEPEST))
        return np.clip(np.where(under, floor * (1 - steeper * power), free), lower, upper)

    # Every domain is at most 1 at the largest pull, and at least 1 at the smallest.
    high, low = pull.max(-1, keepdims=True) + 40.0 / power.min(), pull.min(-1, keepdims=True) - 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        much = shares(middle).sum(-1, keepdims=True) > 1
        low, high = np.where(much, middle, low), np.where(much, high, middle)
    found = shares((low + high) / 2)
    return onto_simplex(np.where(found < _NOTHING, lower, found), lower, upper)
