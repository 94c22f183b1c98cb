"""A law whose terms of the proportion and of the data volume add, as in Chinchilla's form.

L(r, s) = E + A r^−α + B s^−β,    θ = (log β, log b, log E, log α, log A),    b = B s₀^−β
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws import Blocks, Box, ByShare, Inputs, Prior, Traits, script_beside

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
_NONE = -700.0
_LOW, _HIGH = math.log(1e-3), math.log(5.0)


class Separable:
    """E, A in nats per token; B in nats · tokens^β."""

    name = "separable"
    formula = "L(r, s) = E + A r^-alpha + B / s^beta; s in tokens, L in nats per token"
    traits = Traits(
        effect=3,
        watched={"alpha": 3, "A": 4, "E": 2, "beta": 0, "B": 1},
        fine_at={("E", "low"): "no floor"},
        mixtures_needed=3,
        needs_own=True,
        infinite_at_zero=True,
        own_only=True,
    )

    @property
    def page_script(self) -> str | None:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        return "alpha", "A", "E", "beta", "B"

    @staticmethod
    def _terms(theta: Array, own: Index, x: Inputs) -> tuple[Array, Array, Array]:
        """Return A r^−α, (problems, mixtures), b u^−β, (problems, 1 or mixtures, volumes), and log r."""
        log_share = np.log(x.own_share(own))
        mixture = np.exp(theta[:, 4:] - np.exp(theta[:, 3:4]) * log_share)
        falling = np.exp(theta[:, 1, None, None] - np.exp(theta[:, 0, None, None]) * x.log_u)
        return mixture, falling, log_share

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        mixture, falling, log_share = self._terms(theta, own, x)
        beta, floor, alpha = np.exp(theta[:, 0, None, None]), np.exp(theta[:, 2, None, None]), np.exp(theta[:, 3:4])
        total = mixture[..., None] + floor + falling
        of_volume = np.stack([-falling * beta * x.log_u, falling, floor * np.ones_like(falling)], -1)
        return Blocks(np.log(total), 1 / total, of_volume, np.stack([-mixture * alpha * log_share, mixture], -1))

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        term, falling, _ = self._terms(theta, own, x)
        alpha = np.exp(theta[:, 3:4])
        total = term + np.exp(theta[:, 2:3]) + falling[..., 0]
        slope = -alpha * term / x.own_share(own) / total
        gradient = np.zeros((*slope.shape, x.shares.shape[-1]))
        gradient[np.arange(len(own)), :, own] = slope
        return ByShare(np.log(total), gradient, (alpha + 1) * total / (alpha * term), np.zeros_like(gradient))

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        total = np.maximum(weight.sum((1, 2)), 1e-12)
        mean = np.exp((weight * log_loss).sum((1, 2)) / total)
        parts = np.log(mean)[:, None] + np.log([0.2, 0.65, 0.15])
        grid = [(alpha, beta) for alpha in (0.1, 0.4) for beta in (0.3, 0.8)]
        return np.stack(
            [
                np.column_stack(
                    [
                        np.full(len(own), math.log(beta)),
                        parts[:, 2],
                        parts[:, 1],
                        np.full(len(own), math.log(alpha)),
                        parts[:, 0],
                    ]
                )
                for alpha, beta in grid
            ],
            axis=1,
        )

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        counts = weight > 0
        low, high = np.where(counts, log_loss, 0.0).min((1, 2)), np.where(counts, log_loss, 0.0).max((1, 2))
        lower, upper = low[:, None] + np.full(5, -14.0), high[:, None] + np.full(5, 7.0)
        lower[:, [0, 3]], upper[:, [0, 3]] = _LOW, _HIGH
        return Box(lower, upper, held=np.array([math.log(0.5), _NONE, 0.0, math.log(0.3), _NONE]))

    def prior(self, own: Index, domains: int) -> Prior:
        return Prior(np.zeros((len(own), 5)), np.zeros((len(own), 5, 5)))

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        return np.array([volumes >= 3, volumes >= 2, True, shares >= 3, shares >= 2])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        beta, b, floor, alpha, a = np.exp(theta).tolist()
        return {"alpha": alpha, "A": a, "E": floor, "beta": beta, "B": b * scale**beta}

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        p = parameters
        units = np.array([p["beta"], p["B"] / scale ** p["beta"], p["E"], p["alpha"], p["A"]])
        return np.where(units > 0, np.log(np.where(units > 0, units, 1.0)), _NONE)


class Unscripted(Separable):
    """The same without a page script: its reports aren't interactive."""

    name = "unscripted"
    page_script = None
