"""How probably guards hold, and the margins with which they hold as probably as asked.

Of a mixture and a replicate b, the excess of target i is L_ib(r) − limit_i(L_ib(reference)). It strays from that of the
fit as replicates do, widened as their intervals are, and by the form error of the difference of the two mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bimix_tracking.errors import ConstraintError
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.quantities import about
from bimix_tracking.recommendation.guards import TargetGuard
from bimix_tracking.recommendation.optimum import Near, Problem
from bimix_tracking.recommendation.smallest_change import distance
from bimix_tracking.recommendation.solvers.guarded import MET, GuardedMinimum

_LEVEL = 0.9
"""Of the intervals whose widening replicates get here too."""
_COPIES = 5
"""Form errors drawn for each replicate."""
_ROUNDS, _NARROWINGS = 10, 12
_ENOUGH = 0.005
"""A margin whose guards hold with this much more probability than asked is not made smaller."""
_SAME = 0.02
"""Margins this near, in standard deviations, are one."""


def least(problem: Problem, reference: Array) -> tuple[GuardedMinimum, tuple[int, int]]:
    """Return the optimum of a problem with guards or a largest change, and how many searches ended there."""
    found, agree = problem.minimum([reference])
    if not isinstance(found, GuardedMinimum):
        raise TypeError("a problem without guards has its own search")
    return found, agree


class Chances:
    """How probably guards hold: replicates' excess over their own limits, and the law's form error of a difference."""

    def __init__(
        self, problem: Problem, guards: Sequence[TargetGuard], reference: Array, replicates: Replicates
    ) -> None:
        self._replicates, self._guards, self._reference = replicates, guards, reference
        self._fit, self._tokens = problem.fit, problem.tokens
        self._places = [list(self._fit.targets).index(guard.target) for guard in guards]
        alone = [{guard.target: 1.0} for guard in guards]
        self._forms = [replicates.form(one) for one in alone]
        self._stretch = np.array([replicates.stretch(one, _LEVEL) for one in alone])
        rng = np.random.default_rng(0)
        free = [replicates.free(one) for one in alone]
        of_target: dict[str, Array] = {}
        size = _COPIES * len(next(iter(replicates.theta.values())))
        for guard, degrees in zip(guards, free, strict=True):
            of_target.setdefault(guard.target, rng.standard_t(degrees, size))
        self._noise = np.stack([of_target[guard.target] for guard in guards], -1)

    def _excess(self, losses: Array) -> Array:
        """Return what losses of (…, two mixtures, targets) are above their limits, (…, guards)."""
        return np.stack(
            [
                losses[..., 0, place] - guard.rule(losses[..., 1, place])
                for guard, place in zip(self._guards, self._places, strict=True)
            ],
            -1,
        )

    def draws(self, shares: Array) -> tuple[Array, Array]:
        """Return the excess by the fit, (guards,), and deviations from it, (draws, guards)."""
        two = np.stack([shares, self._reference])
        centre = self._excess(self._fit.losses(two, self._tokens).to_numpy(float))
        excess = self._excess(self._replicates.losses(two, self._tokens))
        known = np.isfinite(excess).all(-1)
        apart = excess[known] - centre
        apart = self._stretch * (apart - np.median(apart, axis=0))
        form = [0.0 if one is None else float(one.between(shares, self._reference)) for one in self._forms]
        copies = np.tile(apart, (_COPIES, 1))
        return centre, copies + np.sqrt(form) * self._noise[: len(copies)]

    def each(self, shares: Array) -> Array:
        """Return how probably each guard holds, (guards,); never 0 or 1, which so few draws cannot say."""
        centre, apart = self.draws(shares)
        most = 1 - 0.5 / (len(apart) + 1)
        return np.asarray(np.clip((centre + apart <= MET).mean(0), 1 - most, most))

    def together(self, shares: Array) -> float:
        """Return how probably all hold."""
        centre, apart = self.draws(shares)
        return float((centre + apart <= MET).all(-1).mean())

    def spread(self, shares: Array, probability: float) -> tuple[Array, float]:
        """Return a standard deviation of each guard's excess, and how many all of them hold at with a probability."""
        _, apart = self.draws(shares)
        deviation = np.maximum(apart.std(0), 1e-12)
        return deviation, float(np.quantile((apart / deviation).max(-1), probability))


def with_margin(
    problem: Problem,
    chances: Chances,
    reference: Array,
    plain: GuardedMinimum,
    agree: tuple[int, int],
    probability: float,
) -> tuple[Problem, GuardedMinimum, tuple[int, int]]:
    """Return the optimum with the smallest margins at which all guards hold with a probability.

    Margins are κ standard deviations of each guard's excess at the last optimum. κ begins where a simultaneous interval
    of all guards does (sup-t), which is too much where some are far from their limits, and is halved in on.
    """
    if problem.limits is None:
        return problem, plain, agree
    start = problem.limits.each
    best: tuple[Problem, GuardedMinimum, tuple[int, int]] | None = None
    at = plain.shares[0]
    deviation, times = chances.spread(at, probability)
    low, high = 0.0, np.inf
    for _ in range(_ROUNDS):
        each = tuple(
            replace(limit, margin=limit.margin + times * d) for limit, d in zip(start, deviation.tolist(), strict=True)
        )
        tried = replace(problem, limits=replace(problem.limits, each=each))
        found, searches = least(tried, reference)
        if not found.feasible[0]:
            # Nearer to the reference a difference is better known.
            at = (at + reference) / 2
            deviation, _ = chances.spread(at, probability)
            continue
        at = found.shares[0]
        deviation, again = chances.spread(at, probability)
        reached = chances.together(at)
        if reached >= probability:
            high = times
            if best is None or found.value[0] <= best[1].value[0]:
                best = tried, found, searches
            if reached <= probability + _ENOUGH:
                break
        else:
            low = times
        times = (low + high) / 2 if np.isfinite(high) else max(again, 1.5 * times)
        if high - low < _SAME:
            break
    return best or _nearer(problem, chances, reference, plain, probability)


def _nearer(
    problem: Problem,
    chances: Chances,
    reference: Array,
    plain: GuardedMinimum,
    probability: float,
) -> tuple[Problem, GuardedMinimum, tuple[int, int]]:
    """Return the optimum within the largest distance from the reference at which the guards hold."""
    change = "tv" if problem.near is None else problem.near.change
    low, high = 0.0, distance(plain.shares[0], reference, change)
    best = None
    most = chances.together(plain.shares[0])
    for _ in range(_NARROWINGS):
        radius = (low + high) / 2
        tried = replace(problem, near=Near(reference, radius, change))
        found, searches = least(tried, reference)
        reached = chances.together(found.shares[0]) if found.feasible[0] else 0.0
        most = max(most, reached)
        if reached >= probability:
            best, low = (tried, found, searches), radius
        else:
            high = radius
    if best is None:
        raise ConstraintError(
            f"no mixture was found whose guards all hold with a probability of {about(probability)}: the most is "
            f"{about(most)}. Relax the guards, ask for a smaller probability, or add runs"
        )
    return best
