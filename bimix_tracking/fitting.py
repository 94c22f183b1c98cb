"""Observations + law → LawFit: parameters, error and outcome of every target domain.

Each domain is its own small problem: minimise Σ w ρ_δ(log L_observed − log L_law) with the Huber loss ρ, from
several starts. Errors of log loss are relative errors of loss, so δ = 0.01 means: what is off by more than 1 %
pulls no harder than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import ObservationsError
from bimix_tracking.law_fit import DomainFit, LawFit, Outcome
from bimix_tracking.laws import Law
from bimix_tracking.laws import law as find_law
from bimix_tracking.least_squares import Model, minimize
from bimix_tracking.observations import Observations
from bimix_tracking.pooling import Note

Array = npt.NDArray[np.float64]

ZERO_SHARE = 1e-3
"""Default floor of a proportion inside the law, which is infinite at r = 0."""
_AGREE = 1e-4
"""Starts agree whose cost is within this of the best one's, relatively."""


def fit_law(
    obs: Observations, law: str = "bimix", *, huber_delta: float = 0.01, zero_share: float | None = ZERO_SHARE
) -> LawFit:
    """Fit a law to each target domain, on log losses, robustly, from several starts.

    θ_i = argmin Σ_n w_n ρ_δ(log L_in − log L_i(r_n, s_n; θ)), with w_n in proportion to the evaluation tokens where
    these differ.

    Args:
        obs: The sweep.
        law: `bimix` (arXiv 2405.14908v4, Eq. 3, with A = 1).
        huber_delta: δ of the Huber loss, in log loss (a relative error).
        zero_share: A proportion below it counts as it, since the law is infinite at 0; None sets such runs aside
            for the domain.

    Returns:
        Parameters, error and outcome of each domain. A fit that fails is such an outcome, no exception.

    Raises:
        ObservationsError: No target domain is a domain of the mixtures.
        ValueError: No such law, or an option out of range.

    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": 3 * a**-0.1 * (90 / s**0.5 + 0.7), "lb": 2.0 + 1 / s**0.3}
    ...         for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> fit = fit_law(obs)
    >>> {name: round(value, 6) for name, value in fit.targets["a"].parameters.items()}
    {'alpha': 0.1, 'beta': 0.5, 'B': 270.0, 'C': 2.1}
    """
    if not huber_delta > 0 or (zero_share is not None and not 0 < zero_share < 1):
        raise ValueError(f"huber_delta must be positive and zero_share in (0, 1): {huber_delta}, {zero_share}")
    model = find_law(law)
    notes = list(obs.notes)
    targets = [target for target in obs.targets if target in obs.domains]
    notes += [
        Note("set aside", f"{law} only has losses of domains of the mixture", 1, domain=target)
        for target in obs.targets
        if target not in targets
    ]
    if not targets:
        raise ObservationsError(f"no loss is of a domain of the mixtures: {obs.targets} against {obs.domains}")
    scale = float(np.exp(np.log(obs.losses["tokens"]).mean()))
    data = [points_of(obs, target, scale, zero_share, notes) for target in targets]
    floor = ZERO_SHARE if zero_share is None else zero_share
    fits = _fit_batch(model, data, scale, huber_delta)
    tokens = obs.losses["tokens"]
    return LawFit(
        law=law,
        domains=obs.domains,
        targets=dict(zip(targets, fits, strict=True)),
        tokens=(float(tokens.min()), float(tokens.max())),
        scale=scale,
        huber_delta=huber_delta,
        zero_share=floor,
        data_hash=obs.data_hash,
        source=obs.source,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Points:
    """What one domain is fitted to; arrays of shape (points,)."""

    run: npt.NDArray[np.intp]
    """Position of the point's run in `Observations.runs`."""
    share: Array
    log_share: Array
    log_u: Array
    log_loss: Array
    weight: Array


def points_of(obs: Observations, target: str, scale: float, zero_share: float | None, notes: list[Note]) -> Points:
    """Return what a domain is fitted to, and add to `notes` what its proportions near zero made necessary."""
    table = obs.losses[obs.losses["domain"] == target]
    share = obs.mixtures[target].reindex(table["run"]).to_numpy(float)
    low = share < (ZERO_SHARE if zero_share is None else zero_share)
    if low.any():
        runs = int(table["run"][low].nunique())
        if zero_share is None:
            notes.append(Note("set aside", "runs with a proportion of (nearly) 0 of the domain", runs, domain=target))
            table, share = table[~low], share[~low]
        else:
            text = f"proportions below {zero_share:g} counted as {zero_share:g}, where the law is finite"
            notes.append(Note("adjusted", text, runs, domain=target))
    tokens = table["eval_tokens"].to_numpy(float)
    known = np.isfinite(tokens).all() and (tokens > 0).all() and len(tokens) > 0
    position = {run: i for i, run in enumerate(obs.runs)}
    return Points(
        run=np.array([position[run] for run in table["run"]], np.intp),
        share=share,
        log_share=np.log(np.maximum(share, ZERO_SHARE if zero_share is None else zero_share)),
        log_u=np.log(table["tokens"].to_numpy(float) / scale),
        log_loss=np.log(table["loss"].to_numpy(float)),
        weight=tokens / tokens.mean() if known else np.ones(len(table)),
    )


def refit(obs: Observations, fit: LawFit, run_weights: Array) -> Array:
    """Fit again with each run counted so often: held-out folds (0 or 1), or bootstrap replicates (how often drawn).

    All replicates of all targets are one batch that starts from the fit at hand, so a replicate costs a few steps.

    Args:
        obs: The sweep that was fitted.
        fit: Its fit.
        run_weights: Non-negative, shape (replicates, runs), in the order of `obs.runs`.

    Returns:
        θ of the law, shape (replicates, targets, parameters). NaN where the runs that count cannot tell the effect of
        the proportion.
    """
    model = find_law(fit.law)
    data = [points_of(obs, target, fit.scale, fit.zero_share, []) for target in fit.targets]
    x, u, y, w = _padded(data)
    run = np.stack([np.pad(d.run, (0, x.shape[1] - len(d.run))) for d in data])
    replicates, count, size = len(run_weights), len(data), len(model.parameters)
    weights = (run_weights[:, run] * w).reshape(replicates * count, -1)
    which = np.tile(np.arange(count), replicates)
    lower, upper = (bound[which] for bound in model.bounds(y, w))
    free = np.array(
        [
            model.identifiable(_distinct(x[of][counted]), _distinct(u[of][counted]))
            for of, counted in zip(which, weights > 0, strict=True)
        ]
    )
    held = model.held()
    parameters = [
        {name: 0.0 if np.isnan(value) else value for name, value in fitted.parameters.items()}
        if fitted.outcome.usable
        else None
        for fitted in fit.targets.values()
    ]
    start = np.stack([held if known is None else model.internal(known, fit.scale) for known in parameters])[which]
    told = free[:, 0] & np.array([known is not None for known in parameters])[which]
    weights = np.where(told[:, None], weights, 0.0)
    found = minimize(
        _model_of(model, x, u, y, which),
        start,
        weights,
        lower=np.where(free, lower, held),
        upper=np.where(free, upper, held),
        delta=fit.huber_delta,
    )
    return np.where(told[:, None], found.theta, np.nan).reshape(replicates, count, size)


def _padded(data: Sequence[Points]) -> tuple[Array, Array, Array, Array]:
    """Return log share, log u, log loss and weight of all domains, shape (domains, points), padded with weight 0."""
    most = max(1, *(len(d.log_loss) for d in data))
    x, u, y, w = (
        np.stack([np.pad(getattr(d, name), (0, most - len(d.log_loss))) for d in data])
        for name in ("log_share", "log_u", "log_loss", "weight")
    )
    return x, u, y, w


def _model_of(model: Law, x: Array, u: Array, y: Array, which: npt.NDArray[np.intp]) -> Model:
    """Return residuals and Jacobian of problems that are each of the domain that `which` says."""

    def residuals(theta: Array, problem: npt.NDArray[np.intp]) -> tuple[Array, Array]:
        of = which[problem]
        return model.log_loss(theta, x[of], u[of]) - y[of], model.jacobian(theta, x[of], u[of])

    return residuals


def _fit_batch(model: Law, data: Sequence[Points], scale: float, delta: float) -> list[DomainFit]:
    """Fit all domains and all their starts as one batch; points are padded with weight 0."""
    x, u, y, w = _padded(data)
    w = np.where(w.sum(-1, keepdims=True) > 0, w, 1e-300)  # an empty domain: nothing to fit, nothing to divide by
    starts = model.starts(x, u, y, w)
    lower, upper = model.bounds(y, w)
    free = np.array([model.identifiable(_distinct(d.log_share), _distinct(d.log_u)) for d in data])
    held = model.held()
    lower, upper = np.where(free, lower, held), np.where(free, upper, held)
    count, tries, size = starts.shape
    which = np.repeat(np.arange(count), tries)
    found = minimize(
        _model_of(model, x, u, y, which),
        starts.reshape(-1, size),
        w[which],
        lower=lower[which],
        upper=upper[which],
        delta=delta,
    )
    theta, cost, converged = (
        values.reshape(count, tries, *values.shape[1:]) for values in (found.theta, found.cost, found.converged)
    )
    best = cost.argmin(-1)
    fits = []
    for i, points in enumerate(data):
        at = theta[i, best[i]]
        # Costs of a perfect fit are rounding: compare them against what 1e-8 of relative error would cost.
        agree = int((cost[i] <= cost[i, best[i]] * (1 + _AGREE) + 0.5e-16 * w[i].sum()).sum())
        residual = model.log_loss(at, points.log_share, points.log_u) - points.log_loss
        low, high = at <= lower[i] + 1e-9, at >= upper[i] - 1e-9
        at_bound = {n: "low" for n, is_ in zip(model.parameters, low & free[i], strict=True) if is_}
        at_bound |= {n: "high" for n, is_ in zip(model.parameters, high & free[i], strict=True) if is_}
        outcome = _outcome(points, at, free[i], at_bound, agree, bool(converged[i, best[i]]))
        parameters = model.report(at, scale)
        fits.append(
            DomainFit(
                parameters={
                    name: value if told and outcome is not Outcome.TOO_FEW_POINTS else np.nan
                    for (name, value), told in zip(parameters.items(), _reported(free[i]), strict=True)
                },
                outcome=outcome,
                points=len(points.log_loss),
                runs=_distinct(points.run.astype(float)),
                error=float(np.abs(np.expm1(residual)).mean()) if len(residual) else np.nan,
                r2=_r_squared(points.log_loss, residual),
                starts=(agree, tries),
                shares=(float(points.share.min(initial=1.0)), float(points.share.max(initial=0.0))),
            )
        )
    return fits


def _reported(free: npt.NDArray[np.bool_]) -> list[bool]:
    # β and C that the data cannot tell are held at "no change with s" and "no floor": values a prediction can use
    # within the observed volumes. A held α is no value: it would promise that the mixture doesn't matter.
    return [bool(free[0]), *[True] * (len(free) - 1)]


def _outcome(
    points: Points,
    theta: Array,
    free: npt.NDArray[np.bool_],
    at_bound: Mapping[str, str],
    agree: int,
    converged: bool,
) -> Outcome:
    if len(points.log_loss) < free.sum() or not len(points.log_loss):
        return Outcome.TOO_FEW_POINTS
    if not free[0]:
        return Outcome.SINGLE_MIXTURE
    if not converged:
        return Outcome.NOT_CONVERGED
    if theta[0] <= 0:
        return Outcome.ALPHA_NOT_POSITIVE
    if not free.all():
        return Outcome.TOO_FEW_CHECKPOINTS
    if at_bound:
        return Outcome.NO_FLOOR if at_bound == {"C": "low"} else Outcome.AT_BOUND
    if agree < 2:
        return Outcome.STARTS_DISAGREE
    return Outcome.CONVERGED


def _distinct(values: Array) -> int:
    """Count values that differ by more than rounding."""
    ordered = np.sort(values)
    return 0 if not len(ordered) else 1 + int((np.diff(ordered) > 1e-6).sum())


def _r_squared(observed: Array, residual: Array) -> float:
    total = ((observed - observed.mean()) ** 2).sum() if len(observed) else 0.0
    return float(1 - (residual**2).sum() / total) if total > 0 else float("nan")
