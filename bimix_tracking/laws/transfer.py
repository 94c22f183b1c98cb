"""BiMix in an effective share: other domains teach the target too, each by its transfer t_ij ≥ 0.

    L_i(r, s) = (r_i + Σ_j t_ij r_j)^(−α_i) · (B_i / s^β_i + C_i)

With t = 0 it is BiMix (arXiv 2405.14908v4, Eq. 3). The transfers are shrunk towards 0, so a few runs don't invent
any. θ = (log β, log b, log c, α, t_1 … t_k), the target's own t held at 0.

A target outside the mixtures has no own share: its effective share is ε + Σ_j t_j r_j, with ε the proportion floor.
Alike transfers say that the mixture doesn't matter, so they are shrunk to 1 rather than 0. That is their unit too, for
only t_j / t_k and the level are identifiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws import volume
from bimix_tracking.laws.bimix import BiMix, power_bend
from bimix_tracking.laws.protocol import (
    Array,
    Blocks,
    Box,
    ByShare,
    Index,
    Inputs,
    Prior,
    Traits,
    one_hot,
    script_beside,
)

_SPREAD = 0.3
"""Standard deviation of a transfer before anything is seen: a share elsewhere is worth a third of an own one."""
_OUTSIDE_SPREAD = 3.0
"""Of a target outside, whose domains teach it as differently as a share is worth to its own target and to another."""
_START = 0.1
_MOST = 10.0
_STEEPEST = 1.0
"""Largest α. A steeper power is made of transfers that differ little; at a proportion of 0 it would explode."""
_FLATTEST = 0.01
"""Smallest α of a target outside: alike transfers say that the mixture doesn't matter, an α of 0 would say it twice."""
_ALPHAS, _BETAS = (0.1, 0.3, 0.9), (0.1, 0.3, 0.5, 0.8, 1.2)
_RIDGE = 0.1
"""Of the mean square of proportions, which steadies the slopes that a target outside starts from."""


