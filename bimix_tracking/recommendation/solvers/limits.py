"""Limits on single losses, relative to what the same law says of a reference; and the loss to be minimised with them.

    L_i(r, s) ≤ limit_i(L_i(reference, s)) − margin_i − tilt_i · (r − reference)

A replicate's limits are relative to its own prediction, so that what both mixtures share cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.recommendation.solvers.measuring import Measured
from bimix_tracking.recommendation.solvers.objective import WeightedLoss

_LOG_FLOOR = 1e-10

Rule = Callable[[Array], Array]
"""Losses on the reference → the largest losses allowed; working losses, as the laws have them."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Limit:
    """The limit on one target.

    Args:
        target: Its name.
        rule: What is allowed, by the loss on the reference.
        margin: So much less is allowed than that, in the unit of the working loss.
        tilt: How much the margin grows with each proportion, shape (domains,); None: not at all.
    """

    target: str
    rule: Rule
    margin: float = 0.0
    tilt: Array | None = None


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits on targets, and the mixture that they are relative to.

    Args:
        each: The limits; of two on one target the lower one counts.
        reference: Its proportions, shape (domains,).
    """

    each: tuple[Limit, ...]
    reference: Array

    def largest(self, fit: LawFit, tokens: float, theta: Mapping[str, Array] | None = None) -> Array:
        """Return the largest losses allowed, shape (versions, limits)."""
        loss = self.losses(fit, tokens, theta)
        versions = np.arange(len(loss.known))
        at = loss.each(np.tile(self.reference, (len(versions), 1)), versions).value
        columns = [loss.targets.index(limit.target) for limit in self.each]
        allowed = [limit.rule(at[:, column]) - limit.margin for limit, column in zip(self.each, columns, strict=True)]
        return np.stack(allowed, -1) if allowed else np.empty((len(versions), 0))

    @property
    def tilts(self) -> Array:
        """How much each margin grows with each proportion, shape (limits, domains)."""
        none = np.zeros_like(self.reference)
        return np.stack([none if limit.tilt is None else limit.tilt for limit in self.each])

    def margins(self, shares: Array) -> Array:
        """Return the margins at a mixture, shape (limits,)."""
        return np.array([limit.margin for limit in self.each]) + self.tilts @ (shares - self.reference)

    def losses(self, fit: LawFit, tokens: float, theta: Mapping[str, Array] | None = None) -> WeightedLoss:
        """Return the limited targets' losses."""
        return WeightedLoss(fit, tokens, {limit.target: 1.0 for limit in self.each}, theta=theta, sloped=True)


