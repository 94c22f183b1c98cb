"""Runs' last losses about the law, and the later losses about what a fit to the earlier ones predicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import Grid, grid_of, volume_codes
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.held_out_errors import LaterErrors
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import law as find_law

_EARLY_VOLUMES = 3
"""Fewer don't identify a law's exponent and floor."""
_PARTS = 4


def later_errors(obs: Observations, fit: LawFit) -> LaterErrors | None:
    """Return how far losses are from what a fit to those up to half of the tokens predicts; None of few volumes.

    Each law is fitted to the losses up to half of the largest volume, or up to the third volume where that is later;
    an ensemble keeps its weights, and has no levels beyond what was observed. What is left over of the losses is
    averaged over runs, in up to four parts of log s: what a single mixture does is its form error.

    Args:
        obs: The sweep.
        fit: Its fit.
    """
    grid = grid_of(obs)
    log_s = np.broadcast_to(grid.log_u, grid.log_loss.shape[1:]) + np.log(grid.scale)
    counts = (grid.weight > 0) & (log_s > np.log(max(fit.warmup, 1e-300)) + 1e-9)
    volumes = np.unique(log_s[counts.any(0)])
    if not len(volumes):
        return None
    groups = volume_codes(volumes, SAME_VOLUME)
    if groups.max() < _EARLY_VOLUMES:
        return None
    half = volumes[volumes <= volumes[-1] - np.log(2)].max(initial=-np.inf)
    end = max(float(half), float(volumes[groups == _EARLY_VOLUMES - 1].max()))
    early = replace(grid, weight=grid.weight * (log_s <= end))
    seen = (counts & (log_s <= end)).any((0, 2))
    predicted = _predicted(early, fit)
    ahead = log_s - end
    part = np.minimum((ahead / ahead[counts.any(0)].max() * _PARTS).astype(int), _PARTS - 1)
    residual = np.exp(grid.log_loss) - predicted
    later = counts & (log_s > end) & seen[:, None] & np.isfinite(residual)
    every = [mask for mask in (later.any(0) & (part == one) for one in range(_PARTS)) if mask.any()]
    if not every:
        return None
    # A target that isn't predicted, or not in all parts, has no rate.
    means = {
        target: tuple(float(residual[i][later[i] & mask].mean()) for mask in every)
        for i, target in enumerate(grid.targets)
        if all((later[i] & mask).any() for mask in every)
    }
    weight = later.sum(0)
    return LaterErrors(tuple(float(np.average(ahead[m], weights=weight[m])) for m in every), means)


def _predicted(early: Grid, fit: LawFit) -> Array:
    """Return the losses by the fit's laws, fitted again to the early ones, (targets, runs, volumes); NaN if unknown."""
    result = np.zeros(early.log_loss.shape)
    used = np.zeros(len(early.targets), bool)
    for name, law_fit in (fit.members or {fit.law: fit}).items():
        problem = FitProblem(find_law(law_fit.law), early, law_fit.options)
        share = np.array([fit.targets[t].parameters.get(name, 0.0) if fit.members else 1.0 for t in problem.targets])
        at = [law_fit.theta(target) for target in problem.targets]
        runs = np.asarray((early.weight > 0).any((0, 2)))
        known = problem.identifiable(runs[None])[0]
        able = known[:, problem.law.traits.effect] & [theta is not None for theta in at]
        which = np.flatnonzero(able & (share > 0))
        start = np.stack([problem.box.held if theta is None else theta for theta in at])
        found = problem.solve(which, start[which], known[which])
        values = np.full((len(problem.targets), *early.log_loss.shape[1:]), np.nan)
        values[which] = np.exp(problem.predict(found.theta, which))
        for i in np.flatnonzero(share > 0):
            place = early.targets.index(problem.targets[i])
            result[place] += share[i] * values[i]
            used[place] = True
    result[~used] = np.nan
    return result


def last_residuals(obs: Observations, fit: LawFit) -> pd.DataFrame:
    """Return the residuals of each run's last losses: observed − predicted, nats; NaN where there is none."""
    last = obs.losses[obs.losses["tokens"] > fit.warmup].drop_duplicates(["run", "domain"], keep="last")
    observed = last.pivot_table(index="run", columns="domain", values="loss").reindex(
        index=list(obs.runs), columns=list(fit.targets)
    )
    tokens = last.pivot_table(index="run", columns="domain", values="tokens").reindex(
        index=observed.index, columns=observed.columns
    )
    shares = obs.mixtures.loc[observed.index, list(fit.domains)].to_numpy(float)
    residuals = observed.copy()
    for i, target in enumerate(fit.targets):
        known = tokens[target].notna().to_numpy()
        predicted = fit.losses(shares[known], tokens[target].to_numpy(float)[known]).to_numpy(float)[:, i]
        residuals.loc[known, target] = observed.loc[known, target].to_numpy(float) - predicted
    return residuals
