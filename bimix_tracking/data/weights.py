"""How much a unit of each target counts in what is minimised: people's weights are in the targets' own units."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.errors import RecommendationError, did_you_mean, listed, shown

_NOTHING: Mapping[str, Target] = {}
_NO_LINKS: Mapping[str, Link] = {}


def target_weights(
    given: Mapping[str, float] | None,
    targets: Collection[str],
    domains: Collection[str],
    described: Mapping[str, Target] = _NOTHING,
    links: Mapping[str, Link] = _NO_LINKS,
    *,
    unfit: Collection[str] = (),
) -> dict[str, float]:
    """Return the weight of each target where it isn't given: 1 for a domain, 0 for a target outside the mixtures.

    Where no target is a domain, all count alike: 1 a unit where they have one unit, else one standard deviation between
    the sweep's mixtures of each, unless any weight is given: then what isn't given has none. The surrogates of one task
    share its weight. A domain without losses has no weight: it counts by its effect on other losses.

    Args:
        given: By target, or by group of targets, whose members share it; of what isn't named, what `described` says.
        targets: What was measured.
        domains: Of the mixtures.
        described: What targets are.
        links: Of targets that are no losses.
        unfit: Targets whose ranks can't be told: they count 0 unless a weight is given, or nothing else would count.

    >>> target_weights(None, ["code", "hellaswag"], ["code", "web"]), target_weights(None, ["hellaswag"], ["code"])
    ({'code': 1.0, 'hellaswag': 0.0}, {'hellaswag': 1.0})
    """
    asked = _by_target(given or {}, targets, described)
    alike = not set(targets) & set(domains)
    kinds = {described[name].kind if name in described else Kind.LOSS for name in targets}
    mixed = alike and (len(kinds) > 1 or Kind.SCORE in kinds)
    weighted = bool(asked) or any(target.weight is not None for target in described.values())
    result = {}
    for name in targets:
        target = described.get(name) or Target(name)
        weight = asked.get(name, target.weight)
        if weight is None:
            counts = name not in unfit and (alike or name in domains) and not (mixed and weighted)
            weight = 1.0 if counts else 0.0
            if weight and alike:
                same = [t for t in targets if target.task and described.get(t, target).task == target.task]
                weight /= max(len([t for t in same if t not in unfit]), 1)
                weight /= (links.get(name, IDENTITY).spread or 1.0) if mixed else 1.0
        result[name] = float(weight)
    if unfit and not any(result.values()):
        return target_weights(given, targets, domains, described, links)
    return result


def _by_target(
    given: Mapping[str, float], targets: Collection[str], described: Mapping[str, Target]
) -> dict[str, float]:
    """Return given weights by target: a group's is shared by its members."""
    groups: dict[str, list[str]] = {}
    for name in targets:
        if name in described and described[name].group is not None:
            groups.setdefault(str(described[name].group), []).append(name)
    result = {name: weight for name, weight in given.items() if name in targets or name not in groups}
    for group, weight in given.items():
        if group in groups and group not in targets:
            twice = [name for name in groups[group] if name in given]
            if weight == 0 and len(twice) == len(groups[group]):
                continue  # weights of all targets and domains: it is the domain of that name, which wasn't evaluated
            if twice:
                raise RecommendationError(
                    f"group {shown(group)} has a weight, and so have its members {listed(twice)}: give one or the other"
                )
            result |= dict.fromkeys(groups[group], weight / len(groups[group]))
    return result


def checked_weights(
    weights: Mapping[str, float] | None,
    targets: Collection[str],
    domains: Collection[str],
    described: Mapping[str, Target] = _NOTHING,
    links: Mapping[str, Link] = _NO_LINKS,
    *,
    unfit: Collection[str] = (),
    law: str = "",
) -> dict[str, float]:
    """Return the weight of each domain and target as `target_weights`, of weights that can be minimised with.

    Args:
        weights: As they are given.
        targets: What losses are of.
        domains: Of the mixtures.
        described: As in `target_weights`, like the two that follow.
        links: Of targets that are no losses.
        unfit: Targets whose ranks can't be told.
        law: The law whose fit has these targets, where another could have more.

    Raises:
        RecommendationError: An unknown name, a weight that is negative or no number, one on a domain without losses,
            a group's and a member's, or nothing but zeros.
    """
    given = dict(weights or {})
    groups = [str(target.group) for name, target in described.items() if target.group and name in targets]
    names = list(dict.fromkeys([*domains, *targets]))
    for name, value in given.items():
        if not (math.isfinite(value) and value >= 0):
            raise RecommendationError(f"the weight of {name!r} must be finite and not negative, got {value}")
    unknown = [name for name in given if name not in names and name not in groups]
    if unknown and law:
        raise RecommendationError(
            f"weight of target {shown(unknown[0])}: the law {law} doesn't predict it; "
            f"{did_you_mean(unknown[0], targets)}. A target outside the mixtures needs "
            "transfer, additive or exponential"
        )
    if unknown:
        raise RecommendationError(
            f"weight of unknown domain or target {shown(unknown[0])}; "
            f"{did_you_mean(unknown[0], list(dict.fromkeys([*names, *groups])))}"
        )
    silent = [name for name in domains if name not in targets and given.get(name, 0.0) > 0 and name not in groups]
    if silent:
        raise RecommendationError(
            f"domains {silent} have a weight but were not evaluated. Evaluate them, or give them no weight: they then "
            "count by their effect on targets"
        )
    result = dict.fromkeys(names, 0.0) | target_weights(given, targets, domains, described, links, unfit=unfit)
    if not any(result.values()):
        raise RecommendationError("all weights are 0: every mixture is equally good")
    return result


def objective_weights(weights: Mapping[str, float], links: Mapping[str, Link]) -> dict[str, float]:
    """Return what a unit of each working loss counts, of weights in the targets' own units: w · `Link.unit`.

    >>> objective_weights({"code": 1.0, "quiz": 2.0}, {"quiz": Link(Kind.SCORE, rate=0.1)})
    {'code': 1.0, 'quiz': 20.0}
    """
    return {name: weight * links.get(name, IDENTITY).unit for name, weight in weights.items()}
