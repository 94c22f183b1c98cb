"""Held-out mixtures: the fold of each run, what fits without it predict, and the proportion floor chosen by that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.engine.grid import Grid, mixture_codes
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import FLOORS, FitOptions, ZeroShare
from bimix_tracking.fitting.single_law import fit_single, refit
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.laws.registry import law as find_law

MIN_MIXTURES = 3
_NEAR, _USUAL_STEP = 0.25, 0.9
"""Twins are so much nearer to one another than neighbours usually are, and which quantile of steps is usual."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class HeldOut:
    """Every loss as a law predicts it that was fitted without its mixture.

    Args:
        grid: What was fitted.
        predicted: log L, shape (targets, runs, volumes); NaN where the other folds don't identify it.
        fold: Of each run.
    """

    grid: Grid
    predicted: Array
    fold: Index

    def of(self, target: str) -> Array:
        """Return log L of one target, shape (runs, volumes)."""
        return np.asarray(self.predicted[self.grid.targets.index(target)])


def divide(obs: Observations, folds: int, seed: int) -> Index:
    """Return the fold of each run: whole groups of repeats and near-twins, in folds of about as many mixtures.

    Neither the order nor the names of runs and domains decide: the same sweep in another order has the same folds.

    Args:
        obs: The sweep.
        folds: At most so many.
        seed: Of the division.

    Raises:
        ObservationsError: Fewer than three mixtures.
    """
    mixture, twin = twins(obs)
    if int(mixture.max()) + 1 < MIN_MIXTURES:
        count = int(mixture.max()) + 1
        raise ObservationsError(
            f"{count} distinct mixture{'s' if count > 1 else ''}: holding one out takes at least {MIN_MIXTURES}"
        )
    count = int(twin.max()) + 1
    drawn = np.random.default_rng(seed).permutation(count)
    size = np.bincount(twin[np.unique(mixture, return_index=True)[1]], minlength=count)
    filled = np.zeros(min(folds, count), np.intp)
    fold = np.zeros(count, np.intp)
    for one in drawn[np.argsort(-size[drawn], kind="stable")]:
        fold[one] = filled.argmin()
        filled[fold[one]] += size[one]
    return np.asarray(fold[twin])


