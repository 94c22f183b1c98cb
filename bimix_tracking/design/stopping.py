"""What an anchor run may stop early at: the error at the end of its schedule, measured on a sweep's own curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.base_law import BaseLaw
from bimix_tracking.fitting.alignment.groups import Group, grouped, knots
from bimix_tracking.fitting.alignment.level_curves import RunLevel, level_curve, run_levels
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array

PARTS = (0.2, 0.3, 0.5, 0.7)
"""Of a run's schedule."""
SUM = "weighted sum"
_FEWEST_POINTS = 2
_FEWEST_RUNS = 3
_REACHED = 0.9
"""A run tells of the end from here on."""
_MOST = 24
"""So many runs are asked at most: more don't move a root mean square."""


@dataclass(frozen=True)
class Stopping:
    """How far the loss at the end is from what a curve up to a part of its schedule leads to.

    Args:
        error: Root mean square over runs, relative; one row a part, one column a target and `SUM`. NaN where too few
            evaluations come before it.
        runs: Of how many runs.
        size: The model size of those runs; None: unknown.
        base: The size whose law the curves were extended along; the same where the sweep has one.
    """

    error: pd.DataFrame
    runs: int
    size: float | None
    base: float | None

    @property
    def across(self) -> bool:
        """Whether the law is of another size than the runs, as it will be for an anchor."""
        return self.size != self.base

    def at(self, part: float, target: str = SUM) -> float:
        """Return the error of stopping at a part of the schedule: 0 at its end, interpolated in between.

        Args:
            part: Between 0 and 1.
            target: A target, or `SUM`.
        """
        if part >= 1:
            return 0.0
        known = self.error[target].dropna()
        parts = np.r_[known.index.to_numpy(float), 1.0]
        if part < parts[0] - 1e-9 or len(parts) == 1:
            return float("nan")
        return float(np.interp(part, parts, np.r_[known.to_numpy(float), 0.0]))


def stopping(
    obs: Observations, fit: LawFit, weights: Mapping[str, float], parts: Sequence[float] = PARTS
) -> Stopping | None:
    """Return what stopping early costs: each run of the largest size with three is cut, its curve extended to the end.

        e_c = log L(end) − log L̂(end | the curve up to c)

    extended as an anchor's is (`fitting.alignment.level_curves`), along the law of the smaller sizes. With one size
    that is the fit itself, and how a larger model's curve differs isn't in e_c.

    Args:
        obs: The sweep, with runs of one size or several.
        fit: Its fit.
        weights: Of the targets in the sum.
        parts: Of a run's schedule.

    Returns:
        None where fewer than three runs have curves that reach their end.
    """
    groups = [group for group in (grouped(obs) if obs.sizes else [_alone(obs)]) if len(group.runs) >= _FEWEST_RUNS]
    if not groups:
        return None
    largest = groups[-1]
    smaller = [group for group in groups if group.size < largest.size]
    base = max(smaller or [largest], key=lambda one: (one.mixtures, one.size))
    if largest.observations.losses.groupby(["run", "domain"]).size().max() < _FEWEST_POINTS + 1:
        return None
    try:
        law = BaseLaw.of(base) if smaller else BaseLaw(base, fit.at(base.size) if fit.bridge else fit)
    except ObservationsError:  # too few runs of the smaller size
        return None
    curves = run_levels(largest, law, beside_pairs=bool(smaller))
    whole = [one for one in curves if one.progress[-1] >= _REACHED][:_MOST]
    if len(whole) < _FEWEST_RUNS:
        return None
    where = knots(np.concatenate([one.progress for one in whole]))
    rows = {part: _root_mean_square([_error(one, part, law, where) for one in whole], law, weights) for part in parts}
    sizes = (largest.size or None, base.size or None)
    return Stopping(pd.DataFrame.from_dict(rows, orient="index"), len(whole), *sizes)


def _alone(obs: Observations) -> Group:
    """Return the runs of a sweep whose sizes are unknown."""
    return Group(0.0, float(np.median([obs.schedule_of(run) for run in obs.runs])), obs)


def _error(run: RunLevel, part: float, law: BaseLaw, where: Array) -> tuple[Array, Array]:
    """Return the error at a run's end, relative, and its loss there, both (targets,); NaN where it can't be asked."""
    kept = run.progress <= part * (1 + 1e-9)
    end, loss = run.level[-1], np.exp(run.level[-1] + run.law[-1])
    if kept.sum() < _FEWEST_POINTS:
        return np.full(len(end), np.nan), loss
    cut = replace(run, progress=run.progress[kept], level=run.level[kept], law=run.law[kept])
    reached = level_curve([cut], law, where).levels()
    at = np.log(run.progress[-1])
    found = [
        float(np.interp(at, *np.array([(np.log(p), value) for p, value in knots_]).T)) if knots_ else np.nan
        for knots_ in (reached[target] for target in law.targets)
    ]
    return end - np.array(found), loss


def _root_mean_square(
    errors: Sequence[tuple[Array, Array]], law: BaseLaw, weights: Mapping[str, float]
) -> dict[str, float]:
    each, losses = np.stack([one for one, _ in errors]), np.stack([loss for _, loss in errors])
    weight = np.array([weights.get(target, 0.0) for target in law.targets])
    use = weight > 0
    sums = (each[:, use] * losses[:, use]) @ weight[use] / (losses[:, use] @ weight[use])
    columns = [*zip(law.targets, each.T, strict=True), (SUM, sums)]
    return {name: float(np.sqrt(np.nanmean(e**2))) if np.isfinite(e).any() else float("nan") for name, e in columns}
