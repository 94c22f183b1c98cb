"""The mixture of least weighted loss within constraints, of a fit and of each of its replicates.

    minimise  Σ_i w_i L_i(r, s) + κ Σ_j r_j log(r_j / p_j)   subject to  Σ r = 1, lower ≤ r ≤ upper
                                                                         (arXiv 2405.14908v4, Eq. 15–16, κ = 0)

BiMix without a prior mixture has a closed form: with K_i = B_i / s^β_i + C_i the gradient in r_i is
−w_i α_i K_i r_i^(−α_i − 1), which is −λ for every domain off its bounds, so r_i(λ) = (w_i α_i K_i / λ)^(1 / (1 + α_i)),
cut to the bounds, and λ is the one number that makes them sum to 1. The other laws, and a prior, are minimised by
Newton steps on the simplex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.constraints import Constraints
from bimix_tracking.recommendation.objective import WeightedLoss
from bimix_tracking.recommendation.sqp import SimplexMinimum, kkt, minimize_on_simplex, onto_simplex

_NO_FLOOR = 1e-12
"""The optimum is sought in the law itself: its floor of small proportions would be a plateau without a slope."""
_SAME = 1e-6
AT_BOUND = 1e-9
"""A share this close to a bound is at it."""
_NO_PULL = -400.0
"""log(w α K) of a domain whose loss doesn't fall with its proportion: it gets what nobody else may have."""
_NOTHING = 1e-30
_HALVINGS = 80
_MOST_LEANING = 6