Change = Literal["tv", "kl"]
"""How far a mixture is from another: total variation, ½ Σ |r − near|, or divergence, Σ r log(r / near)."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Near:
    """How far a mixture may be from another one.

    Args:
        shares: The other one, shape (domains,).
        radius: The largest distance: a proportion, or nats.
        change: How it is measured.
    """

    shares: Array
    radius: float
    change: Change = "tv"


class GuardedLoss:
    """F(r) = Σ_i w_i L_i (+ κ KL from a prior), and how far losses are from their limits, relative to these.

    A divergence from a mixture that is limited is one more guard, the last: (ε − KL(r ‖ near)) / ε.

    Args:
        fit: The fit.
        tokens: s.
        weights: By target.
        targets: Whose losses are limited, one a guard.
        largest: What is allowed of each, shape (problems, guards); infinite: no limit there.
        versions: Which version of the law each problem has, shape (problems,).
        theta: As in `WeightedLoss`.
        prior: p and κ; None: none.
        tilts: How much less is allowed of each with each proportion, shape (problems, guards, domains), from where;
            None: not at all.
        divergence: The mixture, shape (domains,), and ε of each problem, shape (problems,); None: none.
        aim: Shape (problems, domains): minimise this weighted sum of the proportions instead, and hold F below
            `ceiling`, shape (problems,).
        ceiling: See `aim`.
    """

    def __init__(
        self,
        fit: LawFit,
        tokens: float,
        weights: Mapping[str, float],
        targets: tuple[str, ...],
        largest: Array,
        versions: Index,
        *,
        theta: Mapping[str, Array] | None = None,
        prior: tuple[Array, float] | None = None,
        tilts: tuple[Array, Array] | None = None,
        divergence: tuple[Array, Array] | None = None,
        aim: Array | None = None,
        ceiling: float = np.inf,
    ) -> None:
        both = {t: 1.0 for t in fit.targets if weights.get(t, 0.0) > 0 or t in targets}
        self._loss = WeightedLoss(fit, tokens, both, theta=theta, sloped=True)
        self._weight = np.array([weights.get(t, 0.0) for t in self._loss.targets])
        self._columns = np.array([self._loss.targets.index(t) for t in targets], np.intp)
        self._largest, self._prior, self._divergence, self._tilts = largest, prior, divergence, tilts
        self._aim, self._ceiling = aim, ceiling
        self._versions = versions

    def __call__(self, shares: Array, which: Index) -> Measured:
        """Return value and room of mixture n in problem `which[n]`."""
        version = self._versions[which]
        each = self._loss.each(shares, version)
        weight, columns, domains = self._weight, self._columns, shares.shape[1]
        value, gradient = each.value @ weight, (weight @ each.slope)
        curved = np.zeros((len(shares), domains))
        if self._prior is not None:
            value, gradient, curved = _divergence(shares, self._prior[0], self._prior[1], value, gradient)
        most = self._largest[which]
        unit = np.where(np.isfinite(most), np.abs(most), 1.0)
        room = (most - each.value[:, columns]) / unit
        slopes = each.slope[:, columns] / unit[..., None]
        if self._tilts is not None:
            tilt = self._tilts[0][which] / unit[..., None]
            room = room - (tilt @ (shares - self._tilts[1])[..., None])[..., 0]
            slopes = slopes + tilt
        more: list[tuple[Array, Array, Array]] = []
        if self._divergence is not None:
            near, radius = self._divergence[0], self._divergence[1][which]
            nothing = np.zeros(len(shares)), np.zeros_like(shares)
            away, steep, curve = _divergence(shares, near, 1.0, *nothing)
            more.append(((radius - away) / radius, steep / radius[:, None], curve / radius[:, None]))
        size = max(abs(self._ceiling), 1e-300)
        if self._aim is not None:
            room = np.concatenate([room, ((self._ceiling - value) / size)[:, None]], -1)
            slopes = np.concatenate([slopes, gradient[:, None] / size], 1)
        for extra, slope, _ in more:
            room = np.concatenate([room, extra[:, None]], -1)
            slopes = np.concatenate([slopes, slope[:, None]], 1)
        aim = None if self._aim is None else self._aim[which]

        def bend(z: Array, own: float) -> Array:
            objective = np.full(len(z), own) if aim is None else z[:, len(columns)] / size
            multipliers = objective[:, None] * weight
            np.add.at(multipliers.T, columns, (z[:, : len(columns)] / unit).T)
            result = each.bend(multipliers)
            diagonal = np.arange(domains)
            result[:, diagonal, diagonal] += objective[:, None] * curved
            for place, (_, _, bends) in enumerate(reversed(more)):
                result[:, diagonal, diagonal] += z[:, -1 - place, None] * bends
            return result

        if aim is not None:
            return Measured((aim * shares).sum(-1), aim, room, slopes, bend)
        return Measured(value, gradient, room, slopes, bend)


def _divergence(
    shares: Array, near: Array, strength: float, value: Array, gradient: Array
) -> tuple[Array, Array, Array]:
    """Return values, slopes and diagonal bends with κ Σ r log(r / near) added; what `near` lacks is at 0, by the box.

    Below a floor it goes on as a parabola, for its slope at 0 has no end.
    """
    has: npt.NDArray[np.bool_] = near > 0
    kept, under = np.maximum(shares, _LOG_FLOOR), np.minimum(shares - _LOG_FLOOR, 0.0)
    log_ratio = np.log(kept / np.where(has, near, 1.0))
    of = kept * log_ratio + under * (log_ratio + 1 + under / kept / 2)
    return (
        value + strength * (of * has).sum(-1),
        gradient + strength * (log_ratio + 1 + under / kept) * has,
        strength * has / kept,
    )
