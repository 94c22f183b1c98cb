"""The weights of a stack: how much each law is believed, per target, by its errors on held-out mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from bimix_tracking.fitting.folds import HeldOut
from bimix_tracking.laws.protocol import Array, Index

_WILD, _WILD_DELTAS = 5.0, 3.0
"""A loss that even the best law misses by more than five usual errors, and three δ, counts as if it missed by that."""
_TO_SIMPLEST, _TO_ALL = 1.0, 30.0
"""Runs' worth of evidence that draw the common weights to the simplest law, and a target's to the common ones."""


def stack_weights(
    predictions: Mapping[str, HeldOut], delta: float, keep: Index | None = None
) -> dict[str, dict[str, float]]:
    """Return target → law → weight, from held-out predictions.

    Args:
        predictions: By law, the simplest first.
        delta: δ of the Huber loss the laws were fitted with.
        keep: Runs that count, boolean; None: all.
    """
    return weights_of(squares_of(predictions, delta), tuple(predictions), keep)


def weights_of(
    squares: Mapping[str, Squares], laws: tuple[str, ...], keep: Index | None
) -> dict[str, dict[str, float]]:
    """Return target → law → weight, from squares at hand.

    Args:
        squares: By target, as `squares_of` returns them.
        laws: All laws, the simplest first.
        keep: Runs that count, boolean; None: all.
    """
    common: dict[str, float] = {}
    shared = [one for one in squares.values() if one.laws == laws]
    if shared:
        each = [one.counted(keep) for one in shared]
        products, runs = (
            np.sum([found for found, _ in each], axis=0),
            np.logical_or.reduce([known for _, known in each]),
        )
        simplest = np.eye(len(laws))[0]
        common = dict(zip(laws, _simplex(products, int(runs.sum()), _TO_SIMPLEST, simplest), strict=True))
    result = {}
    for target, one in squares.items():
        products, known = one.counted(keep)
        towards = np.array([common.get(n, 0.0) for n in one.laws])
        towards = towards / towards.sum() if towards.sum() > 0 else np.eye(len(towards))[0]
        found = _simplex(products, int(known.sum()), _TO_ALL, towards)
        result[target] = dict(zip(one.laws, found.tolist(), strict=True))
    return result


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Squares:
    """Sums of squares of one target's held-out errors: a run's are the same, whichever folds the others are in.

    Args:
        laws: Which have errors of it.
        products: Σ w e_k e_l of each run over the checkpoints where all of them have one, shape (runs, laws, laws).
        known: Which runs have any, shape (runs,).
    """

    laws: tuple[str, ...]
    products: Array
    known: npt.NDArray[np.bool_]

    def counted(self, keep: Index | None) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the sum over the runs that count, and which of them have any error."""
        known = self.known.copy()
        if keep is not None:
            known &= np.asarray(keep, bool)
        return self.products[known].sum(0), known


def squares_of(predictions: Mapping[str, HeldOut], delta: float) -> dict[str, Squares]:
    """Return by target the squares of held-out errors, in which errors shared by even the best law count less.

    Args:
        predictions: By law, the simplest first.
        delta: δ of the Huber loss the laws were fitted with.
    """
    errors = _tamed(predictions, delta)
    result = {}
    for target in dict.fromkeys(t for by_target in errors.values() for t in by_target):
        laws = tuple(name for name, by_target in errors.items() if target in by_target)
        table = np.stack([errors[name][target] for name in laws], -1)
        whole: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(table), axis=-1)
        table = np.where(whole[..., None], table, 0.0)
        result[target] = Squares(laws, np.swapaxes(table, 1, 2) @ table, np.logical_or.reduce(whole, axis=1))
    return result


def _tamed(predictions: Mapping[str, HeldOut], delta: float) -> dict[str, dict[str, Array]]:
    """Return by law and target the weighted held-out errors of log loss, (runs, volumes), NaN where there is none.

    What even the best law misses by too much is scaled down to the most that counts, for all laws alike.
    """
    errors: dict[str, dict[str, Array]] = {}
    for name, one in predictions.items():
        grid = one.grid
        error = np.where(grid.weight > 0, one.predicted - grid.log_loss, np.nan)
        errors[name] = {t: each for t, each in zip(grid.targets, error, strict=True) if np.isfinite(each).any()}
    shared = [t for t in next(iter(errors.values())) if all(t in by_target for by_target in errors.values())]
    usual = {
        name: 1.4826 * float(np.nanmedian(np.abs(np.stack([by_target[t] for t in shared or by_target]))))
        for name, by_target in errors.items()
        if by_target
    }
    by_error = sorted(usual, key=usual.__getitem__)
    most = max(_WILD_DELTAS * delta, _WILD * min(usual.values(), default=0.0))
    result: dict[str, dict[str, Array]] = {name: {} for name in errors}
    for name, by_target in errors.items():
        grid = predictions[name].grid
        for target, error in by_target.items():
            best = next(errors[n][target] for n in by_error if target in errors[n])
            root = np.sqrt(grid.weight[grid.targets.index(target)])
            result[name][target] = root * error / np.maximum(np.abs(best) / most, 1.0)
    return result


def _simplex(products: Array, runs: int, strength: float, towards: Array) -> Array:
    """Return argmin |E w|² + λ |w − towards|² over w ≥ 0, Σ w = 1, λ = `strength` runs' worth of squared error.

    Args:
        products: EᵀE of the errors E.
        runs: Of how many runs they are.
        strength: Of the pull.
        towards: To which weights.
    """
    if not runs:
        return towards
    level = max(float(np.diagonal(products).min()), 1e-30)
    ridge = np.sqrt(strength * level / runs)
    binding = 1e3 * np.sqrt(level * max(strength, 1.0))  # Σ w = 1 to about 1e-6, and exactly by the last line
    scale = np.sqrt(np.maximum(np.diagonal(products), 1e-30))  # so that small errors aren't lost beside large ones
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    root = np.sqrt(np.maximum(values, 0))[:, None] * vectors.T * scale
    rows = np.concatenate([root, ridge * np.eye(len(towards)), binding * np.ones((1, len(towards)))])
    weights, _ = nnls(rows, np.r_[np.zeros(len(root)), ridge * towards, binding])
    weights[weights < 1e-3] = 0.0  # not worth a law in the sum
    return np.asarray(weights / weights.sum())
