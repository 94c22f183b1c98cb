"""The additive law: a floor, a term of the mixture and a term of the data volume.

    L(r, s) = E + 1 / Σ_j C_j r_j^γ_j + B / s^β                 (Shukor et al., arXiv 2507.09404, at one model size)

It sees all proportions, is finite at r = 0 as long as one domain has a share, and needs no own share, so targets
outside the mixture can be fitted. With 0 < γ_j ≤ 1 the sum is concave and L convex in r.

C_j = C (1[j = i] + t_j) with t_j ≥ 0.01 shrunk to 0 (for a target outside t_j ≥ 0.1, shrunk to 1), and the log γ_j to
one another: θ = (log E, log β, log b, log C, t_1 … t_k, log γ_1 … log γ_k).
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

_FIXED = 4
_GAMMA, _GAMMA_SPREAD = 0.7, 0.3
_SPREAD = 0.3
_OUTSIDE_SPREAD = 1.0
_OWN_GAMMA_SPREAD = 0.5
_LEAST, _OUTSIDE_LEAST = 0.01, 0.1
"""Smallest transfers. From few mixtures a fit likes to say that a domain teaches nothing at all, and then gives a
mixture of that domain alone a loss of thousands of nats."""
_NONE = -700.0
_FLOOR = 1e-6
"""Of the own share, so that the sum is never 0: the law is finite there, but not without any share at all."""
_PARTS = (0.15, 0.6)
"""Of the loss, how much the mixture's term has at a start."""
_BETAS = (0.3, 0.8)
_BELOW, _ABOVE = 14.0, 7.0


