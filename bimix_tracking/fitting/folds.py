"""Held-out mixtures: which fold each run is in, and what a fit without a fold predicts of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.grid import Grid, mixture_codes
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.problem import FitProblem
from bimix_tracking.fitting.single_law import refit
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.laws.registry import law as find_law

MIN_MIXTURES = 3


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class HeldOut:
    """Every loss as a law predicts it that was fitted without its mixture.

    Args:
        grid: What was fitted.
        predicted: log L, shape (targets, runs, volumes); NaN where the other folds cannot tell.
        fold: Of each run.
    """

    grid: Grid
    predicted: Array
    fold: Index

    def of(self, target: str) -> Array:
        """Return log L of one target, shape (runs, volumes)."""
        return np.asarray(self.predicted[self.grid.targets.index(target)])


def divide(obs: Observations, folds: int, seed: int) -> Index:
    """Return the fold of each run; runs of one mixture share one, for a repeat would give its twin away.

    Raises:
        ObservationsError: Fewer than three mixtures.
    """
    mixture = mixture_codes(obs.mixtures.to_numpy(float))
    count = int(mixture.max()) + 1
    if count < MIN_MIXTURES:
        raise ObservationsError(
            f"{count} distinct mixture{'s' if count > 1 else ''}: leaving one out needs at least {MIN_MIXTURES}"
        )
    order = np.random.default_rng(seed).permutation(count)
    return np.asarray((order % min(folds, count))[mixture])


def smallest_training(obs: Observations, fold: Index) -> int:
    """Return how many distinct mixtures the smallest training part has."""
    mixture = mixture_codes(obs.mixtures.to_numpy(float))
    return min(len(np.unique(mixture[fold != one])) for one in np.unique(fold))


def held_out(obs: Observations, fit: LawFit, fold: Index) -> HeldOut:
    """Predict each loss by a fit without its fold.

    Args:
        obs: The sweep.
        fit: Its fit, of one law: where the fits without a fold start from.
        fold: Fold of each run.
    """
    count = int(fold.max()) + 1
    theta = refit(obs, fit, (fold[None, :] != np.arange(count)[:, None]).astype(float))
    problem = FitProblem.of(obs, find_law(fit.law), fit.options)
    predicted = np.full(problem.grid.log_loss.shape, np.nan)
    for one in range(count):
        told, mine = np.flatnonzero(np.isfinite(theta[one]).all(-1)), np.flatnonzero(fold == one)
        if len(told):
            predicted[np.ix_(told, mine)] = problem.predict(theta[one][told], told)[:, mine]
    return HeldOut(problem.grid, predicted, fold)


def noise_floor(obs: Observations) -> float | None:
    """Return the mean relative error that even the right law would have, from runs that repeat a mixture.

    √(2/π) σ with σ² half the mean squared difference of log loss between two runs of one mixture at the same
    tokens. None where no mixture is repeated.

    Args:
        obs: The sweep.
    """
    table = obs.losses.assign(
        mixture=pd.Series(mixture_codes(obs.mixtures.to_numpy(float)), index=list(obs.runs))
        .reindex(obs.losses["run"])
        .array
    )
    table["log_loss"] = np.log(table["loss"])
    groups = table.groupby(["mixture", "tokens", "domain"])["log_loss"]
    count, variance = groups.size(), groups.var()
    repeated = count > 1
    if not repeated.any():
        return None
    free = count[repeated] - 1
    return float(np.sqrt(2 / np.pi) * np.sqrt((variance[repeated] * free).sum() / free.sum()))
