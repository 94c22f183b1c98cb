"""The fit of one law, and its refits to other weights of the runs: parameters, errors and outcome of each target.

Each domain is its own small problem: minimise Σ w ρ_δ(log L_observed − log L_law) with the Huber loss ρ, from
several starts, plus what the law shrinks. Errors of log loss are relative errors of loss, so δ = 0.01 means: what
errs by more than 1 % pulls no harder than that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.engine.least_squares import ARRIVED, USABLE
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.engine.starts import Searched, searched
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import few, said

_ROUGH_OFFSET, _ROUGH_STEPS = 0.02, 20
"""Of refits whose spread is wanted and not their last digits."""
_ROUNDING = 1e-7
"""Where a law's error is no more than this, log loss, its offset is rounding too."""
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
    problem = FitProblem.of(obs, model, options, notes)
    if not problem.targets:
        raise ObservationsError(
            said(
                "no loss is of a domain of the mixtures, but {law} needs a target's own proportion: losses are of "
                "{targets}, domains are {domains}",
                law=law,
                targets=few(obs.targets),
                domains=few(obs.domains),
            )
        )
    tokens = obs.losses["tokens"]
    return LawFit(
        law=law,
        domains=obs.domains,
        targets=_fit_targets(problem, obs.domains),
        tokens=(float(tokens.min()), float(tokens.max())),
        scale=problem.grid.scale,
        huber_delta=options.huber_delta,
        zero_share=options.floor if options.clamped else None,
        data_hash=obs.data_hash,
        source=obs.source,
        notes=tuple(notes),
        warmup=options.warmup_end,
        shares={d: (float(obs.mixtures[d].min()), float(obs.mixtures[d].max())) for d in obs.domains},
        described=obs.described,
        links=obs.links,
    )


def refit(
    obs: Observations,
    fit: LawFit,
    run_weights: Array,
    *,
    roughly: bool = False,
    wanted: Collection[str] | None = None,
    after: Callable[[int], None] | None = None,
) -> Array:
    """Fit again with each run counted so often: held-out folds (0 or 1), or bootstrap replicates (how often drawn).

    All replicates of all targets start from the fit at hand, so a replicate costs a few steps.

    Args:
        obs: The sweep that was fitted.
        fit: Its fit, of one law.
        run_weights: Shape (replicates, runs).
        roughly: Stop when the cost hardly falls any more.
        wanted: Targets that are refitted; None: all.
        after: Called with the number of refits, of a replicate and a target each, made since its last call.

    Returns:
        θ of the law, shape (replicates, targets, parameters); NaN where a target's fit is not usable, or the runs
        that are left don't identify the effect of the mixture.
    """
    problem = FitProblem.of(obs, find_law(fit.law), fit.options)
    run_weights = np.asarray(run_weights, float)
    count, held = len(problem.targets), problem.box.held
    asked = set(problem.targets if wanted is None else wanted)
    at = [
        fit.theta(target) if target in asked and fit.targets[target].outcome.usable else None
        for target in problem.targets
    ]
    known = problem.identifiable(run_weights > 0)
    usable = np.array([theta is not None for theta in at])[None, :] & known[..., problem.law.traits.effect]
    start = np.stack([held if theta is None else theta for theta in at])
    # Replicates of one target side by side: they share what their arrays are made of.
    which, replicate = (values.reshape(-1) for values in np.indices((count, len(run_weights))))
    places = np.flatnonzero(usable[replicate, which])
    result = np.full((len(run_weights), count, len(held)), np.nan)
    found = problem.solve(
        which[places],
        start[which[places]],
        known[replicate[places], which[places]],
        run_weights[replicate[places]],
        offset=_ROUGH_OFFSET if roughly else None,
        steps=_ROUGH_STEPS if roughly else 150,
        persistent=not roughly,
        after=after,
    )
    result[replicate[places], which[places]] = found.theta
    return result


def _fit_targets(problem: FitProblem, domains: tuple[str, ...]) -> dict[str, DomainFit]:
    found = searched(problem)
    grid, law, best, identifiable = problem.grid, problem.law, found.theta, found.identifiable
    lower, upper = problem.box.lower, problem.box.upper
    residuals = problem.predict(best, np.arange(len(best))) - grid.log_loss
    inside = (best > lower + 1e-9) & (best < upper - 1e-9)
    fits = {}
    for i, target in enumerate(problem.targets):
        counts = grid.weight[i] > 0
        residual = residuals[i][counts]
        outcome = _outcome(problem, i, found, float(np.abs(residual).max(initial=0.0)))
        parameters = law.report(best[i], grid.scale, int(grid.own[i]), domains)
        nothing = outcome in (Outcome.TOO_FEW_POINTS, Outcome.CONSTANT_LOSS)
        # β and C that aren't identifiable are held at "no change with s" and "no floor": values a prediction can
        # use within the observed volumes. A held α is no value: it would promise that the mixture doesn't matter.
        unknown = set() if identifiable[i, law.traits.effect] or "alpha" not in law.traits.watched else {"alpha"}
        measured = counts.any(1)
        place = domains.index(target) if target in domains else -1
        own = grid.shares[measured, place]
        error, r2 = goodness(grid.log_loss[i][counts], residual)
        errors = {} if nothing else _standard_errors(problem, i, best[i], identifiable[i] & inside[i], domains)
        fits[target] = DomainFit(
            parameters={n: np.nan if nothing or n in unknown else v for n, v in parameters.items()},
            outcome=outcome,
            points=int(counts.sum()),
            runs=int(measured.sum()),
            error=error,
            r2=r2,
            starts=(int(found.agreeing[i]), found.searches),
            shares=(float(own.min()), float(own.max())) if place >= 0 and counts.any() else (0.0, 0.0),
            standard_errors={n: v for n, v in errors.items() if n not in unknown},
            tokens=_observed(problem, i),
        )
    return fits


