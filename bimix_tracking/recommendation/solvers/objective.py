"""What is minimised: the weighted sum of a fit's losses at one data volume, with its slope and bend in the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import level_at, raised
from bimix_tracking.laws.protocol import Array, ByShare, Index, Inputs, Law
from bimix_tracking.laws.registry import law as find_law

_HELD = 400_000
"""Numbers of one array held at once; more replicates than that are evaluated one part after another."""


_STEEP = 1e-6
"""A smaller proportion than this goes on straight in a law that is finite at 0, but for 0 itself."""


@dataclass(frozen=True)
class _Part:
    """One law of the sum, with its θ in each version: (versions, targets, parameters)."""

    law: Law
    theta: Array
    own: Index
    weight: Array
    scale: float
    floor: float
    domains: int

    @property
    def alone(self) -> bool:
        """Whether it is asked for a target's own proportion alone: of many domains the others are most of the work."""
        return self.law.traits.own_only and bool((self.own >= 0).all())

    def of_own(self, values: Array, mixtures: int, targets: int) -> Array:
        """Return what `ByShare` says of the own proportions, (mixtures, targets)."""
        each = values.reshape(mixtures, targets, -1)
        return np.asarray(each[..., 0] if self.alone else each[:, np.arange(targets), self.own])

    def over_domains(self, values: Array, mixtures: int, targets: int) -> Array:
        """Return what `ByShare` says of all proportions, (mixtures, targets, domains)."""
        if not self.alone:
            return values.reshape(mixtures, targets, -1)
        result = np.zeros((mixtures, targets, self.domains))
        result[:, np.arange(targets), self.own] = self.of_own(values, mixtures, targets)
        return result


@dataclass(frozen=True)
class _BelowFloor:
    """A law's losses at own proportions x below the floor: L + L′ x + ½ L″ x², from what `ByShare` says at the floor.

    All of shape (mixtures, targets).

    Args:
        under: x, the own proportion less the floor; 0 above it.
        own: g of the own proportion.
        q: `ByShare.factor`.
        d: `ByShare.diagonal` of the own proportion.
        at_floor: L, as weighted.
    """

    under: Array
    own: Array
    q: Array
    d: Array
    at_floor: Array

    @property
    def value(self) -> Array:
        """L + L′ x + ½ L″ x² with L′ = L g and L″ = L (q g² + d)."""
        bend = self.q * self.own**2 + self.d
        return np.asarray(self.at_floor * (1 + self.under * (self.own + bend * self.under / 2)))

    def slope(self, part: _Part, g: Array) -> Array:
        """Return its slope in the proportions, (mixtures, targets, domains).

        Of another domain j: L g_j (1 + q g x + ½ (q (2q − 1) g² + d) x²), for q of a power law doesn't depend on r.

        Args:
            part: The law.
            g: `ByShare.gradient`, (mixtures, targets, domains).
        """
        x, own, q, d = self.under, self.own, self.q, self.d
        result = (self.at_floor * (1 + q * own * x + (q * (2 * q - 1) * own**2 + d) * x**2 / 2))[..., None] * g
        targets = np.flatnonzero(part.own >= 0)
        mine = self.at_floor * (own + (q * own**2 + d) * x)
        result[:, targets, part.own[targets]] = mine[:, targets]
        return np.asarray(result)


@dataclass(frozen=True)
class _Curved:
    """The bends of one law's losses, as weighted: of target i it is steep_i g_i g_iᵀ + diag(curved_i).

    Args:
        at: The targets' columns.
        g: Shape (n, its targets, domains).
        steep: Shape (n, its targets).
        curved: Shape (n, its targets, domains); None: 0.
    """

    at: Index
    g: Array
    steep: Array
    curved: Array | None


@dataclass(frozen=True)
class EachTarget:
    """The targets' losses at mixtures, one apart from the other: what guards are about.

    Args:
        value: w_i L_i, shape (n, targets).
        slope: Of each in the proportions, shape (n, targets, domains).
    """

    value: Array
    slope: Array
    _parts: tuple[_Curved, ...]

    def bend(self, multipliers: Array) -> Array:
        """Return Σ_i z_i ∂²(w_i L_i)/∂r∂rᵀ, positive semidefinite, shape (n, domains, domains).

        Args:
            multipliers: z, not below 0, shape (n, targets).
        """
        count, _, domains = self.slope.shape
        result = np.zeros((count, domains, domains))
        diagonal = np.arange(domains)
        for part in self._parts:
            z = multipliers[:, part.at]
            result += np.swapaxes(part.g * (z * part.steep)[..., None], 1, 2) @ part.g
            if part.curved is not None:
                result[:, diagonal, diagonal] += (z[..., None] * part.curved).sum(1)
        return result


