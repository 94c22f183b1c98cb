"""The fit of one law, and its refits to other weights of the runs: parameters, errors and outcome of each target.

Each domain is its own small problem: minimise Σ w ρ_δ(log L_observed − log L_law) with the Huber loss ρ, from
several starts, plus what the law shrinks. Errors of log loss are relative errors of loss, so δ = 0.01 means: what
is off by more than 1 % pulls no harder than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.least_squares import Prior
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.fitting.problem import Points, points_of
from bimix_tracking.fitting.solver import BATCH, agreeing, best_of, by_run, prior_of, solve, told
from bimix_tracking.laws.protocol import Array, Law
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import few

_REFIT_STEPS = 150
"""Enough from the fit at hand; what isn't there by then moves in directions nothing depends on."""
_ROUGH_REFIT, _ROUGH_REFIT_STEPS = 1e-6, 30
"""Of refits whose spread is wanted and not their last digits."""
_RISES = 0.005
"""A median log loss that is so much higher at the end of the runs than at their start is no noise."""


def fit_single(obs: Observations, law: str, options: FitOptions) -> LawFit:
    """Fit one law, which is no ensemble, as `fit_law` does, by options whose warm-up is known.

    Raises:
        ObservationsError: No target domain is a domain of the mixtures, and the law needs one.
        ValueError: No such law.
    """
    model = find_law(law)
    notes = list(obs.notes)
    points = points_of(obs, model, options, notes=notes)
    if not points.targets:
        raise ObservationsError(
            f"no loss is of a domain of the mixtures, and {law} needs a target's own proportion: losses are of "
            f"{few(obs.targets)}, domains are {few(obs.domains)}"
        )
    tokens = obs.losses["tokens"]
    return LawFit(
        law=law,
        domains=obs.domains,
        targets=_fit_targets(model, points, options.huber_delta, obs.domains),
        tokens=(float(tokens.min()), float(tokens.max())),
        scale=points.scale,
        huber_delta=options.huber_delta,
        zero_share=options.floor if options.clamped else None,
        data_hash=obs.data_hash,
        source=obs.source,
        notes=tuple(notes),
        warmup=options.warmup_end,
        shares={d: (float(obs.mixtures[d].min()), float(obs.mixtures[d].max())) for d in obs.domains},
    )