def _standard_errors(
    problem: FitProblem, i: int, theta: Array, free: npt.NDArray[np.bool_], domains: tuple[str, ...]
) -> dict[str, float]:
    """Return standard errors of the reported parameters: the sandwich over whole runs, through `report`'s slopes.

    Losses of one run share what went well or badly in it, so the run is the unit. NaN with fewer than three runs, and
    of a parameter at its bound: which way it would go is known, how far is not.
    """
    scores, curvature = problem.by_run(theta, i)
    runs = int(curvature.any((-1, -2)).sum())
    scale, own = problem.grid.scale, int(problem.grid.own[i])
    names = list(problem.law.report(theta, scale, own, domains))
    if runs < 3 or not free.any():
        return dict.fromkeys(names, float("nan"))
    whole = np.ix_(free, free)
    inverse = np.linalg.pinv((curvature.sum(0) + problem.prior.precision[i])[whole], hermitian=True)
    meat = scores[:, free].T @ scores[:, free]
    spread = np.zeros((len(theta), len(theta)))
    spread[whole] = inverse @ meat @ inverse * (runs / (runs - 1))
    slopes = np.zeros((len(names), len(theta)))
    for position in np.flatnonzero(free):
        step = np.zeros(len(theta))
        step[position] = 1e-5
        above, below = (
            np.array(list(problem.law.report(theta + sign * step, scale, own, domains).values())) for sign in (1, -1)
        )
        slopes[:, position] = (above - below) / 2e-5
    variance = ((slopes @ spread) * slopes).sum(-1)
    variance[variance <= 0] = np.nan
    return dict(zip(names, np.sqrt(variance).tolist(), strict=True))


def _at_bound(problem: FitProblem, i: int, found: Searched) -> dict[str, str]:
    """Return the watched parameters that ended at a bound, and at which side."""
    lower, upper, theta = problem.box.lower[i], problem.box.upper[i], found.theta[i]
    free = found.identifiable[i] & (lower < upper)
    sides = {}
    for name, position in problem.law.traits.watched.items():
        if free[position] and theta[position] <= lower[position] + 1e-9:
            sides[name] = "low"
        elif free[position] and theta[position] >= upper[position] - 1e-9:
            sides[name] = "high"
    return sides


def _outcome(problem: FitProblem, i: int, found: Searched, largest: float) -> Outcome:
    traits, identifiable = problem.law.traits, found.identifiable[i]
    log_loss = problem.grid.log_loss[i][problem.grid.weight[i] > 0]
    free = identifiable & (problem.box.lower[i] < problem.box.upper[i])
    unshrunk = int((free & (np.diagonal(problem.prior.precision[i]) == 0)).sum())
    if not len(log_loss) or len(log_loss) < unshrunk:
        return Outcome.TOO_FEW_POINTS
    if not identifiable[traits.effect]:
        return Outcome.SINGLE_MIXTURE
    if len(log_loss) > 1 and np.ptp(log_loss) < 1e-12:
        return Outcome.CONSTANT_LOSS
    if _rises(problem, i):
        return Outcome.LOSS_RISES
    if found.offset[i] > USABLE and largest > _ROUNDING:
        return Outcome.NOT_CONVERGED
    if "alpha" in traits.watched and found.theta[i, traits.effect] <= 0:
        return Outcome.ALPHA_NOT_POSITIVE
    # The prior supplies what is shrunk: a transfer from too few mixtures is 0, and needs no checkpoints.
    if not identifiable[np.diagonal(problem.prior.precision[i]) == 0].all():
        return Outcome.TOO_FEW_CHECKPOINTS
    doubtful = {traits.fine_at.get(item, "doubt") for item in _at_bound(problem, i, found).items()} - {"fine"}
    if doubtful:
        return Outcome.NO_FLOOR if doubtful == {"no floor"} else Outcome.AT_BOUND
    if found.agreeing[i] < 2:
        return Outcome.STARTS_DISAGREE
    if found.offset[i] > ARRIVED and largest > _ROUNDING:
        return Outcome.NEARLY_CONVERGED
    return Outcome.CONVERGED


def _observed(problem: FitProblem, i: int) -> tuple[float, float] | None:
    """Return the smallest and the largest data volume of the losses that count."""
    log_u = problem.grid.at_u[problem.grid.at(problem.grid.weight[i]) > 0]
    if not len(log_u):
        return None
    low, high = np.exp([log_u.min(), log_u.max()]) * problem.grid.scale
    return float(f"{low:.12g}"), float(f"{high:.12g}")  # without what logarithms added


def _rises(problem: FitProblem, i: int) -> bool:
    """Return whether in most runs the last loss is above the first one, by more than rounding and noise."""
    grid = problem.grid
    counts = grid.at(grid.weight[i]) > 0
    run, log_loss = grid.run[counts], grid.at(grid.log_loss[i])[counts]
    _, first = np.unique(run, return_index=True)
    last = np.r_[first[1:], len(run)] - 1
    several = last > first
    return bool(several.any() and np.median((log_loss[last] - log_loss[first])[several]) > _RISES)


def goodness(observed: Array, residual: Array) -> tuple[float, float]:
    """Return mean relative error and R² (1 − SS_res / SS_tot) of log losses; NaN where there is nothing to say."""
    total = ((observed - observed.mean()) ** 2).sum() if len(observed) else 0.0
    error = float(np.abs(np.expm1(residual)).mean()) if len(residual) else float("nan")
    return error, float(1 - (residual**2).sum() / total) if total > 0 else float("nan")
