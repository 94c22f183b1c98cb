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
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.smallest_change import distance
from bimix_tracking.recommendation.solvers.guarded import MET, GuardedMinimum
from bimix_tracking.recommendation.solvers.limits import Near

_LEVEL = 0.9
"""Of the intervals whose widening replicates get here too."""
_COPIES = 5
"""Form errors drawn for each replicate."""
_ROUNDS, _NARROWINGS = 12, 10
_GROWTH, _STAYS, _GAINED = 2.0, 1.02, 0.02
"""How much farther than where guards hold is tried, until when, and for which part of what a margin costs."""
_STRETCH = (0.8, 1.3)
_STEP, _LEAST = 1e-6, 1e-24


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

    def deviations(self, mixtures: Array) -> Array:
        """Return the standard deviation of each guard's excess at mixtures, (n, guards)."""
        losses = self._replicates.losses(np.concatenate([mixtures, self._reference[None]]), self._tokens)
        excess = np.stack(
            [
                losses[:, :-1, place] - guard.rule(losses[:, -1:, place])
                for guard, place in zip(self._guards, self._places, strict=True)
            ],
            -1,
        )
        known = np.isfinite(excess).all((1, 2))
        form = [0.0 * mixtures[:, 0] if one is None else one.between(mixtures, self._reference) for one in self._forms]
        variance = np.square(self._stretch) * excess[known].var(0) + np.stack(form, -1) * self._noise.var(0)
        return np.asarray(np.sqrt(np.maximum(variance, _LEAST)))

    def margins(self, shares: Array, times: float) -> tuple[Array, Array]:
        """Return margins of so many standard deviations, straight about a mixture: at the reference, and the tilts.

        Shapes (guards,) and (guards, domains).
        """
        steps = np.concatenate([np.zeros((1, len(shares))), _STEP * np.eye(len(shares))])
        found = self.deviations(shares + steps)
        tilts = ((found[1:] - found[0]) / _STEP).T
        return times * np.maximum(found[0] + tilts @ (self._reference - shares), 0.0), times * tilts

    def simultaneous(self, shares: Array, probability: float) -> float:
        """Return how many standard deviations all guards' excesses stay within with a probability: sup-t."""
        _, apart = self.draws(shares)
        return float(np.quantile((apart / self.deviations(shares[None])[0]).max(-1), probability))

    def needed(self, shares: Array, probability: float) -> float:
        """Return by how much the distances to the limits must be stretched for all guards to hold so probably."""
        centre, apart = self.draws(shares)
        return float(np.quantile((apart / np.maximum(-centre, np.sqrt(_LEAST))).max(-1), probability))


def with_margin(
    problem: Problem,
    chances: Chances,
    reference: Array,
    plain: GuardedMinimum,
    probability: float,
) -> tuple[Problem, GuardedMinimum, tuple[int, int]]:
    """Return the optimum with margins at which all guards hold with a probability, as near to it as was found.

    First within the largest distance from the reference at which they hold without a margin. Then, from there, with
    margins of κ standard deviations of each guard's excess, taken straight about the last optimum, and a little
    farther: κ is that of a simultaneous interval of all guards (sup-t). What holds and is better is kept.
    """
    if problem.limits is None:
        raise TypeError("a problem without guards needs no margin")
    start = problem.limits.each
    best = _nearer(problem, chances, reference, plain, probability)
    change = "tv" if problem.near is None else problem.near.change
    farthest = distance(plain.shares[0], reference, change) if problem.near is None else problem.near.radius
    growth, caution = _GROWTH, 1.0
    for _ in range(_ROUNDS):
        at = best[1].shares[0]
        margins, tilts = chances.margins(at, caution * chances.simultaneous(at, probability))
        each = tuple(
            replace(limit, margin=limit.margin + float(m), tilt=tilt)
            for limit, m, tilt in zip(start, margins, tilts, strict=True)
        )
        radius = min(growth * distance(at, reference, change), farthest)
        tried = replace(problem, limits=replace(problem.limits, each=each), near=Near(reference, radius, change))
        found, searches = least(tried, reference)
        reached = chances.together(found.shares[0]) if found.feasible[0] else 0.0
        if reached >= probability and found.value[0] < best[1].value[0]:
            gained = best[1].value[0] - found.value[0]
            best = tried, found, searches
            if gained < _GAINED * (best[1].value[0] - plain.value[0]):
                break
            continue
        growth = 1 + (growth - 1) / 2
        if found.feasible[0]:
            caution *= float(np.clip(chances.needed(found.shares[0], probability), *_STRETCH))
        if growth < _STAYS:
            break
    return best


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
