"""How much a nat of each target's loss counts in what is minimised."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from bimix_tracking.errors import RecommendationError


def target_weights(
    given: Mapping[str, float] | None, targets: Collection[str], domains: Collection[str]
) -> dict[str, float]:
    """Return the weight of each target: 1 for a domain that isn't named, 0 for a target outside the mixtures."""
    return {name: float((given or {}).get(name, 1.0 if name in domains else 0.0)) for name in targets}


def checked_weights(
    weights: Mapping[str, float] | None, targets: Collection[str], domains: Collection[str]
) -> dict[str, float]:
    """Return the weight of each domain and target as `target_weights`, of weights that can be minimised with.

    Raises:
        RecommendationError: An unknown name, a weight that is negative or no number, or nothing but zeros.
    """
    given = dict(weights or {})
    names = list(dict.fromkeys([*domains, *targets]))
    unknown = [name for name in given if name not in names]
    if unknown:
        raise RecommendationError(f"weights for unknown {unknown}; the domains are {names}")
    for name, value in given.items():
        if not (math.isfinite(value) and value >= 0):
            raise RecommendationError(f"the weight of domain {name!r} must be finite and not negative, got {value}")
    result = target_weights(given, names, domains)
    if not any(result.values()):
        raise RecommendationError("all weights are 0: every mixture is equally good")
    return result