class Transfer:
    """BiMix with an effective share; t_ij is how much of j's share counts as i's own."""

    name = "transfer"
    formula = "L_i(r, s) = (r_i + sum_j t_ij r_j)^-alpha_i * (B_i / s^beta_i + C_i); s in tokens, L in nats per token"
    traits = Traits(
        effect=3,
        watched=BiMix.traits.watched,
        fine_at={**BiMix.traits.fine_at, ("alpha", "low"): "fine", ("alpha", "high"): "fine"},
        mixtures_needed=4,
        needs_own=False,
        infinite_at_zero=True,
    )
    _plain = BiMix()

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return α, β, B, C and a transfer a domain."""
        return (*self._plain.parameters(domains), *(f"t[{d}]" for d in domains))

    def _effective(self, theta: Array, own: Index, x: Inputs) -> Array:
        """Return r_i + Σ t_j r_j, with the proportion floor for the r_i of a target outside; (problems, mixtures)."""
        return np.where(own[:, None] < 0, x.floor, x.own_share(own)) + x.along(theta[:, 4:])

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        """Return −α log(r_i + Σ t_j r_j) + log(b u^−β + c) and its derivatives."""
        effective = self._effective(theta, own, x)
        alpha, log_share = theta[:, 3:4], np.log(effective)
        level, slopes = volume.power(theta, x)
        mixture = np.empty((*effective.shape, theta.shape[1] - 3))
        mixture[..., 0] = -log_share
        np.multiply((-alpha / effective)[..., None], x.shares, out=mixture[..., 1:])
        return Blocks(level - (alpha * log_share)[..., None], None, slopes, mixture)

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope −α (1_i + t) / (r_i + Σ t_j r_j)."""
        effective, alpha = self._effective(theta, own, x), theta[:, 3:4]
        slope = -alpha / effective
        domains = x.shares.shape[-1]
        return ByShare(
            log_loss=volume.power(theta, x)[0][..., 0] - alpha * np.log(effective),
            gradient=slope[..., None] * (theta[:, 4:] + one_hot(own, domains))[:, None, :],
            factor=power_bend(alpha) * np.ones_like(slope),
            diagonal=np.zeros((*slope.shape, domains)),
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return BiMix's, with a little transfer from everywhere; of targets outside those of `_outside`."""
        plain = self._plain.starts(own, x, log_loss, weight)
        found = np.concatenate([plain, np.full((*plain.shape[:2], x.shares.shape[-1]), _START)], axis=-1)
        outside = own < 0
        if outside.any():
            found[outside] = self._outside(x, log_loss[outside], weight[outside])
        return found

    @staticmethod
    def _outside(x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return a grid in (α, β), with the transfers whose slopes at the mean mixture are those of the log losses."""
        counts = (weight > 0).sum(-1).astype(float)
        level = np.where(weight > 0, log_loss, 0.0).sum(-1) / np.maximum(counts, 1)
        present = (counts > 0)[..., None]
        number = np.maximum(present.sum(1), 1)
        mean = (present * x.shares).sum(1) / number
        apart = present * (x.shares - mean[:, None])
        square = np.swapaxes(apart, 1, 2) @ apart
        domains = x.shares.shape[-1]
        ridge = _RIDGE * np.maximum(np.einsum("pjj->p", square) / domains, 1e-12)
        slopes = np.linalg.solve(
            square + ridge[:, None, None] * np.eye(domains), np.swapaxes(apart, 1, 2) @ level[..., None]
        )[..., 0]
        thetas = []
        for alpha in _ALPHAS:
            transfers = np.clip(1 - slopes / alpha, 0.1, _MOST)
            transfers = np.clip(transfers / (mean * transfers).sum(-1, keepdims=True), 0.0, _MOST)
            effective = np.log(x.floor + x.along(transfers))[..., None]
            for beta in _BETAS:
                rest = volume.linear_start(beta, np.exp(log_loss + alpha * effective), x, weight)
                thetas.append(np.concatenate([rest, np.full((len(rest), 1), alpha), transfers], -1))
        return np.stack(thetas, axis=1)

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        """Return BiMix's, and t ≥ 0; held: no transfer."""
        plain = self._plain.box(own, x, log_loss, weight)
        others = 1 - one_hot(own, x.shares.shape[-1])
        lower, upper = plain.lower.copy(), plain.upper.copy()
        lower[own < 0, 3], upper[:, 3] = _FLATTEST, _STEEPEST
        return Box(
            np.concatenate([lower, 0 * others], -1),
            np.concatenate([upper, _MOST * others], -1),
            np.r_[plain.held, np.zeros(others.shape[-1])],
        )

    def prior(self, own: Index, domains: int) -> Prior:
        """Shrink each transfer to 0, to 1 where no domain is the target's own."""
        outside = own < 0
        mean, precision = np.zeros((len(own), 4 + domains)), np.zeros((len(own), 4 + domains, 4 + domains))
        mean[:, 4:] = outside[:, None]
        spread = np.where(outside, _OUTSIDE_SPREAD, _SPREAD)
        precision[:, 4:, 4:] = np.eye(domains) / spread[:, None, None] ** 2
        return Prior(mean, precision)

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """As BiMix; the prior supplies a transfer that the data don't identify."""
        plain = self._plain.identifiable(shares, mixtures, volumes, domains)
        enough = mixtures >= self.traits.mixtures_needed and bool(plain[self.traits.effect])
        return np.asarray(np.r_[plain, np.full(domains, enough)])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return α, β, B, C and the transfers."""
        transfers = {f"t[{d}]": t for d, t in zip(domains, theta[4:].tolist(), strict=True)}
        return self._plain.report(theta[:4], scale, own, domains) | transfers

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of what `report` returned."""
        return np.asarray(
            np.r_[self._plain.internal(parameters, scale, own, domains), [parameters[f"t[{d}]"] for d in domains]]
        )
