"""BiMix: a power law in the domain's own proportion, times one in the data volume with a floor.

    L_i(r_i, s) = A_i / r_i^α_i · (B_i / s^β_i + C_i)                      (arXiv 2405.14908v4, Eq. 3)

Only A·B and A·C enter, so A = 1 here and B, C stand for A·B, A·C. In the scaled volume u = s / s₀,

    log L = −α log r + log(b u^−β + c),    b = B s₀^−β,  c = C,    θ = (α, log β, log b, log c).
"""

from __future__ import annotations

import math

import numpy as np

from bimix_tracking.laws.protocol import Array

_ALPHAS = (0.02, 0.1, 0.4)
_BETAS = (0.05, 0.2, 0.5, 1.0)
_TINY = 1e-9
_NO_FLOOR = -700.0


class BiMix:
    """The law of Eq. 3 with A = 1; units of B: nats · tokens^β, of C: nats (both per token)."""

    name = "bimix"
    parameters: tuple[str, ...] = ("alpha", "beta", "B", "C")

    def log_loss(self, theta: Array, log_share: Array, log_u: Array) -> Array:
        """Return −α log r + log(b u^−β + c)."""
        alpha, log_beta, log_b, log_c = np.moveaxis(theta[..., None, :], -1, 0)
        log_loss: Array = -alpha * log_share + np.logaddexp(log_b - np.exp(log_beta) * log_u, log_c)
        return log_loss

    def jacobian(self, theta: Array, log_share: Array, log_u: Array) -> Array:
        """Return ∂ log L / ∂(α, log β, log b, log c); p is the part of the loss that still falls with s."""
        _, log_beta, log_b, log_c = np.moveaxis(theta[..., None, :], -1, 0)
        beta = np.exp(log_beta)
        falling = log_b - beta * log_u
        p = np.exp(falling - np.logaddexp(falling, log_c))
        columns = np.broadcast_arrays(-log_share, -p * beta * log_u, p, 1 - p)
        return np.stack(columns, axis=-1)

    def starts(self, log_share: Array, log_u: Array, log_loss: Array, weight: Array) -> Array:
        """Return a grid in (α, β); given those the law is linear in b and c, which least squares then gives."""
        thetas = []
        for alpha in _ALPHAS:
            level = np.exp(log_loss + alpha * log_share)  # L r^α = b u^−β + c
            # Relative errors are what the fit counts.
            w = weight / level**2
            for beta in _BETAS:
                x = np.exp(-beta * log_u)
                mean = (w * level).sum(-1) / w.sum(-1)
                xx, x1, xy = (w * x * x).sum(-1), (w * x).sum(-1), (w * x * level).sum(-1)
                one, y1 = w.sum(-1), (w * level).sum(-1)
                determinant = np.maximum(xx * one - x1**2, _TINY * xx * one)
                b = (xy * one - x1 * y1) / determinant
                c = (y1 * xx - x1 * xy) / determinant
                # A start must be inside: where least squares leaves the quadrant, give the term a small part.
                b, c = (np.maximum(v, 0.01 * mean) for v in (b, c))
                thetas.append(
                    np.stack([np.full_like(b, alpha), np.full_like(b, math.log(beta)), np.log(b), np.log(c)], -1)
                )
        return np.stack(thetas, axis=-2)

    def bounds(self, log_loss: Array, weight: Array) -> tuple[Array, Array]:
        """Return a box wide enough that only a parameter the data don't ask for gets to its side."""
        shape = log_loss.shape[:-1]
        low = np.where(weight > 0, log_loss, np.inf).min(-1)
        high = np.where(weight > 0, log_loss, -np.inf).max(-1)
        lower = np.broadcast_to([-2.0, math.log(1e-3), 0, 0], (*shape, 4)).copy()
        upper = np.broadcast_to([5.0, math.log(5.0), 0, 0], (*shape, 4)).copy()
        lower[..., 2:], upper[..., 2:] = (low - 14)[..., None], (high + 7)[..., None]
        return lower, upper

    def identifiable(self, shares: int, volumes: int) -> tuple[bool, ...]:
        """Two distinct shares for α; two volumes for a power of s, a third for its floor beside it.

        At one volume b u^−β + c is one number, which b takes.
        """
        return shares >= 2, volumes >= 2, True, volumes >= 3

    def held(self) -> Array:
        """No dependence on the share, b u^−β nearly constant, no floor."""
        return np.array([0.0, math.log(1e-3), 0.0, _NO_FLOOR])

    def report(self, theta: Array, scale: float) -> dict[str, float]:
        """Return α, β, B = b s₀^β and C."""
        alpha, log_beta, log_b, log_c = theta.tolist()
        beta = math.exp(log_beta)
        return {
            "alpha": alpha,
            "beta": beta,
            "B": math.exp(log_b + beta * math.log(scale)),
            "C": math.exp(log_c) if log_c > _NO_FLOOR else 0.0,
        }

    def internal(self, parameters: dict[str, float], scale: float) -> Array:
        """Return θ of α, β, B and C."""
        alpha, beta, big_b, big_c = (parameters[name] for name in self.parameters)
        log_c = math.log(big_c) if big_c > 0 else _NO_FLOOR
        return np.array([alpha, math.log(beta), math.log(big_b) - beta * math.log(scale), log_c])
