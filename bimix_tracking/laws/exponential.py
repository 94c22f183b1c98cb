"""The exponential law of the mixture, times BiMix's term of the data volume.

    L(r, s) = (c + k exp(Σ_j t_j r_j)) · (B / s^β + C)           (Ye et al., arXiv 2403.16952, for the mixture)

Σ r = 1, so k is one more constant in every t_j and is 1 here; the scale of the second factor is in the first, so
its terms are p and 1 − p at s₀. L is convex in r. The t_j of the other domains are shrunk to one another, the
target's own only weakly: θ = (log c, t_1 … t_k, log β, logit p).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, ByShare, Index, Inputs, loss_range, one_hot, script_beside
from bimix_tracking.laws.volume import LOG_BETA

_SPREAD, _OWN_SPREAD = 1.0, 10.0
_PARTS = (0.5, 0.9)
"""Of the loss, how much c has at a start."""
_BETAS = (0.3, 0.8)
_ALL, _NONE = 20.0, -700.0


class Exponential:
    """The law of arXiv 2403.16952 in r; c, exp(t) in nats per token at the volume s₀."""

    name = "exponential"
    formula = "L(r, s) = (c + exp(sum_j t_j r_j)) * (B / s^beta + 1 - B / s0^beta); s in tokens, L in nats per token"
    mixtures_needed = 5
    needs_own = False
    infinite_at_zero = False
    own_only = False
    power_of_own = False
    effect = 0
    watched: Mapping[str, int] = MappingProxyType({"c": 0, "beta": -2, "B": -1})
    fine_at: Mapping[tuple[str, str], str] = MappingProxyType({("c", "low"): "fine", ("B", "high"): "no floor"})

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return c, a slope a domain, β and B."""
        return ("c", *(f"t[{d}]" for d in domains), "beta", "B")

    def evaluate(self, theta: Array, own: Index, x: Inputs) -> tuple[Array, Array]:
        """Return log(c + exp(Σ t_j r_j)) + log(p u^−β + 1 − p) and its derivatives."""
        varying = x.along(theta[:, 1:-2])
        total = np.logaddexp(theta[:, :1], varying)
        part = np.exp(varying - total)
        beta = np.exp(theta[:, -2:-1])
        level, q, p = self._level(theta, x)
        jacobian = np.empty((len(theta), len(x.mixture), theta.shape[1]))
        jacobian[..., 0] = (1 - part)[:, x.mixture]
        jacobian[..., 1:-2] = (part[..., None] * x.shares)[:, x.mixture]
        jacobian[..., -2] = (-q * beta * x.log_u)[:, x.volume]
        jacobian[..., -1] = (q * (1 - p) - (1 - q) * p)[:, x.volume]
        return total[:, x.mixture] + level[:, x.volume], jacobian

    @staticmethod
    def _level(theta: Array, x: Inputs) -> tuple[Array, Array, Array]:
        """Return log(p u^−β + 1 − p), the part of it that falls, and p."""
        logit = theta[:, -1:]
        log_p, log_rest = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
        falling = log_p - np.exp(theta[:, -2:-1]) * x.log_u
        level = np.logaddexp(falling, log_rest)
        return level, np.exp(falling - level), np.exp(log_p)

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope t_j exp(Σ t r) / (c + exp(Σ t r))."""
        varying = x.along(theta[:, 1:-2])
        total = np.logaddexp(theta[:, :1], varying)
        part = np.exp(varying - total)[:, x.mixture]
        return ByShare(
            log_loss=total[:, x.mixture] + self._level(theta, x)[0][:, x.volume],
            gradient=part[..., None] * theta[:, None, 1:-2],
            factor=1 / np.maximum(part, 1e-300),
            diagonal=np.zeros((*part.shape, x.shares.shape[-1])),
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return a small and a large constant, a slow and a fast fall with s; all domains alike."""
        w = np.where(weight.sum(-1, keepdims=True) > 0, weight, 1.0)
        mean = (w * log_loss).sum(-1) / w.sum(-1)
        slopes = np.zeros((len(mean), x.shares.shape[1]))
        thetas = []
        for part in _PARTS:
            for beta in _BETAS:
                constant = (mean + math.log(part))[:, None]
                rest = np.tile([math.log(beta), -1.5], (len(mean), 1))
                thetas.append(np.concatenate([constant, slopes + mean[:, None] + math.log(1 - part), rest], -1))
        return np.stack(thetas, axis=1)

    def bounds(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> tuple[Array, Array]:
        """Return a wide box."""
        low, high = loss_range(log_loss, weight)
        ones = np.ones((len(low), x.shares.shape[1]))
        rest = np.ones((len(low), 1))
        lower = np.concatenate([(low - 14)[:, None], (low - 60)[:, None] * ones, LOG_BETA[0] * rest, -_ALL * rest], -1)
        upper = np.concatenate([(high + 7)[:, None], (high + 60)[:, None] * ones, LOG_BETA[1] * rest, _ALL * rest], -1)
        return lower, upper

    def prior(self, own: Index, domains: int) -> tuple[Array, Array]:
        """Shrink the slopes of other domains to their mean, the own one's distance from the mean weakly."""
        size = domains + 3
        precision = np.zeros((len(own), size, size))
        slopes = slice(1, 1 + domains)
        others = 1 - one_hot(own, domains)
        count = np.maximum(others.sum(-1), 1)[:, None, None]
        eye = np.eye(domains)
        alike = eye * others[:, :, None] - others[:, :, None] * others[:, None, :] / count
        precision[:, slopes, slopes] = alike / _SPREAD**2 + (eye - 1 / domains) / _OWN_SPREAD**2
        return np.zeros((len(own), size)), precision

    def told(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Volumes for β and p; mixtures for the rest, where the prior tells what they don't."""
        varied = mixtures >= 2
        return np.asarray(np.r_[varied, np.full(domains, True), volumes >= 3, volumes >= 2])

    def held(self, domains: int) -> Array:
        """No constant, no fall with s."""
        return np.asarray(np.r_[_NONE, np.zeros(domains), math.log(0.5), _NONE])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return c, t, β and B = p s₀^β."""
        beta = math.exp(theta[-2])
        part = 1 / (1 + math.exp(-theta[-1])) if theta[-1] > _NONE else 0.0
        slopes = {f"t[{d}]": float(t) for d, t in zip(domains, theta[1:-2], strict=True)}
        constant = math.exp(theta[0]) if theta[0] > _NONE else 0.0
        return {"c": constant, **slopes, "beta": beta, "B": part * scale**beta}

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of what `report` returned."""
        p = parameters["B"] / scale ** parameters["beta"]
        logit = _NONE if p <= 0 else (_ALL if p >= 1 else math.log(p / (1 - p)))
        constant = math.log(parameters["c"]) if parameters["c"] > 0 else _NONE
        return np.asarray(
            np.r_[constant, [parameters[f"t[{d}]"] for d in domains], math.log(parameters["beta"]), logit]
        )
