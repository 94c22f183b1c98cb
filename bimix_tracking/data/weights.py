"""How much a nat of each target's loss counts in what is minimised."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from bimix_tracking.errors import RecommendationError, did_you_mean, shown


def target_weights(
    given: Mapping[str, float] | None, targets: Collection[str], domains: Collection[str]
) -> dict[str, float]:
    """Return the weight of each target where it isn't given: 1 for a domain, 0 for a target outside the mixtures.

    Where no target is a domain, all count alike. A domain without losses has no weight: it counts by its effect on
    other losses.

    >>> target_weights(None, ["code", "hellaswag"], ["code", "web"]), target_weights(None, ["hellaswag"], ["code"])
    ({'code': 1.0, 'hellaswag': 0.0}, {'hellaswag': 1.0})
    """
    alike = not set(targets) & set(domains)
    return {name: float((given or {}).get(name, 1.0 if alike or name in domains else 0.0)) for name in targets}


def checked_weights(
    weights: Mapping[str, float] | None, targets: Collection[str], domains: Collection[str], law: str = ""
) -> dict[str, float]:
    """Return the weight of each domain and target as `target_weights`, of weights that can be minimised with.

    Args:
        weights: As they are given.
        targets: What losses are of.
        domains: Of the mixtures.
        law: The law whose fit has these targets, where another could have more.

    Raises:
        RecommendationError: An unknown name, a weight that is negative or no number, one on a domain without losses,
            or nothing but zeros.
    """
    given = dict(weights or {})
    names = list(dict.fromkeys([*domains, *targets]))
    for name, value in given.items():
        if not (math.isfinite(value) and value >= 0):
            raise RecommendationError(f"the weight of domain {name!r} must be finite and not negative, got {value}")
    unknown = [name for name in given if name not in names]
    if unknown and law:
        raise RecommendationError(
            f"weight of target {shown(unknown[0])}: the law {law} doesn't predict it; "
            f"{did_you_mean(unknown[0], targets)}. A target outside the mixtures needs "
            "transfer, additive or exponential"
        )
    if unknown:
        raise RecommendationError(
            f"weight of unknown domain or target {shown(unknown[0])}; {did_you_mean(unknown[0], names)}"
        )
    silent = [name for name in domains if name not in targets and given.get(name, 0.0) > 0]
    if silent:
        raise RecommendationError(
            f"domains {silent} have a weight but no losses. Log an evaluation of them, or give them no weight: they "
            "then count by their effect on other losses"
        )
    result = dict.fromkeys(names, 0.0) | target_weights(given, targets, domains)
    if not any(result.values()):
        raise RecommendationError("all weights are 0: every mixture is equally good")
    return result