def twins(obs: Observations) -> tuple[Index, Index]:
    """Return the mixture of each run and its group of near-twins, both numbered whatever runs and domains are called.

    Mixtures nearer to one another than a quarter of the distance at which neighbours usually are (`_groups`) are
    twins: held out alone, one would be predicted from the other. Distances are of the square roots of proportions, in
    which a small domain's doubling counts, as it does in the laws, and a proportion of 0 is nothing special.

    Args:
        obs: The sweep.
    """
    shares = obs.mixtures.to_numpy(float)
    mixture = mixture_codes(shares)
    run, _ = obs.codes
    # Mixtures that differ by names only are distinguished by their losses.
    count = int(mixture.max()) + 1
    total = np.bincount(mixture[run], np.log(obs.losses["loss"].to_numpy(float)), count)
    mean = total / np.maximum(np.bincount(mixture[run], minlength=count), 1)
    first = np.unique(mixture, return_index=True)[1]
    order = np.lexsort((mean.round(9), *np.sort(shares[first].round(6)).T))
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    group = _groups(np.sqrt(shares[first][order]), len(order) // MIN_MIXTURES)
    return rank[mixture], group[rank[mixture]]


def _groups(at: Array, most: int) -> Index:
    """Number groups of points that are linked by steps shorter than is usual between neighbours, in the points' order.

    A step counts as short below a quarter of the 90th percentile of the steps of the minimum spanning tree: in a
    sweep of twins only, most steps are between twins. A group of more than `most` points is a dense part of the sweep,
    no set of twins, and is divided by its own distances.

    Args:
        at: Shape (points, coordinates).
        most: Points of a group.
    """
    if len(at) < MIN_MIXTURES:
        return np.arange(len(at))
    tree = linkage(at, "single")
    found = fcluster(tree, _NEAR * np.quantile(tree[:, 2], _USUAL_STEP), "distance")
    number = np.zeros(len(at), np.intp)
    for one in np.unique(found):
        mine = np.flatnonzero(found == one)
        parts = _groups(at[mine], most) if len(mine) > most else np.zeros(len(mine), np.intp)
        number[mine] = parts + number.max() + 1
    first, code = np.unique(number, return_index=True, return_inverse=True)[1:]
    return np.asarray(np.argsort(np.argsort(first))[code])


def smallest_training(obs: Observations, fold: Index) -> int:
    """Return how many distinct mixtures the smallest training part has."""
    mixture = mixture_codes(obs.mixtures.to_numpy(float))
    return min(len(np.unique(mixture[fold != one])) for one in np.unique(fold))


def fit_held_out(
    obs: Observations, law: str, options: FitOptions, fold: Index, *, after: Callable[[int], None] | None = None
) -> tuple[LawFit, HeldOut]:
    """Fit a law and predict each loss by a fit without its fold, with the proportion floor that predicts best.

    The floor is looked for where the law is infinite at 0, the options leave it open and the sweep has own proportions
    below the usual one; the error is the mean |error of log loss| over all held-out losses.

    Args:
        obs: The sweep.
        law: Which law, no ensemble.
        options: How it is fitted; their warm-up is known.
        fold: Fold of each run.
        after: Called with the number of fits, of a target and a fold each, made since its last call.

    Raises:
        ObservationsError: As `fit_single`.
    """
    found = []
    for floor in floors(obs, law, options):
        fit = fit_single(obs, law, replace(options, zero_share=floor))
        if after is not None:
            after(len(fit.targets))
        found.append((fit, held_out(obs, fit, fold, after=after)))
    return min(found, key=lambda one: _error(one[1])) if len(found) > 1 else found[0]


def floors(obs: Observations, law: str, options: FitOptions) -> tuple[ZeroShare, ...]:
    """Return the proportion floors to choose from, the usual one first; that of the options where there is no choice.

    Args:
        obs: The sweep.
        law: Which law.
        options: How it is fitted.
    """
    own = [target for target in obs.targets if target in obs.domains]
    if options.zero_share != "chosen" or not find_law(law).traits.infinite_at_zero or not own:
        return (options.zero_share,)
    least = float(obs.mixtures[own].to_numpy(float).min())
    # Of floors that are all below the smallest proportion, one is enough: they don't differ.
    return tuple(floor for larger, floor in zip((1.0, *FLOORS), FLOORS, strict=False) if larger > least)


def _error(found: HeldOut) -> float:
    error = np.abs(found.predicted - found.grid.log_loss)[found.grid.weight > 0]
    return float(np.nanmean(error)) if np.isfinite(error).any() else np.inf


def held_out(obs: Observations, fit: LawFit, fold: Index, *, after: Callable[[int], None] | None = None) -> HeldOut:
    """Predict each loss by a fit without its fold.

    Args:
        obs: The sweep.
        fit: Its fit, of one law: where the fits without a fold start from.
        fold: Fold of each run.
        after: As in `fit_held_out`.
    """
    count = int(fold.max()) + 1
    theta = refit(obs, fit, (fold[None, :] != np.arange(count)[:, None]).astype(float), after=after)
    problem = FitProblem.of(obs, find_law(fit.law), fit.options)
    predicted = np.full(problem.grid.log_loss.shape, np.nan)
    for one in range(count):
        known, mine = np.flatnonzero(np.isfinite(theta[one]).all(-1)), np.flatnonzero(fold == one)
        if len(known):
            predicted[np.ix_(known, mine)] = problem.predict(theta[one][known], known)[:, mine]
    return HeldOut(problem.grid, predicted, fold)
