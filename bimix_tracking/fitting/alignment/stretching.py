"""Whether mixtures do more or less at the anchors' size than at the law's: one slope a target, shrunk to 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bimix_tracking.fitting.alignment.base_law import BaseLaw
from bimix_tracking.fitting.alignment.level_curves import LevelCurve, RunLevel
from bimix_tracking.fitting.levels import Levels
from bimix_tracking.laws.protocol import Array

SPREAD = 0.05
"""Standard deviation of a slope about 1 before any anchor is seen."""
_FEWEST = 2


def stretched(runs: Sequence[RunLevel], curve: LevelCurve, law: BaseLaw) -> dict[str, float]:
    """Return by target b, by how much more mixtures do at the anchors' size: log L = level + (1 + b) log law.

        b = Σ x̃ d̃ / (Σ x̃² + σ² / τ²),   b ~ N(0, τ²)

    x̃ are the law's log losses of the anchors less their mean, d̃ the anchors' deviations from their common level, σ a
    run's standard deviation about the law. Two anchors alike, or few, leave b at 0.

    Args:
        runs: The anchors that tell the level.
        curve: Their level.
        law: The law that tells it.
    """
    if len(runs) < _FEWEST:
        return {}
    x = np.stack([one.law[-1] for one in runs])
    away = np.stack([curve.deviation[one.run] for one in runs])
    known = np.isfinite(away)
    count = np.maximum(known.sum(0), 1)
    x, away = np.where(known, x, 0.0), np.where(known, away, 0.0)
    x, away = (np.where(known, one - one.sum(0) / count, 0.0) for one in (x, away))
    noise = np.array([law.residual.get(target, np.inf) for target in curve.targets])
    slope = (x * away).sum(0) / ((x**2).sum(0) + (noise / SPREAD) ** 2)
    return {target: float(b) for target, b in zip(curve.targets, slope, strict=True) if b}


def centres(runs: Sequence[RunLevel], levels: Mapping[str, Levels], law: BaseLaw, at: Array) -> dict[str, Levels]:
    """Return by target (progress, log L) at the anchors' size, of the mean anchor: where a slope leaves losses alone.

    Args:
        runs: The anchors that tell the level.
        levels: Their size's level above the law, by target.
        law: The law that tells it.
        at: Progress.
    """
    mean = np.mean([law.log_losses(one.shares, at) for one in runs], axis=0)
    found: dict[str, Levels] = {}
    for i, target in enumerate(law.targets):
        if levels.get(target):
            where, level = np.array(levels[target]).T
            above = mean[:, i] + np.interp(np.log(at), np.log(where), level)
            found[target] = tuple(zip(at.tolist(), above.tolist(), strict=True))
    return found
