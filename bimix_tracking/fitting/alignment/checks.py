"""What is wrong with anchors: mixtures far outside the sweep, and anchors that contradict one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import f as fisher

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.alignment.base_law import BaseLaw
from bimix_tracking.fitting.alignment.level_curves import RunLevel
from bimix_tracking.fitting.scale.size_level import Anchor
from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import few, said
from bimix_tracking.quantities import percent

OUTSIDE = 0.05
"""A mixture is far outside a sweep where so much of it is beyond the proportions tried."""
_FALSE_ALARM = 0.01
"""How often anchors that differ by their noise alone are said to contradict each other."""
_FEWEST = 3


def far_anchors(runs: Sequence[RunLevel], obs: Observations) -> frozenset[str]:
    """Return the runs whose mixtures are far outside those of a sweep.

    Args:
        runs: Anchors.
        obs: The sweep of the law.
    """
    tried = obs.mixtures.to_numpy(float)
    return frozenset(one.run for one in runs if part_outside(one.shares, tried) > OUTSIDE)


def part_outside(shares: Array, tried: Array) -> float:
    """Return which part of a mixture is beyond the proportions tried.

    Args:
        shares: The mixture, shape (domains,).
        tried: Those of the sweep, shape (mixtures, domains).
    """
    low, high = tried.min(0), tried.max(0)
    return float((np.maximum(low - shares, 0) + np.maximum(shares - high, 0)).sum())


def far_sentence(anchors: Sequence[Anchor], *, used: bool) -> str | None:
    """Return what is said of anchors far outside the sweep; None where there are none.

    Args:
        anchors: Those.
        used: Whether they are all there are, and so tell the level.
    """
    if not anchors:
        return None
    names = few([one.run for one in anchors])
    if used:
        return said(
            "the mixture of every anchor run ({runs}) is far outside the sweep, where the law is extrapolated: so is "
            "the level. Run the present mixture at that size",
            runs=names,
        )
    return said(
        "the mixture of anchor run {runs} is far outside the sweep, where the law is extrapolated: the level is the "
        "others'",
        runs=names,
    )


def contradiction(anchors: Sequence[Anchor], law: BaseLaw) -> str | None:
    """Return what is said of anchors that differ by more than a run's error about the law; None where they don't.

    The variance of their deviations against that of held-out runs, by an F test of each target and of their mean, at
    1 % for all of them together.

    Args:
        anchors: Of one size.
        law: Whose held-out errors are a run's.
    """
    free = law.runs - 2
    if len(anchors) < 2 or free < _FEWEST or not law.residual:
        return None
    names = [target for target in law.residual if all(target in one.deviation for one in anchors)]
    worst: tuple[float, str] | None = None
    for target in names:
        each = np.array([one.deviation[target] for one in anchors])
        ratio = float(each.var(ddof=1)) / law.residual[target] ** 2 if law.residual[target] > 0 else 0.0
        chance = float(fisher.sf(ratio, len(each) - 1, free))
        if worst is None or chance < worst[0]:
            worst = chance, target
    if worst is None or worst[0] > _FALSE_ALARM / len(names):
        return None
    target = worst[1]
    each = np.array([one.deviation[target] for one in anchors])
    low, high = anchors[int(each.argmin())], anchors[int(each.argmax())]
    return said(
        "anchor runs contradict one another: the level of {target} is {apart} lower by {low} than by {high}, and a run "
        "strays by {noise}. Did one of them go wrong, or was it evaluated on other data?",
        target=target,
        apart=percent(float(np.expm1(each.max() - each.min()))),
        low=low.run,
        high=high.run,
        noise=percent(law.residual[target]),
    )
