"""The mixture of least weighted loss within constraints, of a fit and of each of its replicates.

    minimise  Σ_i w_i L_i(r, s) + κ Σ_j r_j log(r_j / p_j)   subject to  Σ r = 1, lower ≤ r ≤ upper
                                                                         (arXiv 2405.14908v4, Eq. 15–16, κ = 0)

    with guards: L_i(r, s) ≤ limit_i;  with a largest change: ½ Σ |r − near| ≤ ε, or KL(r ‖ near) ≤ ε

BiMix without a prior mixture has a closed form: with K_i = B_i / s^β_i + C_i the gradient in r_i is
−w_i α_i K_i r_i^(−α_i − 1), which is −λ for every domain off its bounds, so r_i(λ) = (w_i α_i K_i / λ)^(1 / (1 + α_i)),
cut to the bounds, and λ is the one number that makes them sum to 1. The other laws, and a prior, are minimised by
Newton steps on the simplex; with guards or a largest change, by an interior-point method.
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
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.constraints import Constraints
from bimix_tracking.recommendation.solvers.filling import filled
from bimix_tracking.recommendation.solvers.guarded import GuardedMinimum, minimize_within, nearest_in
from bimix_tracking.recommendation.solvers.limits import GuardedLoss, Limits, Near
from bimix_tracking.recommendation.solvers.measuring import Region
from bimix_tracking.recommendation.solvers.objective import WeightedLoss
from bimix_tracking.recommendation.solvers.sqp import SimplexMinimum, kkt, minimize_on_simplex

_LOG_FLOOR = 1e-12
"""The prior's log r ends here."""
_SAME = 1e-6
AT_BOUND = 1e-9
"""A share this close to a bound is at it."""
_NO_PULL = -400.0
"""log(w α K) of a domain whose loss doesn't fall with its proportion: it gets what the others may not have."""
_LEAST = 1e-12
_STILL = 1e-12
"""So small a divergence is none."""
_MOST_LEANING = 6
_PROGRESS_EVERY = 50


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
        limits: On single targets.
        near: The largest change of a mixture.
    """

    fit: LawFit
    tokens: float
    weights: Mapping[str, float]
    box: Constraints
    prior: Mixture | None = None
    strength: float = 0.0
    limits: Limits | None = None
    near: Near | None = None

    def loss(self, theta: Mapping[str, Array] | None = None) -> WeightedLoss:
        """Return Σ w L of the fit, or of its replicates, with a slope below the proportion floor."""
        return WeightedLoss(self.fit, self.tokens, self.weights, theta=theta, sloped=True)

    def minimum(self, starts: Sequence[Array]) -> tuple[SimplexMinimum, tuple[int, int]]:
        """Return the fit's optimum, and how many starts ended there, of how many.

        Args:
            starts: Mixtures to start from beside equal parts and mixtures that lean to one domain.
        """
        if self._closed:
            return self._filled(None, self.box.lower, self.box.upper), (1, 1)
        several = self._starts(starts)
        if self.guarded:
            return self._best_within(several)
        found = self._newton(None, several, np.zeros(len(several), np.intp), self.box.lower, self.box.upper)
        best = int(found.value.argmin())
        agree = int((found.value <= found.value[best] + _SAME * (1 + abs(found.value[best]))).sum())
        only = slice(best, best + 1)
        return SimplexMinimum(found.shares[only], found.value[only], found.kkt_residual[only]), (agree, len(several))

    def minima(self, theta: Mapping[str, Array], start: Array, *, progress: Progress | None = None) -> SimplexMinimum:
        """Return each replicate's optimum, from the fit's.

        Args:
            theta: As in `Replicates`, only finite.
            start: Shape (domains,).
            progress: Called as (what, done, total).
        """
        lower, upper = self.box.lower, self.box.upper
        count = len(next(iter(theta.values())))
        size = count if progress is None else _PROGRESS_EVERY
        found: list[SimplexMinimum] = []
        for begin in range(0, count, size):
            if progress:
                progress("optimising replicates", begin, count)
            part = {name: values[begin : begin + size] for name, values in theta.items()}
            each = np.arange(min(size, count - begin))
            if self.guarded:
                found.append(self.within(each, theta=part, start=start))
            elif self._closed:
                found.append(self._filled(part, lower, upper))
            else:
                found.append(self._newton(part, np.tile(start, (len(each), 1)), each, lower, upper))
        if progress:
            progress("optimising replicates", count, count)
        return SimplexMinimum(
            *(np.concatenate([getattr(part, name) for part in found]) for name in ("shares", "value", "kkt_residual"))
        )

    def multipliers(self, shares: Array, found: SimplexMinimum | None = None) -> Array:
        """Return the shadow price of each bound: nats gained by a unit more of the proportion; 0 off the bounds.

        Args:
            shares: The optimum, shape (domains,).
            found: The same, with the shadow prices of guards and of the largest change: beside them a proportion is
                worth more or less.
        """
        one = np.zeros(1, np.intp)
        gradient = self.loss()(shares[None], one)[1][0]
        if isinstance(found, GuardedMinimum):
            divergence = None
            if self.near is not None and self.near.change == "kl":
                divergence = (self.near.shares, np.array([max(self.near.radius, _STILL)]))
            at = self._model(one, self._largest(one), divergence=divergence)(shares[None], one)
            gradient = gradient + found.multipliers[0] @ at.slopes[0]
            if self.near is not None:
                gradient = gradient + found.ball[0] * (shares > self.near.shares + AT_BOUND)
        if self.prior is not None and self.strength > 0:
            prior = self.prior.array(self.fit.domains)
            ratio = np.maximum(shares, _LOG_FLOOR) / np.where(prior > 0, prior, 1.0)
            gradient = gradient + self.strength * (np.log(ratio) + 1) * (prior > 0)
        free = (shares > self.box.lower + AT_BOUND) & (shares < self.box.upper - AT_BOUND)
        common = float(gradient[free].mean()) if free.any() else float(np.median(gradient))
        return np.asarray(common - gradient)

    def held_at(self, places: Index, values: Array, start: Array, *, precision: float = 0.0) -> SimplexMinimum:
        """Return the fit's optima with one domain's proportion held in each.

        Args:
            places: Which domain, shape (n,).
            values: At what, shape (n,).
            start: Shape (n, domains).
            precision: How good the losses need be, nats; 0: as good as the numbers are.
        """
        each = np.arange(len(places))
        lower, upper = (np.tile(side, (len(places), 1)) for side in (self.box.lower, self.box.upper))
        lower[each, places] = upper[each, places] = values
        if self._closed:
            return self._filled(None, lower, upper)
        return self._newton(None, start, np.zeros(len(places), np.intp), lower, upper, precision)

    @property
    def guarded(self) -> bool:
        """Whether more than a box limits the mixture."""
        return self.near is not None or (self.limits is not None and len(self.limits.each) > 0)

    def within(
        self,
        versions: Index,
        *,
        theta: Mapping[str, Array] | None = None,
        start: Array | None = None,
        radius: Array | None = None,
        without: Index | None = None,
        cautious: Array | None = None,
        aim: Array | None = None,
        ceiling: float = np.inf,
    ) -> GuardedMinimum:
        """Return optima within guards and near the other mixture, a batch of them.

        Args:
            versions: Which version of the law each problem has, shape (problems,).
            theta: As in `Replicates`; None: the fit's.
            start: Shape (domains,) or (problems, domains).
            radius: The largest change of each problem, shape (problems,); None: `near`'s.
            without: Which guard is left out of each problem, shape (problems,); −1: none.
            cautious: Which part of the guards' margins counts in each problem, shape (problems,); None: all of it.
            aim: Shape (problems, domains): minimise Σ aim · r instead, with the objective at most `ceiling`.
            ceiling: Of the objective.
        """
        count = len(versions)
        box = [np.tile(side, (count, 1)) for side in (self.box.lower, self.box.upper)]
        region = Region(box[0], box[1])
        divergence = None
        anchors = [] if self.limits is None else [self.limits.reference]
        if self.near is not None:
            far = np.full(count, self.near.radius) if radius is None else radius
            anchors.insert(0, self.near.shares)
            if self.near.change == "tv":
                region = Region(box[0], box[1], np.tile(self.near.shares, (count, 1)), far)
            else:
                box[1] = box[1] * (self.near.shares > 0)
                still = far <= _STILL
                here, _ = nearest_in(box[0], box[1], np.tile(self.near.shares, (count, 1)))
                region = Region(*(np.where(still[:, None], here, side) for side in box))
                divergence = (self.near.shares, np.maximum(far, _STILL))
        if start is not None:
            anchors.insert(0, start)
        shape = box[0].shape
        starts = [np.broadcast_to(one, shape) for one in (*anchors, np.full(shape[1], 1 / shape[1]))]
        largest = self._largest(versions, theta, cautious)
        if without is not None:
            largest = np.where(without[:, None] == np.arange(largest.shape[1]), np.inf, largest)
        model = self._model(
            versions, largest, theta=theta, divergence=divergence, cautious=cautious, aim=aim, ceiling=ceiling
        )
        return minimize_within(model, region, starts, np.arange(count))

    def _largest(
        self, versions: Index, theta: Mapping[str, Array] | None = None, cautious: Array | None = None
    ) -> Array:
        """Return what is allowed of each guard's loss in each problem, shape (problems, guards)."""
        if self.limits is None or not self.limits.each:
            return np.empty((len(versions), 0))
        largest = self.limits.largest(self.fit, self.tokens, theta)[versions]
        if cautious is None:
            return largest
        margins = np.array([limit.margin for limit in self.limits.each])
        return np.asarray(largest + (1 - cautious[:, None]) * margins)

    def _model(
        self,
        versions: Index,
        largest: Array,
        *,
        theta: Mapping[str, Array] | None = None,
        divergence: tuple[Array, Array] | None = None,
        cautious: Array | None = None,
        aim: Array | None = None,
        ceiling: float = np.inf,
    ) -> GuardedLoss:
        tilts = None
        if self.limits and any(limit.tilt is not None for limit in self.limits.each):
            part = np.ones(len(versions)) if cautious is None else cautious
            tilts = (part[:, None, None] * self.limits.tilts, self.limits.reference)
        prior = None
        if self.prior is not None and self.strength > 0:
            prior = (self.prior.array(self.fit.domains), self.strength)
        return GuardedLoss(
            self.fit,
            self.tokens,
            self.weights,
            tuple(limit.target for limit in self.limits.each) if self.limits else (),
            largest,
            versions,
            theta=theta,
            prior=prior,
            tilts=tilts,
            divergence=divergence,
            aim=aim,
            ceiling=ceiling,
        )

    def _best_within(self, starts: Array) -> tuple[GuardedMinimum, tuple[int, int]]:
        found = self.within(np.zeros(len(starts), np.intp), start=starts)
        value = np.where(found.feasible, found.value, np.inf)
        best = int(value.argmin()) if np.isfinite(value).any() else int(found.excess.argmin())
        agree = int((value <= value[best] + _SAME * (1 + abs(value[best]))).sum())
        only = slice(best, best + 1)
        return GuardedMinimum(
            found.shares[only],
            found.value[only],
            found.kkt_residual[only],
            found.multipliers[only],
            found.ball[only],
            found.excess[only],
        ), (agree, len(starts))

    @cached_property
    def _closed(self) -> bool:
        if self.guarded:
            return False
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
        self,
        theta: Mapping[str, Array] | None,
        starts: Array,
        which: Index,
        lower: Array,
        upper: Array,
        precision: float = 0.0,
    ) -> SimplexMinimum:
        loss = self.loss(theta)
        prior = self.prior.array(self.fit.domains) if self.prior is not None and self.strength > 0 else None

        def objective(shares: Array, problems: Index) -> tuple[Array, Array, Array]:
            value, gradient, bend = loss(shares, which[problems])
            if prior is not None:
                # What the prior has nothing of is at 0, by the box.
                log_ratio = np.log(np.maximum(shares, _LOG_FLOOR) / np.where(prior > 0, prior, 1.0)) * (prior > 0)
                value = value + self.strength * (shares * log_ratio).sum(-1)
                gradient = gradient + self.strength * (log_ratio + 1)
                diagonal = np.arange(len(prior))
                bend[:, diagonal, diagonal] += self.strength / np.maximum(shares, _LOG_FLOOR)
            return value, gradient, bend

        return minimize_on_simplex(objective, lower, upper, starts, precision=precision)

    def _filled(self, theta: Mapping[str, Array] | None, lower: Array, upper: Array) -> SimplexMinimum:
        """Return BiMix's optima: one scalar each, found by halving."""
        loss = self.loss(theta)
        alpha, level = loss.power_law()
        floor = loss.floor
        falls = (alpha > 0) & (level > 0)
        pull = np.where(falls, np.log(np.where(falls, alpha * level, 1.0)), _NO_PULL)
        shares = filled(pull, np.maximum(alpha, 0.0), floor, lower, upper)
        kept = np.maximum(shares, np.where(floor > 0, floor, _LEAST))
        under = np.minimum(shares / kept - 1, 0.0)  # in floors
        of = level * kept**-alpha
        value = (of * (1 - alpha * under * (1 - (1 + alpha) * under / 2))).sum(-1)
        gradient = -alpha * of / kept * (1 - (1 + alpha) * under)
        return SimplexMinimum(shares, value, kkt(shares, gradient, lower, upper))