class Additive:
    """The law of arXiv 2507.09404 at one model size; E and B / s^β in nats per token, C_j in tokens per nat."""

    name = "additive"
    formula = "L(r, s) = E + 1 / sum_j(C_j r_j^gamma_j) + B / s^beta; s in tokens, L in nats per token"
    traits = Traits(
        effect=3,
        watched=MappingProxyType({"E": 0, "beta": 1, "B": 2}),
        fine_at=MappingProxyType({("E", "low"): "fine"}),
        mixtures_needed=5,
        needs_own=False,
        infinite_at_zero=False,
    )

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return E, β, B and for each domain C and γ."""
        return ("E", "beta", "B", *(f"C[{d}]" for d in domains), *(f"gamma[{d}]" for d in domains))

    def _terms(self, theta: Array, own: Index, x: Inputs) -> tuple[Array, Array, Array, Array, Array]:
        """Return log r, γ, r^γ and C r^γ / C, each (problems, mixtures, domains), and 1 / their sum and C."""
        domains = x.shares.shape[-1]
        coefficient = theta[:, _FIXED : _FIXED + domains] + one_hot(own, domains)
        gamma = np.exp(theta[:, _FIXED + domains :])
        present = x.shares > 0
        log_share = np.log(np.where(present, x.shares, 1.0))
        # 0^γ is 0 with no slope in γ; the own share has a floor, so the sum is never 0.
        powers = np.exp(gamma[:, None, :] * log_share)
        if not present.all():
            powers *= present
        if (x.shares < _FLOOR).any():
            log_share = np.broadcast_to(log_share, powers.shape).copy()
            here = np.flatnonzero(own >= 0)
            mine = x.shares.T[own[here]] if x.shares.ndim == 2 else x.shares[here, :, own[here]]
            log_share[here, :, own[here]] = np.log(np.maximum(mine, _FLOOR))
            powers[here, :, own[here]] = np.exp(gamma[here, own[here]][:, None] * log_share[here, :, own[here]])
        terms = powers * coefficient[:, None, :]
        return log_share, gamma, powers, terms, 1 / np.maximum(terms.sum(-1), 1e-12)

    @staticmethod
    def _falling(theta: Array, x: Inputs) -> tuple[Array, Array]:
        """Return b u^−β, (problems, 1 or mixtures, volumes), and β."""
        beta = np.exp(theta[:, 1, None, None])
        return np.exp(theta[:, 2, None, None] - beta * x.log_u), beta

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        """Return log(E + 1 / Σ C_j r_j^γ_j + b u^−β) and its derivatives."""
        log_share, gamma, powers, terms, inverse = self._terms(theta, own, x)
        value = np.exp(-theta[:, 3:4]) * inverse
        falling, beta = self._falling(theta, x)
        floor = np.exp(theta[:, 0, None, None])
        total = (floor + value[..., None]) + falling
        part = (value * inverse)[..., None]
        domains = powers.shape[-1]
        mixture = np.empty((*value.shape, 1 + 2 * domains))
        mixture[..., 0] = -value
        np.multiply(powers, -part, out=mixture[..., 1 : 1 + domains])
        by_gamma = mixture[..., 1 + domains :]
        np.multiply(terms, -part, out=by_gamma)
        by_gamma *= log_share
        by_gamma *= gamma[:, None, :]
        volume = np.empty((*falling.shape, 3))
        volume[..., 0], volume[..., 1], volume[..., 2] = floor, -falling * beta * x.log_u, falling
        return Blocks(np.log(total), 1 / total, volume, mixture)

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope −M² C_j γ_j r_j^(γ_j − 1) / L with M the mixture's term; at r = 0 the slope at the floor."""
        _, gamma, _, _, inverse = self._terms(theta, own, x)
        domains = x.shares.shape[-1]
        floored = np.maximum(x.shares, _FLOOR)
        coefficient = (theta[:, _FIXED : _FIXED + domains] + one_hot(own, domains))[:, None, :]
        slope = coefficient * gamma[:, None, :] * floored ** (gamma[:, None, :] - 1)
        value = np.exp(-theta[:, 3:4]) * inverse
        part = (value * inverse)[..., None]
        total = np.exp(theta[:, :1]) + value + self._falling(theta, x)[0][..., 0]
        return ByShare(
            log_loss=np.log(total),
            gradient=-part * slope / total[..., None],
            factor=2 * total / value,
            diagonal=-part * slope * (gamma[:, None, :] - 1) / floored / total[..., None],
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return a small and a large part of the mixture's term, a slow and a fast fall with s."""
        domains, hot = x.shares.shape[1], one_hot(own, x.shares.shape[1])
        mean = np.exp(mean_log_loss(log_loss, weight))
        outside = own < 0
        transfers = np.where(outside[:, None], 1.0, 0.1) * (1 - hot)
        thetas = []
        for part in _PARTS:
            powers = (np.maximum(x.shares, _FLOOR) ** _GAMMA).mean(0)
            strength = ((hot + transfers) * powers).sum(-1)
            for beta in _BETAS:
                fixed = np.stack(
                    [
                        np.log(mean * (0.85 - part)),
                        np.full_like(mean, math.log(beta)),
                        np.log(0.15 * mean),
                        -np.log(part * mean * strength),
                    ],
                    -1,
                )
                thetas.append(np.concatenate([fixed, transfers, np.full((len(mean), domains), math.log(_GAMMA))], -1))
        return np.stack(thetas, axis=1)

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        """Return a wide box; γ ≤ 1 keeps the law convex, t > 0 keeps it finite where there is nothing else.

        Held: no fall with s; no mixture's term, unless other values are known.
        """
        low, high = loss_range(log_loss, weight)
        domains = x.shares.shape[-1]
        others = 1 - one_hot(own, domains)
        least = np.where(own < 0, _OUTSIDE_LEAST, _LEAST)[:, None]
        fixed_low = [low - _BELOW, np.full_like(low, LOG_BETA[0]), low - _BELOW, -high - 20]
        fixed_high = [high + _ABOVE, np.full_like(low, LOG_BETA[1]), high + _ABOVE, -low + 20]
        return Box(
            np.concatenate([np.stack(fixed_low, -1), least * others, np.full_like(others, -4.0)], -1),
            np.concatenate([np.stack(fixed_high, -1), 50 * others, 0 * others], -1),
            np.r_[0.0, math.log(0.5), _NONE, -_NONE, np.zeros(domains), np.full(domains, math.log(_GAMMA))],
        )

    def prior(self, own: Index, domains: int) -> Prior:
        """Shrink transfers to 0 (to 1 where no domain is the target's own), exponents to one another and to 0.7.

        log γ_j = g + d_j with g of spread 0.3 and d_j of 0.5, and d = 0 for the own domain.
        """
        size, outside = _FIXED + 2 * domains, own < 0
        transfers, exponents = slice(_FIXED, _FIXED + domains), slice(_FIXED + domains, size)
        mean, precision = np.zeros((len(own), size)), np.zeros((len(own), size, size))
        mean[:, transfers], mean[:, exponents] = outside[:, None], math.log(_GAMMA)
        spread = np.where(outside, _OUTSIDE_SPREAD, _SPREAD)
        precision[:, transfers, transfers] = np.eye(domains) / spread[:, None, None] ** 2
        apart = 1 - one_hot(own, domains)
        covariance = _GAMMA_SPREAD**2 + _OWN_GAMMA_SPREAD**2 * apart[:, :, None] * np.eye(domains)
        precision[:, exponents, exponents] = np.linalg.inv(covariance)
        return Prior(mean, precision)

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Volumes for β and B; mixtures for the rest, where the prior supplies what they don't."""
        varied = mixtures >= 2
        return np.asarray(np.r_[True, volumes >= 3, volumes >= 2, np.full(1 + 2 * domains, varied)])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return E, β, B = b s₀^β, and C and γ of each domain."""
        count = len(domains)
        beta = math.exp(theta[1])
        hot = np.arange(count) == own
        c = np.exp(theta[3]) * (theta[_FIXED : _FIXED + count] + hot)
        gamma = np.exp(theta[_FIXED + count :])
        result = {
            "E": math.exp(theta[0]),
            "beta": beta,
            "B": math.exp(theta[2] + beta * math.log(scale)) if theta[2] > _NONE else 0.0,
        }
        result |= {f"C[{d}]": float(v) for d, v in zip(domains, c, strict=True)}
        return result | {f"gamma[{d}]": float(v) for d, v in zip(domains, gamma, strict=True)}

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of what `report` returned."""
        c = np.array([parameters[f"C[{d}]"] for d in domains])
        # For a target outside, C is what draws the t_j nearest to 1, where the prior has it; all above their bound.
        unit = c[own] if own >= 0 else (c**2).sum() / c.sum()
        if own < 0 < c.min():
            unit = min(unit, c.min() / _OUTSIDE_LEAST)
        beta, b = parameters["beta"], parameters["B"]
        fixed = [
            math.log(parameters["E"]),
            math.log(beta),
            math.log(b) - beta * math.log(scale) if b > 0 else _NONE,
            math.log(unit),
        ]
        log_gamma = np.log([parameters[f"gamma[{d}]"] for d in domains])
        return np.asarray(np.r_[fixed, c / unit - (np.arange(len(domains)) == own), log_gamma])
