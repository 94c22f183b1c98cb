"""The ensemble: a stack of fitted laws, weighted per target domain by what each says of held-out mixtures.

    L_i(r, s) = e^δ_i(s) Σ_k w_ik L_ik(r, s),   w_ik ≥ 0,   Σ_k w_ik = 1

The weights minimise Σ (Σ_k w_ik e_ik)² over the held-out errors e of log loss, which are small, so a mean of losses
and one of log losses differ by less than 1e-4 of the loss; of the two, the mean of losses keeps convex laws convex.

A wild loss is known by the best law's error there, and counts less for all laws alike: errors clipped law by law make
one with large errors everywhere look hardly worse than the best. Few mixtures don't identify weights, so a target's are
drawn to those of all targets together, and these to the simplest law: as strongly as so many runs would.

δ_i(s) is what all runs have in common at one checkpoint and no smooth law has: the learning-rate schedule, the order
of the data. It is the median held-out error there, kept as far as it exceeds its own standard error, interpolated in
log s, and fades to 0 outside the volumes observed, within a step between checkpoints. It moves all mixtures alike, so
no recommendation depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.engine.grid import Grid
from bimix_tracking.fitting.folds import HeldOut, divide, fit_held_out, smallest_training
from bimix_tracking.fitting.held_out_errors import HeldOutErrors, sampling_of
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import Levels, level_at
from bimix_tracking.fitting.options import USUAL, FitOptions
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.fitting.single_law import goodness
from bimix_tracking.fitting.warmup import settled
from bimix_tracking.fitting.weighing import squares_of, stack_weights, weights_of
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.laws.registry import ENSEMBLE, broken, names
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import said


def fit_ensemble(
    obs: Observations,
    laws: Sequence[str] | None = None,
    *,
    options: FitOptions = USUAL,
) -> LawFit:
    """Fit the laws, find their weights on held-out mixtures, and return the stack as one fit.

    Args:
        obs: The sweep.
        laws: Names, the simplest first; None: all of `laws.names()`. A law that needs more mixtures than a training
            part has is excluded, as is one of another package that cannot be used.
        options: How each law is fitted, and the mixtures divided.

    Raises:
        ObservationsError: Fewer than three mixtures, or too few for any of the laws.
    """
    fold = divide(obs, options.folds, options.seed)
    options = settled(obs, options)
    laws = names() if laws is None else laws
    refused = too_demanding(obs, laws, fold)
    usable = [name for name in laws if name not in refused]
    if not usable:
        raise ObservationsError("no law can be stacked: " + "; ".join(f"{n}: {why}" for n, why in refused.items()))
    fits, predictions = {}, {}
    for name in usable:
        fits[name], predictions[name] = fit_held_out(obs, name, options, fold)
    fit = stack(obs, fits, predictions)
    grid, predicted = held_out_stack(fit, predictions)
    parts = []
    for target, values in predicted.items():
        i = grid.targets.index(target)
        counts = grid.at(grid.weight[i]) > 0
        observed, expected = (np.exp(grid.at(each)[counts]) for each in (grid.log_loss[i], values))
        part = {"run": np.array(obs.runs)[grid.run[counts]], "tokens": np.exp(grid.at_u[counts]) * grid.scale}
        parts.append(pd.DataFrame({**part, "domain": target, "observed": observed, "predicted": expected}))
    return replace(fit, held_out=HeldOutErrors.of(pd.concat(parts).dropna(), obs.mixtures, sampling_of(obs)))


def held_out_stack(fit: LawFit, predictions: Mapping[str, HeldOut]) -> tuple[Grid, dict[str, Array]]:
    """Return what an ensemble predicts of held-out mixtures; a fold's weights and levels are found on the others.

    Args:
        fit: The ensemble.
        predictions: Its laws' held-out predictions.

    Returns:
        The grid, and by target log L, shape (runs, volumes).
    """
    widest = max(predictions.values(), key=lambda one: len(one.grid.targets))
    grid, fold = widest.grid, widest.fold
    predicted: dict[str, Array] = {target: np.full(grid.log_loss.shape[1:], np.nan) for target in fit.targets}
    squares = squares_of(predictions, fit.huber_delta)
    for one in range(int(fold.max()) + 1):
        mine = fold == one
        volumes = np.broadcast_to(grid.log_u, grid.log_loss.shape[1:])[mine]
        stacked = weights_of(squares, tuple(predictions), np.asarray(fold != one))
        levels = common_levels(predictions, stacked, keep=fold != one)
        for target, values in combine(predictions, stacked).items():
            above = level_at(levels[target], np.exp(volumes.reshape(-1)) * grid.scale)
            predicted[target][mine] = values[mine] + above.reshape(volumes.shape)
    return grid, predicted


_MOST_WORK = 1e9
"""Multiplications of one step of a law's fit to all targets, and a fit with its folds takes hundreds of steps: 100
domains are well below, with 200 it is minutes, with 500 a day."""


def too_demanding(obs: Observations, laws: Sequence[str], fold: Index) -> dict[str, str]:
    """Return the laws that need more mixtures than a training part has, or too long, or are broken, and why."""
    mixtures = smallest_training(obs, fold)
    found = {}
    for name in laws:
        useless = broken(name)
        if useless:
            found[name] = useless
            continue
        law = find_law(name)
        parameters = len(law.parameters(obs.domains))
        if law.traits.mixtures_needed > mixtures:
            found[name] = said(
                "it needs {needed} mixtures; holding a fold out leaves {left}",
                needed=law.traits.mixtures_needed,
                left=mixtures,
            )
        elif len(obs.targets) * parameters**3 / 3 > _MOST_WORK:
            found[name] = said(
                "it has {parameters} parameters for each of {targets} targets: too slow to fit among other laws. Join "
                "small domains, or use this law alone",
                parameters=parameters,
                targets=len(obs.targets),
            )
    return found


_LEVEL_RUNS = 5
"""So many runs must share a checkpoint before it is said to have a level of its own."""


def stack(obs: Observations, fits: Mapping[str, LawFit], predictions: Mapping[str, HeldOut]) -> LawFit:
    """Return the ensemble of fits whose held-out predictions are at hand."""
    first = next(iter(fits.values()))
    weights = stack_weights(predictions, first.huber_delta)
    levels = common_levels(predictions, weights)
    targets = {}
    for target in obs.targets:
        tried = {name: fit.targets[target] for name, fit in fits.items() if target in fit.targets}
        if not tried:
            continue  # no law of these can have it: see each law's `needs_own`
        by_law = weights.get(target) or _borrowed(weights, [n for n, fitted in tried.items() if fitted.outcome.usable])
        # A target that no law predicts stays, with no weights and the reason.
        used = [tried[name] for name, weight in by_law.items() if weight > 0] or list(tried.values())
        targets[target] = DomainFit(
            parameters={name: by_law.get(name, 0.0) for name in fits},
            outcome=Outcome.worst(fitted.outcome for fitted in used),
            points=max(fitted.points for fitted in used),
            runs=max(fitted.runs for fitted in used),
            error=float("nan"),
            r2=float("nan"),
            starts=min((fitted.starts for fitted in used), key=lambda starts: starts[0] / max(starts[1], 1)),
            shares=used[0].shares,
            tokens=used[0].tokens,
        )
    notes = dict.fromkeys(note for fit in fits.values() for note in fit.notes if "only has losses" not in note.reason)
    ensemble = LawFit(
        law=ENSEMBLE,
        domains=first.domains,
        targets=targets,
        tokens=first.tokens,
        scale=first.scale,
        huber_delta=first.huber_delta,
        zero_share=min((f.zero_share for f in fits.values() if f.zero_share is not None), default=None),
        data_hash=first.data_hash,
        source=first.source,
        notes=tuple(notes),
        warmup=first.warmup,
        members=dict(fits),
        shares=first.shares,
        levels={target: levels.get(target, ()) for target in targets},
        described=first.described,
        links=first.links,
    )
    return _with_residuals(ensemble, predictions)


def _borrowed(weights: Mapping[str, Mapping[str, float]], usable: Sequence[str]) -> dict[str, float]:
    """Return the mean weights of the other targets, for one without held-out errors; none without a law."""
    mean = {name: sum(by_law.get(name, 0.0) for by_law in weights.values()) for name in usable}
    total = sum(mean.values())
    if total > 0:
        return {name: weight / total for name, weight in mean.items()}
    return {name: float(name == usable[0]) for name in usable}


def combine(predictions: Mapping[str, HeldOut], weights: Mapping[str, Mapping[str, float]]) -> dict[str, Array]:
    """Return by target log Σ w L of the laws' predictions, shape (runs, volumes)."""
    result = {}
    for target, by_law in weights.items():
        parts = [weight * np.exp(predictions[name].of(target)) for name, weight in by_law.items() if weight > 0]
        result[target] = np.log(np.sum(parts, axis=0))
    return result


