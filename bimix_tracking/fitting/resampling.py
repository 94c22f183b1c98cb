"""`bootstrap`: a run-level bootstrap; each replicate is a refit to runs drawn with replacement."""

from __future__ import annotations

from typing import get_args

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import did_you_mean
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.later import last_residuals, later_errors
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import MIN_RUNS, REPLICATES, Method, Replicates
from bimix_tracking.fitting.scale.applied import aligned_by
from bimix_tracking.fitting.single_law import refit
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.progress import Progress, Tally


def bootstrap(
    obs: Observations,
    fit: LawFit,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    method: Method = "few-steps",
    progress: Progress | None = None,
) -> Replicates:
    """Refit to runs drawn with replacement: a run-level bootstrap.

    `exact` minimises again. `few-steps` stops minimising when the cost hardly falls (a k-step bootstrap, Andrews
    2002): several times faster than `exact`, with the same intervals. `linearised` takes the one step that a
    replicate's own gradient and curvature ask for from the fit at hand,
    θ_b = θ − (Σ_r n_r H_r + P)⁻¹ (Σ_r n_r g_r + P(θ − m)): sums over runs that were made once, so a thousand
    replicates cost what a few evaluations of the law do. It is for standard errors of well identified laws
    (`bimix`, many runs). Its laws are tangents: they cannot be optimised over, and where the parameters are poorly
    identified (`additive` in 17 domains) they miss the data by nats.

    Args:
        obs: The sweep that was fitted.
        fit: Its fit.
        replicates: How many.
        seed: Of the draws.
        method: `few-steps`, `exact` or `linearised`.
        progress: Called as (what, refits made, refits in all).

    Raises:
        ValueError: Fewer than three runs, or no such method.

    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3) + 0.01 * np.sin(99 * a)}
    ...         for a in (0.2, 0.4, 0.5, 0.6, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")
    >>> from bimix_tracking import Mixture, fit_law
    >>> found = bootstrap(obs, fit_law(obs))
    >>> low, high = found.interval(Mixture({"a": 0.3, "b": 0.7}), tokens=1e5)
    >>> bool(low["a"][0] < found.fit.predict(Mixture({"a": 0.3, "b": 0.7}), 1e5)["a"][0] < high["a"][0])
    True
    """
    if len(obs.runs) < MIN_RUNS:
        raise ValueError(f"{len(obs.runs)} runs are too few for a bootstrap: it needs at least {MIN_RUNS}")
    if method not in get_args(Method):
        raise ValueError(f"no method {method!r}; {did_you_mean(method, get_args(Method))}")
    fit = fit if fit.origin is None else fit.origin
    obs = aligned_by(obs, fit.bridge)
    count = len(obs.runs)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), replicates).astype(float)
    laws = fit.members or {fit.law: fit}
    # Only laws with a weight in the stack need refits.
    wanted = {name: _weighing(fit, name, one) for name, one in laws.items()}
    tally = Tally(progress, "bootstrap", replicates * sum(map(len, wanted.values())))
    theta = {
        name: _one_step(obs, one, drawn)
        if method == "linearised"
        else refit(obs, one, drawn, roughly=method == "few-steps", wanted=wanted[name], after=tally.more)
        for name, one in laws.items()
    }
    tally.reach(tally.total)  # targets that aren't identifiable aren't refitted
    later = None if method == "linearised" else later_errors(obs, fit)
    return Replicates(fit, theta, method, last_residuals(obs, fit), later, drawn)


def _weighing(fit: LawFit, name: str, one: LawFit) -> list[str]:
    """Return the targets in whose prediction one law of a fit has a weight."""
    return [t for t in one.targets if not fit.members or fit.targets[t].parameters.get(name, 0.0) > 0]


def _one_step(obs: Observations, fit: LawFit, drawn: Array) -> Array:
    problem = FitProblem.of(obs, find_law(fit.law), fit.options)
    thetas = [fit.theta(target) if fit.targets[target].outcome.usable else None for target in problem.targets]
    theta = np.stack([problem.box.held if at is None else at for at in thetas])
    prior, size = problem.prior, theta.shape[1]
    pulls = prior.pull(theta, np.arange(len(theta)))
    result = np.full((len(drawn), *theta.shape), np.nan)
    for i in np.flatnonzero([at is not None for at in thetas]):
        scores, curvature = problem.by_run(theta[i], int(i))
        lower, upper = problem.box.lower[i], problem.box.upper[i]
        # What is not identifiable is held; what it left at a bound with the slope leading out stays there.
        down = scores.sum(0) + pulls[i]
        use = curvature.sum(0).diagonal() > 0
        use &= ~((theta[i] <= lower + 1e-9) & (down > -1e-12)) & ~((theta[i] >= upper - 1e-9) & (down < 1e-12))
        gradient = (drawn @ scores + pulls[i])[:, use]
        flat = drawn @ curvature[:, use][:, :, use].reshape(len(scores), -1)
        matrix = flat.reshape(len(drawn), int(use.sum()), -1) + prior.precision[i][np.ix_(use, use)]
        level = np.einsum("bkk->bk", matrix).max(-1, initial=0.0)
        matrix = matrix + 1e-12 * level[:, None, None] * np.eye(int(use.sum()))
        known = level > 0
        step = np.zeros((len(drawn), size))
        step[np.ix_(known, use)] = _inside(
            matrix[known], gradient[known], lower[use] - theta[i][use], upper[use] - theta[i][use]
        )
        result[known, i] = theta[i] + step[known]
        result[:, i, ~use] = theta[i, ~use]
    return result


def _inside(matrix: Array, gradient: Array, lower: Array, upper: Array) -> Array:
    """Return the minima of ½ dᵀHd + gᵀd with lower ≤ d ≤ upper: what leaves the box is set on its side, the rest anew.

    Args:
        matrix: Shape (replicates, parameters, parameters).
        gradient: Shape (replicates, parameters).
        lower: Shape (parameters,), at most 0.
        upper: Likewise, at least 0.
    """
    fixed = np.zeros(gradient.shape, bool)
    step: Array = np.zeros_like(gradient)
    eye = np.eye(gradient.shape[1])
    for _ in range(gradient.shape[1] + 1):
        free = ~fixed
        held = np.where(fixed, step, 0.0)
        right = np.where(free, -gradient - (matrix @ held[..., None])[..., 0], held)
        system = np.where(free[:, :, None] & free[:, None, :], matrix, 0.0) + fixed[:, :, None] * eye
        step = np.asarray(np.linalg.solve(system, right[..., None])[..., 0], np.float64)
        out = free & ((step < lower) | (step > upper))
        if not out.any():
            break
        step = np.where(out, np.clip(step, lower, upper), step)
        fixed |= out
    return np.clip(step, lower, upper)
