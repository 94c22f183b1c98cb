"""The dependence on the data volume that `bimix` and `transfer` share: log(b u^−β + c)."""

from __future__ import annotations

import math

import numpy as np

from bimix_tracking.laws.protocol import Array, Inputs

LOG_BETA = (math.log(1e-3), math.log(5.0))
"""Bounds of log β."""
NO_FLOOR = -700.0
"""log c of no floor at all."""
_TINY = 1e-9


def power(theta: Array, x: Inputs) -> tuple[Array, Array]:
    """Return log(b u^−β + c) at each volume and its derivatives by θ = (log β, log b, log c).

    Shapes (problems, 1 or mixtures, volumes) and the same with 3. p is the part of the loss that still falls with s.
    """
    log_beta, log_b, log_c = (theta[:, i, None, None] for i in range(3))
    beta = np.exp(log_beta)
    falling = log_b - beta * x.log_u
    total = np.logaddexp(falling, log_c)
    p = np.exp(falling - total)
    return total, np.stack([-p * beta * x.log_u, p, 1 - p], axis=-1)


def linear_start(beta: float, level: Array, x: Inputs, weight: Array) -> Array:
    """Return (log β, log b, log c) of each problem: given β, `level` = b u^−β + c is linear in b and c.

    Args:
        beta: β.
        level: Shape (problems, mixtures, volumes).
        x: Where.
        weight: Of that shape.
    """
    w = np.where(weight > 0, weight / level**2, 0.0)  # relative errors are what the fit counts
    w = np.where(w.sum((1, 2), keepdims=True) > 0, w, 1.0)
    basis = np.exp(-beta * x.log_u)
    one, x1, xx = (np.sum(w * power, axis=(1, 2)) for power in (1.0, basis, basis**2))
    y1, xy = (np.sum(w * level * power, axis=(1, 2)) for power in (1.0, basis))
    determinant = np.maximum(xx * one - x1**2, _TINY * xx * one)
    b, c = (xy * one - x1 * y1) / determinant, (y1 * xx - x1 * xy) / determinant
    # A start must be inside: where least squares leaves the quadrant, give the term a small part.
    b, c = (np.maximum(v, 0.01 * y1 / one) for v in (b, c))
    return np.stack([np.full_like(b, math.log(beta)), np.log(b), np.log(c)], -1)


def identifiable(volumes: int) -> list[bool]:
    """Return which of β, b, c are identifiable: at one volume b u^−β + c is one number, which b takes."""
    return [volumes >= 2, True, volumes >= 3]  # a power of s, and a floor beside it


def held() -> list[float]:
    """B u^−β almost constant, no floor."""
    return [LOG_BETA[0], 0.0, NO_FLOOR]


def report(theta: Array, scale: float) -> dict[str, float]:
    """Return β, B = b s₀^β and C."""
    log_beta, log_b, log_c = theta.tolist()
    beta = math.exp(log_beta)
    c = math.exp(log_c) if log_c > NO_FLOOR else 0.0
    return {"beta": beta, "B": math.exp(log_b + beta * math.log(scale)), "C": c}


def internal(beta: float, b: float, c: float, scale: float) -> list[float]:
    """Return log β, log b and log c of β, B and C."""
    return [math.log(beta), math.log(b) - beta * math.log(scale), math.log(c) if c > 0 else NO_FLOOR]
