"""What one group of targets gains where another loses: the optima as the weight moves from one group to the other.

    r(t) = argmin (1 − t) F_a(r) / S_a + t F_b(r) / S_b   for t from 0 to 1, under the same constraints and guards

F is a group's weighted sum of working losses, and S how much of it the other group's optimum costs, so that steps in t
are steps along the curve. For convex laws these are Pareto optima (Boyd and Vandenberghe 2004, §4.7.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bimix_tracking.data.targets import Kind, unit_of
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.errors import RecommendationError, did_you_mean
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.guarding import guards_of, largest_change
from bimix_tracking.recommendation.guards import Guard
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.solvers.limits import Limits
from bimix_tracking.recommendation.validity import holds_of, within

REST = "rest"
"""All targets that count and are not of the other group."""
POINTS = 9
_NOTHING = 1e-9


@dataclass(frozen=True)
class ParetoPoint:
    """One optimum.

    Args:
        weight: t, of the second group.
        mixture: Where it is.
        first: The first group's gain over the reference, in its unit.
        second: The second group's, in its.
    """

    weight: float
    mixture: Mixture
    first: float
    second: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return dict(vars(self)) | {"mixture": dict(self.mixture)}


@dataclass(frozen=True)
class Pareto:
    """The optima between two groups of targets, none of which is better in one and no worse in the other.

    Args:
        names: Of both groups.
        units: What each group's gain is in.
        members: The targets of each.
        points: From the first group's optimum to the second's.
        recommended: Gains of the recommended mixture, of both groups; those of the reference are 0.
    """

    names: tuple[str, str]
    units: tuple[str, str]
    members: tuple[tuple[str, ...], tuple[str, ...]]
    points: tuple[ParetoPoint, ...]
    recommended: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "groups": list(self.names),
            "units": [str(unit) for unit in self.units],
            "members": [list(each) for each in self.members],
            "points": [point.to_dict() for point in self.points],
            "recommended": list(self.recommended),
        }


def two_groups(rec: Recommendation, asked: Sequence[str] | None = None) -> dict[str, dict[str, float]] | None:
    """Return two groups of targets that count, with their weights; None where there are no two, and none were asked.

    Args:
        rec: The recommendation, whose targets have groups and weights.
        asked: Two names, each of a group, of a target or `rest`; else the first group and the rest.

    Raises:
        RecommendationError: Not two names, an unknown one, or two that share a target.
    """
    counted = {name: weight for name, weight in rec.weights.items() if weight > 0}
    groups: dict[str, dict[str, float]] = {}
    for name, weight in counted.items():
        group = rec.target(name).group
        if group:
            groups.setdefault(group, {})[name] = weight
    if asked is None:
        if not groups or len(next(iter(groups.values()))) == len(counted):
            return None
        first = next(iter(groups))
        rest = {name: weight for name, weight in counted.items() if name not in groups[first]}
        other = next((name for name, members in groups.items() if list(members) == list(rest)), REST)
        return {first: groups[first], other: rest}
    if isinstance(asked, str) or len(asked) != 2 or asked[0] == asked[1]:
        raise RecommendationError(
            f"pareto needs two names of groups or targets, such as ('code', 'rest'), got {asked!r}"
        )
    found: dict[str, dict[str, float]] = {}
    known = [*groups, *counted, REST]
    for name in sorted(asked, key=lambda each: each == REST and REST not in groups):
        if name not in known:
            raise RecommendationError(f"pareto: no group or target {name!r} counts; {did_you_mean(name, known)}")
        members = groups.get(name) or ({name: counted[name]} if name in counted else None)
        taken = [target for one in found.values() for target in one]
        if members is None:
            members = {target: weight for target, weight in counted.items() if target not in taken}
        shared = [target for target in members if target in taken]
        if shared or not members:
            raise RecommendationError(f"pareto: {asked[0]!r} and {asked[1]!r} share targets, or one has none: {shared}")
        found[name] = members
    return {name: found[name] for name in asked}


def pareto(
    fit: LawFit,
    rec: Recommendation,
    groups: Mapping[str, Mapping[str, float]],
    *,
    guardrails: Sequence[str | Guard] = (),
    beyond_tried: bool = False,
    points: int = POINTS,
) -> Pareto | None:
    """Return the optima between two groups, within the constraints of a recommendation; None where both agree.

    Args:
        fit: The fitted law.
        rec: Its recommendation: its constraints, its prior, its largest change and its reference hold.
        groups: Two, each with the weights of its targets: of `two_groups`.
        guardrails: Those that the recommendation was made with; they hold as predicted, without a margin.
        beyond_tried: Likewise.
        points: How many optima.
    """
    names = tuple(groups)
    each = [objective_weights(weights, fit.links) for weights in groups.values()]
    weight = np.array([[one.get(target, 0.0) for target in fit.targets] for one in each])
    own = {target: value for one in groups.values() for target, value in one.items()}
    against = rec.reference.array(fit.domains)
    guards, _ = guards_of(fit, guardrails, None, own)
    limits = Limits(tuple(guard.limited() for guard in guards), against) if guards else None
    near = largest_change(against, rec.max_change, rec.change)
    holds = holds_of(fit, own, rec.reference)

    def optimum(first: float, second: float, start: Array) -> Array:
        both = dict(zip(fit.targets, (first * weight[0] + second * weight[1]).tolist(), strict=True))
        problem = within(fit, rec.volume, both, rec.constraints, holds, [], beyond_tried=beyond_tried)
        problem = replace(problem, prior=rec.prior, strength=rec.prior_strength, limits=limits, near=near)
        return np.asarray(problem.minimum([start])[0].shares[0])

    start = rec.mixture.array(fit.domains)
    ends = [optimum(1.0, 0.0, start), optimum(0.0, 1.0, start)]
    sums = np.array([_sums(fit, shares, rec.volume, weight) for shares in ends])
    apart = np.array([sums[1, 0] - sums[0, 0], sums[0, 1] - sums[1, 1]])
    if (apart <= _NOTHING * np.abs(sums).max(axis=0)).any():
        return None
    steps = np.linspace(0.0, 1.0, points)
    whole = float(apart.sum())
    found = [ends[0]]
    for t in steps[1:-1]:
        found.append(optimum((1 - t) * whole / apart[0], t * whole / apart[1], found[-1]))
    found.append(ends[1])
    reference = _sums(fit, against, rec.volume, weight)
    ours = reference - _sums(fit, start, rec.volume, weight)
    optima = []
    for t, shares in zip(steps.tolist(), found, strict=True):
        first, second = (reference - _sums(fit, shares, rec.volume, weight)).tolist()
        optima.append(
            ParetoPoint(t, Mixture.normalized(dict(zip(fit.domains, shares.tolist(), strict=True))), first, second)
        )
    return Pareto(
        names=(names[0], names[1]),
        units=(_unit(rec, groups[names[0]]), _unit(rec, groups[names[1]])),
        members=(tuple(groups[names[0]]), tuple(groups[names[1]])),
        points=tuple(_undominated(optima)),
        recommended=(float(ours[0]), float(ours[1])),
    )


def _sums(fit: LawFit, mixture: Array, volume: float, weight: Array) -> Array:
    """Return the weighted sums of both groups at a mixture, shape (2,)."""
    losses = fit.losses(mixture, volume).to_numpy(float)[0]
    return np.array([one[one > 0] @ losses[one > 0] for one in weight])


def _unit(rec: Recommendation, targets: Mapping[str, float]) -> str:
    return unit_of(Kind(rec.target(name).kind) for name in targets)


def _undominated(points: Sequence[ParetoPoint]) -> list[ParetoPoint]:
    """Return the points that no other beats: a search ends a rounding error off, and may end at one point twice."""
    kept: list[ParetoPoint] = []
    for one in points:
        beaten = any(
            other.first >= one.first - _NOTHING
            and other.second >= one.second - _NOTHING
            and (other in kept or max(other.first - one.first, other.second - one.second) > _NOTHING)
            for other in points
            if other is not one
        )
        if not beaten:
            kept.append(one)
    return kept
