"""Laws stacked into one: e^δ(s) Σ_k w_k part_k."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bimix_tracking.fitting.levels import Levels, level_at
from bimix_tracking.laws.protocol import Array


def stacked(
    parts: Mapping[str, Array],
    order: Mapping[str, Sequence[str]],
    weights: Mapping[str, Mapping[str, float]],
    levels: Mapping[str, Levels],
    volume: Array,
) -> Array:
    """Return the stack of parts: of losses, of their slopes or of their replicates.

    Args:
        parts: By member, shape (…, n, the member's targets).
        order: By member its targets.
        weights: By target the weight of each member.
        levels: By target what all runs have in common at a checkpoint.
        volume: s, shape (n,).

    Returns:
        Shape (…, n, targets); a member of weight 0 adds nothing, not even a NaN. NaN where no member has a weight.
    """
    result = np.zeros((*next(iter(parts.values())).shape[:-1], len(weights)))
    for i, (target, by_member) in enumerate(weights.items()):
        if not any(by_member.values()):
            result[..., i] = np.nan
        for name, weight in by_member.items():
            if weight:
                result[..., i] += weight * parts[name][..., list(order[name]).index(target)]
        result[..., i] *= np.exp(level_at(levels.get(target, ()), volume))
    return result
