"""The exponential law of the mixture, times BiMix's term of the data volume.

    L(r, s) = (c + k exp(Σ_j t_j r_j)) · (B / s^β + C)           (Ye et al., arXiv 2403.16952, for the mixture)

Σ r = 1, so k is one more constant in every t_j and is 1 here; the scale of the second factor is in the first, so
its terms are p and 1 − p at s₀. L is convex in r. The t_j of the other domains are shrunk to one another, the
target's own only weakly: θ = (log β, logit p, log c, t_1 … t_k).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import (
    Array,
    Blocks,
    Box,
    ByShare,
    Index,
    Inputs,
    Prior,
    Traits,
    loss_range,
    mean_log_loss,
    one_hot,
    script_beside,
)
from bimix_tracking.laws.volume import LOG_BETA

_SPREAD, _OWN_SPREAD = 1.0, 10.0
_PARTS = (0.5, 0.9)
"""Of the loss, how much c has at a start."""
_BETAS = (0.3, 0.8)
_ALL, _NONE = 20.0, -700.0
_BELOW = 14.0
"""So far below the smallest log loss a constant counts as none."""


class Exponential:
    """The law of arXiv 2403.16952 in r; c, exp(t) in nats per token at the volume s₀."""

    name = "exponential"
    formula = "L(r, s) = (c + exp(sum_j t_j r_j)) * (B / s^beta + 1 - B / s0^beta); s in tokens, L in nats per token"
    traits = Traits(
        effect=2,
        watched=MappingProxyType({"c": 2, "beta": 0, "B": 1}),
        fine_at=MappingProxyType({("c", "low"): "fine", ("B", "high"): "no floor"}),
        mixtures_needed=5,
        needs_own=False,
        infinite_at_zero=False,
    )

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return c, a slope a domain, β and B."""
        return ("c", *(f"t[{d}]" for d in domains), "beta", "B")

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        """Return log(c + exp(Σ t_j r_j)) + log(p u^−β + 1 − p) and its derivatives."""
        total, part = self._mixture(theta, x)
        level, q, p = self._level(theta, x)
        beta = np.exp(theta[:, 0, None, None])
        mixture = np.empty((*total.shape, theta.shape[1] - 2))
        mixture[..., 0] = 1 - part
        np.multiply(part[..., None], x.shares, out=mixture[..., 1:])
        volume = np.stack([-q * beta * x.log_u, q * (1 - p) - (1 - q) * p], -1)
        return Blocks(total[..., None] + level, None, volume, mixture)

    @staticmethod
    def _mixture(theta: Array, x: Inputs) -> tuple[Array, Array]:
        """Return log(c + exp(Σ t r)) and the part of it that depends on r, (problems, mixtures)."""
        varying = x.along(theta[:, 3:])
        total = np.logaddexp(theta[:, 2:3], varying)
        return total, np.exp(varying - total)

    @staticmethod
    def _level(theta: Array, x: Inputs) -> tuple[Array, Array, Array]:
        """Return log(p u^−β + 1 − p), the part of it that falls, and p."""
        logit = theta[:, 1, None, None]
        log_p, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        falling = log_p - np.exp(theta[:, 0, None, None]) * x.log_u
        level = np.logaddexp(falling, log_rest)
        return level, np.exp(falling - level), np.exp(log_p)

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope t_j exp(Σ t r) / (c + exp(Σ t r))."""
        total, part = self._mixture(theta, x)
        return ByShare(
            log_loss=total + self._level(theta, x)[0][..., 0],
            gradient=part[..., None] * theta[:, None, 3:],
            factor=1 / np.maximum(part, 1e-300),
            diagonal=np.zeros((*part.shape, x.shares.shape[-1])),
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return no constant, a small and a large one, a slow and a fast fall with s; all domains alike.

        Where the data ask for no constant, log c falls without end in a flat valley: one start is at its end.
        """
        mean = mean_log_loss(log_loss, weight)
        low = loss_range(log_loss, weight)[0] - _BELOW
        slopes = np.zeros((len(mean), x.shares.shape[1]))
        thetas = []
        for part in (0.0, *_PARTS):
            constant = (mean + math.log(part) if part else low)[:, None]
            for beta in _BETAS:
                rest = np.tile([math.log(beta), -1.5], (len(mean), 1))
                thetas.append(np.concatenate([rest, constant, slopes + mean[:, None] + math.log(1 - part)], -1))
        return np.stack(thetas, axis=1)

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        """Return a wide box; held: no constant, no fall with s."""
        low, high = loss_range(log_loss, weight)
        ones = np.ones((len(low), x.shares.shape[1]))
        rest = np.ones((len(low), 1))
        sides = (
            [LOG_BETA[0] * rest, -_ALL * rest, (low - _BELOW)[:, None], (low - 60)[:, None] * ones],
            [LOG_BETA[1] * rest, _ALL * rest, (high + 7)[:, None], (high + 60)[:, None] * ones],
        )
        lower, upper = (np.concatenate(side, -1) for side in sides)
        return Box(lower, upper, np.r_[math.log(0.5), _NONE, _NONE, np.zeros(ones.shape[1])])

    def prior(self, own: Index, domains: int) -> Prior:
        """Shrink the slopes of other domains to their mean, the own one's distance from the mean weakly."""
        size = domains + 3
        precision = np.zeros((len(own), size, size))
        slopes = slice(3, size)
        others = 1 - one_hot(own, domains)
        count = np.maximum(others.sum(-1), 1)[:, None, None]
        eye = np.eye(domains)
        alike = eye * others[:, :, None] - others[:, :, None] * others[:, None, :] / count
        precision[:, slopes, slopes] = alike / _SPREAD**2 + (eye - 1 / domains) / _OWN_SPREAD**2
        return Prior(np.zeros((len(own), size)), precision)

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Volumes for β and p; mixtures for the rest, where the prior supplies what they don't."""
        return np.asarray(np.r_[volumes >= 3, volumes >= 2, mixtures >= 2, np.full(domains, True)])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return c, t, β and B = p s₀^β."""
        beta = math.exp(theta[0])
        part = 1 / (1 + math.exp(-theta[1])) if theta[1] > _NONE else 0.0
        slopes = {f"t[{d}]": float(t) for d, t in zip(domains, theta[3:], strict=True)}
        constant = math.exp(theta[2]) if theta[2] > _NONE else 0.0
        return {"c": constant, **slopes, "beta": beta, "B": part * scale**beta}

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of what `report` returned."""
        p = parameters["B"] / scale ** parameters["beta"]
        logit = _NONE if p <= 0 else (_ALL if p >= 1 else math.log(p / (1 - p)))
        constant = math.log(parameters["c"]) if parameters["c"] > 0 else _NONE
        slopes = [parameters[f"t[{d}]"] for d in domains]
        return np.asarray(np.r_[math.log(parameters["beta"]), logit, constant, slopes])
