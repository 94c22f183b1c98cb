"""BiMix in an effective share: other domains teach the target too, each by its transfer t_ij ≥ 0.

    L_i(r, s) = (r_i + Σ_j t_ij r_j)^(−α_i) · (B_i / s^β_i + C_i)

With t = 0 it is BiMix (arXiv 2405.14908v4, Eq. 3). The transfers are shrunk towards 0, so a few runs don't invent
any. θ = (α, log β, log b, log c, t_1 … t_k), the target's own t held at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws import volume
from bimix_tracking.laws.bimix import BiMix, power_bend
from bimix_tracking.laws.protocol import Array, ByShare, Index, Inputs, one_hot, script_beside

_SPREAD = 0.3
"""Standard deviation of a transfer before anything is seen: a share elsewhere is worth a third of an own one."""
_START = 0.1
_MOST = 10.0


class Transfer:
    """BiMix with an effective share; t_ij is how much of j's share counts as i's own."""

    name = "transfer"
    formula = "L_i(r, s) = (r_i + sum_j t_ij r_j)^-alpha_i * (B_i / s^beta_i + C_i); s in tokens, L in nats per token"
    mixtures_needed = 4
    needs_own = True
    infinite_at_zero = True
    own_only = False
    power_of_own = False
    effect = 0
    watched: Mapping[str, int] = MappingProxyType({"alpha": 0, "beta": 1, "B": 2, "C": 3})
    fine_at: Mapping[tuple[str, str], str] = MappingProxyType({("C", "low"): "no floor"})
    _plain = BiMix()

    @property
    def page_script(self) -> str:
        """The file beside this one."""
        return script_beside(__file__)

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return α, β, B, C and a transfer a domain."""
        return (*self._plain.parameters(domains), *(f"t[{d}]" for d in domains))

    def _effective(self, theta: Array, own: Index, x: Inputs) -> Array:
        return x.own_share(own) + x.along(theta[:, 4:])

    def evaluate(self, theta: Array, own: Index, x: Inputs) -> tuple[Array, Array]:
        """Return −α log(r_i + Σ t_j r_j) + log(b u^−β + c) and its derivatives."""
        effective = self._effective(theta, own, x)
        alpha, log_share = theta[:, :1], np.log(effective)
        level, slopes = volume.power(theta[:, 1:4], x)
        of_mixture = np.concatenate([-log_share[..., None], (-alpha / effective)[..., None] * x.shares], axis=-1)
        jacobian = np.empty((len(theta), len(x.mixture), theta.shape[1]))
        by_point = of_mixture[:, x.mixture]
        jacobian[..., 0], jacobian[..., 4:] = by_point[..., 0], by_point[..., 1:]
        jacobian[..., 1:4] = slopes[:, x.volume]
        return level[:, x.volume] - (alpha * log_share)[:, x.mixture], jacobian

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return the slope −α (1_i + t) / (r_i + Σ t_j r_j)."""
        effective, alpha = self._effective(theta, own, x), theta[:, :1]
        level = volume.power(theta[:, 1:4], x)[0]
        slope = (-alpha / effective)[:, x.mixture]
        domains = x.shares.shape[-1]
        return ByShare(
            log_loss=level[:, x.volume] - (alpha * np.log(effective))[:, x.mixture],
            gradient=slope[..., None] * (theta[:, 4:] + one_hot(own, domains))[:, None, :],
            factor=power_bend(alpha) * np.ones_like(slope),
            diagonal=np.zeros((*slope.shape, domains)),
        )

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return BiMix's, with a little transfer from everywhere."""
        plain = self._plain.starts(own, x, log_loss, weight)
        return np.concatenate([plain, np.full((*plain.shape[:2], x.shares.shape[1]), _START)], axis=-1)

    def bounds(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> tuple[Array, Array]:
        """Return BiMix's, and t ≥ 0."""
        lower, upper = self._plain.bounds(own, x, log_loss, weight)
        others = 1 - one_hot(own, x.shares.shape[1])
        return np.concatenate([lower, 0 * others], -1), np.concatenate([upper, _MOST * others], -1)

    def prior(self, own: Index, domains: int) -> tuple[Array, Array]:
        """Shrink each transfer to 0."""
        precision = np.diag(np.r_[np.zeros(4), np.full(domains, _SPREAD**-2)])
        return np.zeros((len(own), 4 + domains)), np.tile(precision, (len(own), 1, 1))

    def told(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """As BiMix; the prior tells a transfer that the data don't."""
        plain = self._plain.told(shares, mixtures, volumes, domains)
        return np.asarray(np.r_[plain, np.full(domains, mixtures >= self.mixtures_needed and bool(plain[0]))])

    def held(self, domains: int) -> Array:
        """As BiMix, no transfer."""
        return np.asarray(np.r_[self._plain.held(domains), np.zeros(domains)])

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return α, β, B, C and the transfers."""
        transfers = {f"t[{d}]": t for d, t in zip(domains, theta[4:].tolist(), strict=True)}
        return self._plain.report(theta[:4], scale, own, domains) | transfers

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of what `report` returned."""
        return np.asarray(
            np.r_[self._plain.internal(parameters, scale, own, domains), [parameters[f"t[{d}]"] for d in domains]]
        )
