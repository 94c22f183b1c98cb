"""BiMix: a power law in the domain's own proportion, times one in the data volume with a floor.

    L_i(r_i, s) = A_i / r_i^α_i · (B_i / s^β_i + C_i)                      (arXiv 2405.14908v4, Eq. 3)

Only A·B and A·C enter, so A = 1 here and B, C stand for A·B, A·C. In the scaled volume u = s / s₀,

    log L = −α log r + log(b u^−β + c),    b = B s₀^−β,  c = C,    θ = (log β, log b, log c, α).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws import volume
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
    one_hot,
    script_beside,
)

_ALPHAS = (0.02, 0.1, 0.4)
_BETAS = (0.1, 0.3, 0.5, 0.8, 1.2)


class BiMix:
    """The law of Eq. 3 with A = 1; units of B: nats · tokens^β, of C: nats (both per token)."""

    name = "bimix"
    formula = "L_i(r_i, s) = r_i^-alpha_i * (B_i / s^beta_i + C_i), A = 1; s in tokens, L in nats per token"
    traits = Traits(
        effect=3,
        watched=MappingProxyType({"alpha": 3, "beta": 0, "B": 1, "C": 2}),
        fine_at=MappingProxyType({("C", "low"): "no floor"}),
        mixtures_needed=2,
        needs_own=True,
        infinite_at_zero=True,
        own_only=True,
        power_of_own=True,
    )

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return α, β, B and C."""
        return "alpha", "beta", "B", "C"

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        """Return −α log r + log(b u^−β + c) and its derivatives."""
        log_share = np.log(x.own_share(own))
        level, slopes = volume.power(theta, x)
        return Blocks(level - (theta[:, 3:] * log_share)[..., None], None, slopes, -log_share[..., None])

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope −α / r in the own domain, 0 in the others."""
        share, alpha = x.own_share(own), theta[:, 3:]
        slope = -alpha / share
        return ByShare(
            log_loss=volume.power(theta, x)[0][..., 0] - alpha * np.log(share),
            gradient=slope[..., None] * one_hot(own, x.shares.shape[-1])[:, None, :],
            factor=power_bend(alpha) * np.ones_like(slope),
            diagonal=np.zeros((*slope.shape, x.shares.shape[-1])),
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return a grid in (α, β); given those the law is linear in b and c, which least squares then gives."""
        log_share = np.log(x.own_share(own))[..., None]
        thetas = []
        for alpha in _ALPHAS:
            level = np.exp(log_loss + alpha * log_share)  # L r^α = b u^−β + c
            for beta in _BETAS:
                rest = volume.linear_start(beta, level, x, weight)
                thetas.append(np.concatenate([rest, np.full((len(rest), 1), alpha)], -1))
        return np.stack(thetas, axis=1)

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        """Return a box wide enough that only a parameter the data don't ask for gets to its side.

        Held: b u^−β almost constant, no floor, no dependence on the share.
        """
        low, high = loss_range(log_loss, weight)
        lower = np.tile([volume.LOG_BETA[0], 0, 0, -2.0], (len(low), 1))
        upper = np.tile([volume.LOG_BETA[1], 0, 0, 5.0], (len(low), 1))
        lower[:, 1:3], upper[:, 1:3] = (low - 14)[:, None], (high + 7)[:, None]
        return Box(lower, upper, np.array([*volume.held(), 0.0]))

    def prior(self, own: Index, domains: int) -> Prior:
        """Return nothing: four parameters need no shrinking."""
        return Prior(np.zeros((len(own), 4)), np.zeros((len(own), 4, 4)))

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Two distinct shares for α; two volumes for a power of s, a third for its floor beside it."""
        return np.array([*volume.identifiable(volumes), shares >= 2])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return α, β, B = b s₀^β and C."""
        return {"alpha": float(theta[3]), **volume.report(theta[:3], scale)}

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of α, β, B and C."""
        p = parameters
        return np.array([*volume.internal(p["beta"], p["B"], p["C"], scale), p["alpha"]])


def power_bend(alpha: Array) -> Array:
    """Return q of r^−α: its second derivative is α (α + 1) r^−α−2 = q (α r^−α−1)² / r^−α with q = (α + 1) / α."""
    return np.where(alpha == 0, 0.0, (1 + alpha) / np.where(alpha == 0, 1.0, alpha))