def common_levels(
    predictions: Mapping[str, HeldOut], weights: Mapping[str, Mapping[str, float]], keep: Index | None = None
) -> dict[str, Levels]:
    """Return by target (tokens, δ) at each checkpoint that enough runs share.

    Args:
        predictions: By law.
        weights: By target and law.
        keep: Runs that count, boolean; None: all.
    """
    result: dict[str, Levels] = {}
    for target, stacked in combine(predictions, weights).items():
        grid = next(one.grid for one in predictions.values() if target in one.grid.targets)
        i = grid.targets.index(target)
        counts = np.isfinite(stacked) & (grid.weight[i] > 0)
        if keep is not None:
            counts &= np.asarray(keep, bool)[:, None]
        residual = (grid.log_loss[i] - stacked)[counts]
        log_u, code, number = np.unique(
            np.broadcast_to(grid.log_u, counts.shape)[counts], return_inverse=True, return_counts=True
        )
        shared = number >= _LEVEL_RUNS
        if not shared.any():
            result[target] = ()
            continue
        # A column a checkpoint, filled up with NaN.
        order = np.argsort(code, kind="stable")
        columns = np.full((int(number.max()), len(number)), np.nan)
        columns[np.arange(len(residual)) - np.repeat(np.cumsum(number) - number, number), code[order]] = residual[order]
        columns, number = columns[:, shared], number[shared]
        middle = _medians(columns, number)
        # 1.4826 MAD estimates σ, and the median of n has an error of 1.2533 σ / √n.
        error = 1.2533 * 1.4826 * _medians(np.abs(columns - middle), number) / np.sqrt(number)
        kept = np.where(np.abs(middle) > error, middle - error**2 / np.where(middle == 0, 1, middle), 0.0)
        result[target] = tuple(zip((np.exp(log_u[shared]) * grid.scale).tolist(), kept.tolist(), strict=True))
    return result


def _medians(columns: Array, number: Index) -> Array:
    """Return the median of each column, of which so many values are no NaN."""
    ordered, each = np.sort(columns, axis=0), np.arange(len(number))  # NaN comes last
    return np.asarray((ordered[(number - 1) // 2, each] + ordered[number // 2, each]) / 2)


def _with_residuals(fit: LawFit, predictions: Mapping[str, HeldOut]) -> LawFit:
    """Fill in error and R² of the stack on the losses fitted."""
    targets, widest = {}, max(predictions.values(), key=lambda one: len(one.grid.targets)).grid
    predicted = dict(zip(fit.targets, fit.surface(widest.shares, np.exp(widest.log_u) * fit.scale), strict=True))
    for target, fitted in fit.targets.items():
        name = next((n for n, weight in fitted.parameters.items() if weight > 0), None)
        if name is None:
            targets[target] = fitted
            continue
        grid = predictions[name].grid
        i = grid.targets.index(target)
        counts = grid.weight[i] > 0
        observed = grid.log_loss[i][counts]
        error, r2 = goodness(observed, np.log(predicted[target][counts]) - observed)
        targets[target] = replace(fitted, error=error, r2=r2)
    return replace(fit, targets=targets)