@dataclass(frozen=True)
class Problem:
    """What is minimised, and where.

    Args:
        fit: The fitted law.
        tokens: Data volume s.
        weights: Of the targets, w.
        box: Lower and upper proportions.
        prior: p, the mixture to stay near; None: none.
        strength: κ, nats of weighted loss per nat of Kullback–Leibler divergence from the prior.
    """

    fit: LawFit
    tokens: float
    weights: Mapping[str, float]
    box: Constraints
    prior: Mixture | None = None
    strength: float = 0.0

    def loss(self, theta: Mapping[str, Array] | None = None) -> WeightedLoss:
        """Return Σ w L of the fit, or of its replicates."""
        return WeightedLoss(self.fit, self.tokens, self.weights, theta=theta, floor=_NO_FLOOR)

    def minimum(self, starts: Sequence[Array]) -> tuple[SimplexMinimum, tuple[int, int]]:
        """Return the fit's optimum, and how many starts ended there, of how many.

        Args:
            starts: Mixtures to start from beside equal parts and mixtures that lean to one domain.
        """
        if self._closed:
            return self._filled(None, self.box.lower, self.box.upper), (1, 1)
        several = self._starts(starts)
        found = self._newton(None, several, np.zeros(len(several), np.intp), self.box.lower, self.box.upper)
        best = int(found.value.argmin())
        agree = int((found.value <= found.value[best] + _SAME * (1 + abs(found.value[best]))).sum())
        only = slice(best, best + 1)
        return SimplexMinimum(found.shares[only], found.value[only], found.kkt_residual[only]), (agree, len(several))

    def minima(self, theta: Mapping[str, Array], start: Array) -> SimplexMinimum:
        """Return each replicate's optimum, from the fit's.

        Args:
            theta: As in `Replicates`, only finite.
            start: Shape (domains,).
        """
        if self._closed:
            return self._filled(theta, self.box.lower, self.box.upper)
        count = len(next(iter(theta.values())))
        return self._newton(theta, np.tile(start, (count, 1)), np.arange(count), self.box.lower, self.box.upper)

    def prices(self, shares: Array) -> Array:
        """Return what a unit more of each proportion would win, nats, the other free ones giving way; 0 off the bounds.

        Args:
            shares: The optimum, shape (domains,).
        """
        gradient = self.loss()(shares[None], np.zeros(1, np.intp))[1][0]
        if self.prior is not None and self.strength > 0:
            prior = self.prior.array(self.fit.domains)
            ratio = np.maximum(shares, _NO_FLOOR) / np.where(prior > 0, prior, 1.0)
            gradient = gradient + self.strength * (np.log(ratio) + 1) * (prior > 0)
        free = (shares > self.box.lower + AT_BOUND) & (shares < self.box.upper - AT_BOUND)
        common = float(gradient[free].mean()) if free.any() else float(np.median(gradient))
        return np.asarray(common - gradient)

    def held_at(self, places: Index, values: Array, start: Array) -> SimplexMinimum:
        """Return the fit's optima with one domain's proportion held in each.

        Args:
            places: Which domain, shape (n,).
            values: At what, shape (n,).
            start: Shape (n, domains).
        """
        each = np.arange(len(places))
        lower, upper = (np.tile(side, (len(places), 1)) for side in (self.box.lower, self.box.upper))
        lower[each, places] = upper[each, places] = values
        if self._closed:
            return self._filled(None, lower, upper)
        return self._newton(None, start, np.zeros(len(places), np.intp), lower, upper)

    @cached_property
    def _closed(self) -> bool:
        power = not self.fit.members and find_law(self.fit.law).traits.power_of_own
        return power and (self.prior is None or self.strength == 0)

    def _starts(self, starts: Sequence[Array]) -> Array:
        count = len(self.fit.domains)
        even = np.full(count, 1 / count)
        leaning = [
            np.where(np.arange(count) == i, 0.5, 0.5 / max(count - 1, 1)) for i in range(min(count, _MOST_LEANING))
        ]
        # A start on the edge has a law's slope without an end.
        return np.stack([0.98 * start + 0.02 * even for start in (even, *starts, *leaning)])

    def _newton(
        self, theta: Mapping[str, Array] | None, starts: Array, which: Index, lower: Array, upper: Array
    ) -> SimplexMinimum:
        loss = self.loss(theta)
        prior = self.prior.array(self.fit.domains) if self.prior is not None and self.strength > 0 else None

        def objective(shares: Array, problems: Index) -> tuple[Array, Array, Array]:
            value, gradient, bend = loss(shares, which[problems])
            if prior is not None:
                # What the prior has nothing of is at 0, by the box.
                log_ratio = np.log(np.maximum(shares, _NO_FLOOR) / np.where(prior > 0, prior, 1.0)) * (prior > 0)
                value = value + self.strength * (shares * log_ratio).sum(-1)
                gradient = gradient + self.strength * (log_ratio + 1)
                diagonal = np.arange(len(prior))
                bend[:, diagonal, diagonal] += self.strength / np.maximum(shares, _NO_FLOOR)
            return value, gradient, bend

        return minimize_on_simplex(objective, lower, upper, starts)

    def _filled(self, theta: Mapping[str, Array] | None, lower: Array, upper: Array) -> SimplexMinimum:
        """Return BiMix's optima: one scalar each, found by halving."""
        loss = self.loss(theta)
        alpha, level = loss.power_law()
        falls = (alpha > 0) & (level > 0)
        pull = np.where(falls, np.log(np.where(falls, alpha * level, 1.0)), _NO_PULL)
        shares = _fill(pull, 1 / (1 + np.maximum(alpha, 0.0)), lower, upper)
        value = (level * np.maximum(shares, _NO_FLOOR) ** -alpha).sum(-1)
        gradient = -alpha * level * np.maximum(shares, _NO_FLOOR) ** -(1 + alpha)
        return SimplexMinimum(shares, value, kkt(shares, gradient, lower, upper))


def _fill(pull: Array, power: Array, lower: Array, upper: Array) -> Array:
    """Return r = cut(exp((pull − log λ) power), lower, upper) with the λ at which Σ r = 1.

    Args:
        pull: Shape (n, domains).
        power: Likewise, above 0.
        lower: Shape (domains,) or (n, domains).
        upper: Likewise.
    """

    def shares(log_lambda: Array) -> Array:
        return np.clip(np.exp(np.minimum((pull - log_lambda) * power, 1.0)), lower, upper)

    # Every domain is at most 1 at the largest pull, and at least 1 at the smallest.
    high, low = pull.max(-1, keepdims=True) + 40.0 / power.min(), pull.min(-1, keepdims=True) - 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        much = shares(middle).sum(-1, keepdims=True) > 1
        low, high = np.where(much, middle, low), np.where(much, high, middle)
    found = shares((low + high) / 2)
    return onto_simplex(np.where(found < _NOTHING, lower, found), lower, upper)
