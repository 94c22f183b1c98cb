"""The optimum within guards: with a margin for uncertainty, what each guard costs, and what guards lack if none is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from bimix_tracking.errors import ConstraintError, RecommendationError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import count
from bimix_tracking.recommendation.guard_margins import Chances, least, with_margin
from bimix_tracking.recommendation.guards import Guard, GuardResult, TargetGuard, guards_on
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.smallest_change import distance, least_change
from bimix_tracking.recommendation.solvers.guarded import MET, GuardedMinimum
from bimix_tracking.recommendation.solvers.limits import Change, Limits, Near
from bimix_tracking.recommendation.solvers.sqp import SimplexMinimum

_BINDS = 1e-7
_MOST_NAMED = 6


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Guarded:
    """An optimum within guards.

    Args:
        problem: What was minimised, with the margins.
        found: Where it is.
        agree: How many searches ended there, of how many.
        results: One a guard.
        together: The probability that all of them hold; None without replicates.
    """

    problem: Problem
    found: SimplexMinimum
    agree: tuple[int, int]
    results: tuple[GuardResult, ...] = ()
    together: float | None = None


def guarded(
    problem: Problem,
    guards: Sequence[TargetGuard],
    against: Mixture,
    *,
    replicates: Replicates | None = None,
    probability: float | None = None,
) -> Guarded:
    """Return the optimum within guards, and within the problem's largest change; without either, the plain one.

    Args:
        problem: What is minimised; its limits are set here.
        guards: One a target.
        against: What they are relative to: the reference.
        replicates: Give each guard's probability.
        probability: All guards are to hold together in so large a part of the replicates, with the law's form error:
            limits get a margin.

    Raises:
        ConstraintError: No mixture meets the guards, or the largest change, or not with that probability; says by how
            much they must be relaxed.
    """
    if probability is not None and not (0 < probability < 1 and guards and replicates is not None):
        raise RecommendationError(_no_probability(probability, guards))
    reference = against.array(problem.fit.domains)
    if not guards and problem.near is None:
        return Guarded(problem, *problem.minimum([reference]))
    limits = Limits(tuple(guard.limited() for guard in guards), reference)
    plain = replace(problem, limits=limits if guards else None)
    found, agree = least(plain, reference)
    if not found.feasible[0]:
        raise ConstraintError(_impossible(plain, guards, reference, found))
    plain, found, agree = _as_predicted(plain, guards, reference, found, agree)
    chances = Chances(plain, guards, reference, replicates) if replicates is not None and guards else None
    if chances is None or probability is None or chances.together(found.shares[0]) >= probability:
        return _result(plain, guards, reference, found, agree, chances, found)
    careful, safe, agree = with_margin(plain, chances, reference, found, probability)
    return _result(careful, guards, reference, safe, agree, chances, found)


def _no_probability(probability: float, guards: Sequence[TargetGuard]) -> str:
    if not 0 < probability < 1:
        return f"guard_probability must be between 0 and 1, got {probability!r}"
    if not guards:
        return f"guard_probability {probability:g} needs guardrails that are to hold with it"
    return f"guard_probability {probability:g} needs replicates: those of bootstrap(obs, fit)"


def guards_of(
    fit: LawFit,
    guardrails: Sequence[str | Guard],
    unfit: Mapping[str, str] | None,
    weights: Mapping[str, float] | None,
) -> tuple[tuple[TargetGuard, ...], list[str]]:
    """Return the guards on a fit's targets, as `guards_on`; one on a target that isn't predicted is refused too."""
    silent = {
        t: f"its loss is not predicted: {f.outcome.remedy}" for t, f in fit.targets.items() if not f.outcome.usable
    }
    known = {t: why for t, why in (unfit or {}).items() if not (weights or {}).get(t, 0.0) > 0}
    return guards_on(guardrails, list(fit.targets), fit.described, fit.links, known | silent)


def largest_change(reference: Array, max_change: float | None, change: Change) -> Near | None:
    """Return how far the mixture may be from the reference; None: as far as it likes.

    Args:
        reference: Shape (domains,).
        max_change: A proportion of the tokens, or nats.
        change: How it is measured.

    Raises:
        ConstraintError: A distance that is none, or no way to measure it.
    """
    if change not in get_args(Change):
        raise ConstraintError(f"change must be 'tv' or 'kl', got {change!r}")
    if max_change is None:
        return None
    most = 1.0 if change == "tv" else math.inf
    if isinstance(max_change, bool) or not (math.isfinite(max_change) and 0 <= max_change <= most):
        remedy = "a proportion from 0 to 1, such as 0.1" if change == "tv" else "a number of nats, not negative"
        raise ConstraintError(f"max_change must be {remedy}, got {max_change!r}")
    return Near(reference, float(max_change), change)


def _as_predicted(
    problem: Problem,
    guards: Sequence[TargetGuard],
    reference: Array,
    found: GuardedMinimum,
    agree: tuple[int, int],
) -> tuple[Problem, GuardedMinimum, tuple[int, int]]:
    """Return the optimum that meets the guards as predicted too: below the proportion floor a search sees a slope.

    Limits are then relative to a loss higher than what is predicted of the reference.
    """
    if not guards or problem.limits is None:
        return problem, found, agree
    asked, reached = _losses(problem, guards, reference, found.shares[0])
    over = reached - asked
    if (over <= MET * np.abs(asked)).all():
        return problem, found, agree
    searched = problem.limits.largest(problem.fit, problem.tokens)[0]
    each = tuple(replace(limit, margin=m) for limit, m in zip(problem.limits.each, searched - asked, strict=True))
    tight = replace(problem, limits=replace(problem.limits, each=each))
    found, agree = least(tight, reference)
    if not found.feasible[0]:
        raise ConstraintError(_impossible(tight, guards, reference, found))
    return tight, found, agree


def _losses(problem: Problem, guards: Sequence[TargetGuard], reference: Array, shares: Array) -> tuple[Array, Array]:
    """Return the largest working losses allowed, and those of a mixture, as predicted; shape (guards,) each."""
    both = problem.fit.losses(np.stack([reference, shares]), problem.tokens).to_numpy(float)
    places = [list(problem.fit.targets).index(guard.target) for guard in guards]
    asked = [float(guard.rule(both[:1, place])[0]) for guard, place in zip(guards, places, strict=True)]
    return np.array(asked), np.asarray(both[1, places])


def _result(
    problem: Problem,
    guards: Sequence[TargetGuard],
    reference: Array,
    found: GuardedMinimum,
    agree: tuple[int, int],
    chances: Chances | None,
    plain: GuardedMinimum,
) -> Guarded:
    if not guards or problem.limits is None:
        return Guarded(problem, found, agree, ())
    shares = found.shares[0]
    plainly = problem.limits.largest(problem.fit, problem.tokens)[0] + [one.margin for one in problem.limits.each]
    largest = plainly - problem.limits.margins(shares)
    places = np.arange(len(guards))
    without = problem.within(0 * places, start=shares, without=places)
    asked, reached = _losses(problem, guards, reference, shares)
    on_reference = problem.fit.losses(reference[None], problem.tokens).to_numpy(float)[0]
    probable = None if chances is None else chances.each(shares).tolist()
    before = None if chances is None else chances.each(plain.shares[0]).tolist()
    results = []
    for i, guard in enumerate(guards):
        link = guard.link
        first = float(link.value(on_reference[list(problem.fit.targets).index(guard.target)]))
        slope = float(link.slope(largest[i]))
        tight = bool(found.multipliers[0, i] > _BINDS and reached[i] >= largest[i] - _BINDS * abs(largest[i]))
        results.append(
            GuardResult(
                guard=guard.text,
                target=guard.target,
                reference=first,
                limit=float(guard.limit(first)),
                predicted=float(link.value(reached[i])),
                binding=tight,
                cost=max(float(found.value[0] - without.value[i]), 0.0),
                price=float(found.multipliers[0, i] / abs(largest[i]) / slope) if tight else 0.0,
                probability=None if probable is None else probable[i],
                without_margin=None if before is None else before[i],
                margin=max(float(asked[i] - largest[i]), 0.0) * slope,
            )
        )
    return Guarded(problem, found, agree, tuple(results), None if chances is None else chances.together(shares))


def _impossible(problem: Problem, guards: Sequence[TargetGuard], reference: Array, found: GuardedMinimum) -> str:
    """Return that no mixture meets the guards or the largest change, and the smallest relaxation that one does."""
    near = problem.near
    if near is not None:
        wide, _ = least(replace(problem, near=Near(near.shares, 1.0)), reference)
        if wide.feasible[0]:
            farthest = distance(wide.shares[0], near.shares, near.change)
            nearest = least_change(replace(problem, near=None), near.shares, farthest, near.change)
            meant = "the constraints and guards" if guards else "the constraints"
            unit = "in total variation" if near.change == "tv" else "nats of divergence"
            return (
                f"no mixture within a change of {count(near.radius)} from the reference meets {meant}: the nearest is "
                f"{count(nearest * 1.001)} away ({unit}). Allow a larger change, or relax a constraint"
            )
        problem, found = replace(problem, near=None), wide
    asked, reached = _losses(problem, guards, reference, found.shares[0])
    on_reference = problem.fit.losses(reference[None], problem.tokens).to_numpy(float)[0]
    needs = []
    for i, guard in enumerate(guards):
        if reached[i] <= asked[i] * (1 + MET):
            continue
        first = float(guard.link.value(on_reference[list(problem.fit.targets).index(guard.target)]))
        needed = guard.amount_for(float(guard.link.value(reached[i])), first)
        amount = str(needed).removeprefix(f"{needed.target}{needed.sign}")
        needs.append(f"{guard.guard} needs {amount}")
    more = f" and {len(needs) - _MOST_NAMED} more" if len(needs) > _MOST_NAMED else ""
    broken = problem.box.broken_by(Mixture.normalized(dict(zip(problem.fit.domains, reference.tolist(), strict=True))))
    outside = f". The reference itself may not be used: {broken[0]}" if broken else ""
    return (
        f"no mixture meets all guards: {', '.join(needs[:_MOST_NAMED])}{more}. Relax these together, or leave some "
        f"out{outside}"
    )