def refit(
    obs: Observations,
    fit: LawFit,
    run_weights: Array,
    *,
    roughly: bool = False,
    after: Callable[[int], None] | None = None,
) -> Array:
    """Fit again with each run counted so often: held-out folds (0 or 1), or bootstrap replicates (how often drawn).

    All replicates of all targets start from the fit at hand, so a replicate costs a few steps.

    Args:
        obs: The sweep that was fitted.
        fit: Its fit, of one law.
        run_weights: Shape (replicates, runs).
        roughly: Stop when the cost hardly falls any more.
        after: Is told how many refits, a replicate and a target each, were made since it was told last.

    Returns:
        θ of the law, shape (replicates, targets, parameters); NaN where a target's fit is not usable, or the runs
        that are left cannot tell the effect of the mixture.
    """
    model = find_law(fit.law)
    points = points_of(obs, model, fit.options)
    run_weights = np.asarray(run_weights, float)
    count, domains = len(points.targets), len(obs.domains)
    held = model.held(domains)
    at = [fit.theta(target) if fit.targets[target].outcome.usable else None for target in points.targets]
    known = told(model, points, run_weights > 0)
    usable = np.array([theta is not None for theta in at])[None, :] & known[..., model.effect]
    start = np.stack([held if theta is None else theta for theta in at])
    replicate, which = (values.reshape(-1) for values in np.indices((len(run_weights), count)))
    result = np.full((len(run_weights), count, len(held)), np.nan)
    size = max(1, BATCH // max(1, len(points.run) * len(held)))
    asked = np.flatnonzero(usable[replicate, which])
    for chunk in np.split(asked, range(size, len(asked), size)):
        if len(chunk):
            weight = points.weight[which[chunk]] * run_weights[replicate[chunk]][:, points.run]
            found = solve(
                model,
                points,
                which[chunk],
                start[which[chunk]],
                weight,
                known[replicate[chunk], which[chunk]],
                fit.huber_delta,
                most_steps=_ROUGH_REFIT_STEPS if roughly else _REFIT_STEPS,
                tolerance=_ROUGH_REFIT if roughly else None,
            )
            result[replicate[chunk], which[chunk]] = found.theta
            if after is not None:
                after(len(chunk))
    return result


def _fit_targets(model: Law, points: Points, delta: float, domains: tuple[str, ...]) -> dict[str, DomainFit]:
    best, rough, found, told = best_of(model, points, delta)
    agree = agreeing(rough.cost, points)
    prior = prior_of(model, points)
    lower, upper = model.bounds(points.own, points.inputs, points.log_loss, points.weight)
    log_loss = model.evaluate(best, points.own, points.inputs)[0]
    inside = (best > lower + 1e-9) & (best < upper - 1e-9)
    errors = _standard_errors(model, points, best, delta, prior, told & inside, domains)
    fits = {}
    for i, target in enumerate(points.targets):
        counts = points.weight[i] > 0
        residual = (log_loss[i] - points.log_loss[i])[counts]
        free = told[i] & (lower[i] < upper[i])
        at_bound = {}
        for name, position in model.watched.items():
            if free[position] and best[i, position] <= lower[i, position] + 1e-9:
                at_bound[name] = "low"
            elif free[position] and best[i, position] >= upper[i, position] - 1e-9:
                at_bound[name] = "high"
        unshrunk = int((free & (np.diagonal(prior.precision[i]) == 0)).sum())
        outcome = _outcome(
            model,
            points,
            i,
            unshrunk=unshrunk,
            best=best[i],
            told=told[i],
            at_bound=at_bound,
            agree=int(agree[i]),
            converged=bool(found.converged[i]),
        )
        parameters = model.report(best[i], points.scale, int(points.own[i]), domains)
        nothing = outcome is Outcome.TOO_FEW_POINTS
        # β and C that the data cannot tell are held at "no change with s" and "no floor": values a prediction can
        # use within the observed volumes. A held α is no value: it would promise that the mixture doesn't matter.
        unknown = {"alpha"} if not told[i, 0] else set()
        own = points.shares[i][counts]
        error, r2 = goodness(points.log_loss[i][counts], residual)
        fits[target] = DomainFit(
            parameters={n: np.nan if nothing or n in unknown else v for n, v in parameters.items()},
            outcome=outcome,
            points=int(counts.sum()),
            runs=len(np.unique(points.run[counts])),
            error=error,
            r2=r2,
            starts=(int(agree[i]), rough.cost.shape[1]),
            shares=(float(own.min()), float(own.max())) if points.own[i] >= 0 and counts.any() else (0.0, 0.0),
            standard_errors={} if nothing else {n: v for n, v in errors[i].items() if n not in unknown},
            tokens=_observed(points, counts),
        )
    return fits


def _standard_errors(
    model: Law,
    points: Points,
    theta: Array,
    delta: float,
    prior: Prior,
    free: npt.NDArray[np.bool_],
    domains: tuple[str, ...],
) -> list[dict[str, float]]:
    """Return standard errors of the reported parameters: the sandwich over whole runs, through `report`'s slopes.

    Points of one run share what went well or badly in it, so the run is the unit. NaN with fewer than three runs, and
    of a parameter at its bound: which way it would go is known, how far is not.
    """
    scores, curvature = by_run(model, points, theta, delta)
    result = []
    for i, at in enumerate(theta):
        runs = int(curvature[i].any((-1, -2)).sum())
        use = free[i]
        names = list(model.report(at, points.scale, int(points.own[i]), domains))
        if runs < 3 or not use.any():
            result.append(dict.fromkeys(names, float("nan")))
            continue
        inverse = np.linalg.pinv((curvature[i].sum(0) + prior.precision[i])[np.ix_(use, use)], hermitian=True)
        meat = scores[i][:, use].T @ scores[i][:, use]
        spread = np.zeros((len(at), len(at)))
        spread[np.ix_(use, use)] = inverse @ meat @ inverse * (runs / (runs - 1))
        slopes = np.zeros((len(names), len(at)))
        for position in np.flatnonzero(use):
            step = np.zeros(len(at))
            step[position] = 1e-5
            above, below = (
                np.array(list(model.report(at + sign * step, points.scale, int(points.own[i]), domains).values()))
                for sign in (1, -1)
            )
            slopes[:, position] = (above - below) / 2e-5
        variance = np.einsum("ap,pq,aq->a", slopes, spread, slopes)
        variance[variance <= 0] = np.nan
        result.append(dict(zip(names, np.sqrt(variance).tolist(), strict=True)))
    return result


def _outcome(
    model: Law,
    points: Points,
    i: int,
    *,
    unshrunk: int,
    best: Array,
    told: npt.NDArray[np.bool_],
    at_bound: Mapping[str, str],
    agree: int,
    converged: bool,
) -> Outcome:
    counts = points.weight[i] > 0
    log_loss = points.log_loss[i][counts]
    if not len(log_loss) or len(log_loss) < unshrunk:
        return Outcome.TOO_FEW_POINTS
    if not told[model.effect]:
        return Outcome.SINGLE_MIXTURE
    if len(log_loss) > 1 and np.ptp(log_loss) < 1e-12:
        return Outcome.CONSTANT_LOSS
    if _rises(points, i):
        return Outcome.LOSS_RISES
    if not converged:
        return Outcome.NOT_CONVERGED
    if "alpha" in model.watched and best[0] <= 0:
        return Outcome.ALPHA_NOT_POSITIVE
    if not told.all():
        return Outcome.TOO_FEW_CHECKPOINTS
    doubtful = {model.fine_at.get(item, "doubt") for item in at_bound.items()} - {"fine"}
    if doubtful:
        return Outcome.NO_FLOOR if doubtful == {"no floor"} else Outcome.AT_BOUND
    if agree < 2:
        return Outcome.STARTS_DISAGREE
    return Outcome.CONVERGED


def _observed(points: Points, counts: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return the smallest and the largest data volume of the points that count."""
    if not counts.any():
        return None
    low, high = np.exp([points.log_u[counts].min(), points.log_u[counts].max()]) * points.scale
    return float(f"{low:.12g}"), float(f"{high:.12g}")  # without what logarithms added


def _rises(points: Points, i: int) -> bool:
    """Return whether in most runs the last loss is above the first one, by more than rounding and noise."""
    counts = points.weight[i] > 0
    run, log_loss = points.run[counts], points.log_loss[i][counts]
    _, first = np.unique(run, return_index=True)
    last = np.r_[first[1:], len(run)] - 1
    several = last > first
    return bool(several.any() and np.median((log_loss[last] - log_loss[first])[several]) > _RISES)


def goodness(observed: Array, residual: Array) -> tuple[float, float]:
    """Return mean relative error and R² (1 − SS_res / SS_tot) of log losses; NaN where there is nothing to say."""
    total = ((observed - observed.mean()) ** 2).sum() if len(observed) else 0.0
    error = float(np.abs(np.expm1(residual)).mean()) if len(residual) else float("nan")
    return error, float(1 - (residual**2).sum() / total) if total > 0 else float("nan")