class WeightedLoss:
    """F(r) = Σ_i w_i L_i(r, s), of a fit or of each of its replicates.

    Args:
        fit: The fit.
        tokens: s.
        weights: By target; a target that isn't named counts 0.
        theta: By law, θ of each version, shape (versions, targets, parameters), as in `Replicates`; None: the fit's.
        sloped: Below its proportion floor a law says one loss, whatever the proportion, and a search would be lost on
            that plateau: continue with the slope and the bend of the law at the floor, as the search for the optimum
            does. What is predicted of a mixture has the plateau.

    >>> from bimix_tracking.fitting.domain_fit import DomainFit
    >>> from bimix_tracking.fitting.outcome import Outcome
    >>> made = {"alpha": 0.5, "beta": 0.5, "B": 1e-9, "C": 1.0}
    >>> one = DomainFit(made, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.1, 0.9))
    >>> fit = LawFit("bimix", ("a", "b"), {"a": one, "b": one}, (1e6, 1e8), 1e7, 0.01, 1e-3, "", "")
    >>> loss = WeightedLoss(fit, 1e8, {"a": 1.0, "b": 1.0})
    >>> [part.round(3).tolist() for part in loss(np.array([[0.25, 0.75]]), np.array([0]))]
    [[3.155], [[-4.0, -0.77]], [[[24.0, 0.0], [0.0, 1.54]]]]
    """

    def __init__(
        self,
        fit: LawFit,
        tokens: float,
        weights: Mapping[str, float],
        *,
        theta: Mapping[str, Array] | None = None,
        sloped: bool = False,
    ) -> None:
        self._sloped = sloped
        self._tokens, self._domains = tokens, len(fit.domains)
        self._parts: list[_Part] = []
        self._columns: list[Index] = []
        self.targets = tuple(t for t in fit.targets if weights.get(t, 0.0) > 0)
        for name, law_fit in (fit.members or {fit.law: fit}).items():
            targets = list(law_fit.targets)
            share = {t: fit.targets[t].parameters.get(name, 0.0) if fit.members else 1.0 for t in fit.targets}
            level = {t: np.exp(level_at(levels, np.array([tokens]))[0]) for t, levels in fit.levels.items()}
            level |= {
                t: level.get(t, 1.0) * float(np.exp(raised(knots, np.array([tokens]))[0]))
                for t, knots in law_fit.raised.items()
            }
            used = [t for t in targets if t in share and weights.get(t, 0.0) * share[t] > 0]
            if not used:
                continue
            at = [targets.index(t) for t in used]
            self._columns.append(np.array([self.targets.index(t) for t in used], np.intp))
            own_theta = [law_fit.theta(t) for t in used] if theta is None else []
            fitted = [one for one in own_theta if one is not None]
            if len(fitted) < len(own_theta):
                raise ValueError("a target with weight was not fitted")
            self._parts.append(
                _Part(
                    law=find_law(law_fit.law),
                    theta=np.stack(fitted)[None] if theta is None else theta[name][:, at],
                    own=np.array([law_fit.own(t) for t in used], np.intp),
                    weight=np.array([weights[t] * share[t] * level.get(t, 1.0) for t in used]),
                    scale=law_fit.scale,
                    floor=law_fit.floor,
                    domains=len(fit.domains),
                )
            )

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which versions have every θ they need, shape (versions,)."""
        return np.asarray(np.all([np.isfinite(part.theta).all((1, 2)) for part in self._parts], axis=0))

    def __call__(self, shares: Array, which: Index) -> tuple[Array, Array, Array]:
        """Return F, its gradient and its bend, a positive semidefinite one, of mixture n in version `which[n]`.

        Shapes (n,), (n, domains) and (n, domains, domains). Where a law bends down, which no step could follow,
        the bend is omitted.
        """
        count, domains = shares.shape
        value, gradient, bend = np.zeros(count), np.zeros((count, domains)), np.zeros((count, domains, domains))
        size = max(1, _HELD // (domains * max(len(part.own) for part in self._parts)))
        diagonal = np.arange(domains)
        for begin in range(0, count, size):
            rows = slice(begin, begin + size)
            for part in self._parts:
                volume = np.full(len(shares[rows]), np.log(self._tokens))
                found, weighted, below = self._of(part, shares[rows], which[rows], volume)
                value[rows] += weighted.sum(-1)
                g = part.over_domains(found.gradient, *weighted.shape)
                if below is None:
                    slope = weighted[..., None] * g
                    steep = weighted * np.maximum(found.factor.reshape(weighted.shape), 0)
                else:
                    slope = below.slope(part, g)
                    steep = below.at_floor * np.maximum(below.q, 0)
                gradient[rows] += slope.sum(1)
                bend[rows] += np.swapaxes(g * steep[..., None], 1, 2) @ g
                if found.diagonal.any():
                    curved = np.maximum(part.over_domains(found.diagonal, *weighted.shape), 0)
                    bend[rows, diagonal, diagonal] += (weighted[..., None] * curved).sum(1)
        return value, gradient, bend

    def each(self, shares: Array, which: Index) -> EachTarget:
        """Return the addends of F, of mixture n in version `which[n]`; columns as in `targets`."""
        count, domains, targets = len(shares), self._domains, len(self.targets)
        value, slope = np.zeros((count, targets)), np.zeros((count, targets, domains))
        parts = []
        volume = np.full(count, np.log(self._tokens))
        for part, at in zip(self._parts, self._columns, strict=True):
            small = np.zeros(0)
            seen = shares
            if not (part.law.traits.infinite_at_zero or part.alone):
                # Near 0 a slope may have no end; its law cuts it, so value and slope would not be of one function.
                small = np.where(shares > 0, np.minimum(shares - _STEEP, 0.0), 0.0)
                seen = shares - small
            found, weighted, below = self._of(part, seen, which, volume)
            g = part.over_domains(found.gradient, *weighted.shape)
            factor = found.factor.reshape(weighted.shape) if below is None else below.q
            of = weighted if below is None else below.at_floor
            slopes = weighted[..., None] * g if below is None else below.slope(part, g)
            curved = None
            if found.diagonal.any():
                curved = of[..., None] * np.maximum(part.over_domains(found.diagonal, *weighted.shape), 0)
            if small.any():
                ahead = (g @ small[..., None])[..., 0]
                straight = (small < 0)[:, None, :]
                slopes = np.where(straight, slopes, slopes * (1 + factor * ahead)[..., None])
                weighted = weighted * (1 + ahead)
                curved = None if curved is None else np.where(straight, 0.0, curved)
            value[:, at] += weighted
            slope[:, at] += slopes
            parts.append(_Curved(at, g, of * np.maximum(factor, 0), curved))
        return EachTarget(value, slope, tuple(parts))

    def value(self, shares: Array, which: Index, tokens: Array) -> Array:
        """Return F of mixture n in version `which[n]` at data volume n, shape (n,).

        An ensemble's level is that of the volume the sum was made for: between two volumes only the laws speak.
        """
        result = np.zeros(len(shares))
        size = max(1, _HELD // (shares.shape[1] * max(len(part.own) for part in self._parts)))
        for begin in range(0, len(shares), size):
            rows = slice(begin, begin + size)
            for part in self._parts:
                result[rows] += self._of(part, shares[rows], which[rows], np.log(tokens[rows]))[1].sum(-1)
        return result

    def power_law(self) -> tuple[Array, Array]:
        """Return α_i and w_i K_i of w_i K_i r_i^−α_i, which each domain's part is in BiMix, (versions, domains)."""
        (part,) = self._parts
        versions = np.arange(len(part.theta))
        domains = self._domains
        found, weighted, _ = self._of(
            part, np.ones((len(versions), domains)), versions, np.log(self._tokens) + 0 * versions
        )
        alpha, level = np.zeros((len(versions), domains)), np.zeros((len(versions), domains))
        alpha[:, part.own] = -part.of_own(found.gradient, *weighted.shape)
        level[:, part.own] = weighted
        return alpha, level

    @property
    def floor(self) -> Array:
        """Proportion floor of each domain in the only law of a fit that has one: 0 elsewhere, shape (domains,)."""
        (part,) = self._parts
        floor = np.zeros(self._domains)
        floor[part.own[part.own >= 0]] = part.floor if part.law.traits.infinite_at_zero else 0.0
        return floor

    def _of(
        self, part: _Part, shares: Array, which: Index, log_tokens: Array
    ) -> tuple[ByShare, Array, _BelowFloor | None]:
        """Return a part's slopes, problems in the order (mixture, target), and its losses as weighted, (n, targets).

        Third, how it goes on below its floor; None where nothing is below it, or the plateau is what is asked for.
        """
        targets = len(part.own)
        seen = shares[:, part.own, None].reshape(-1, 1) if part.alone else np.repeat(shares, targets, axis=0)
        x = Inputs.each(seen, np.repeat(log_tokens - np.log(part.scale), targets)[:, None], part.floor)
        own = np.tile(0 * part.own if part.alone else part.own, len(shares))
        found = part.law.by_share(part.theta[which].reshape(len(x.shares), -1), own, x)
        weighted = np.exp(found.log_loss).reshape(len(shares), targets) * part.weight
        if not (self._sloped and part.law.traits.infinite_at_zero):
            return found, weighted, None
        under = np.where(part.own >= 0, np.minimum(shares[:, part.own] - part.floor, 0.0), 0.0)
        if not under.any():
            return found, weighted, None
        slope, curved = (part.of_own(one, *weighted.shape) for one in (found.gradient, found.diagonal))
        below = _BelowFloor(under, slope, found.factor.reshape(weighted.shape), curved, weighted)
        return found, below.value, below
