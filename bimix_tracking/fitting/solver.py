"""A law's least-squares problems: every target, start and replicate of one in a batch, with bounds and prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bimix_tracking.fitting.law_fit import SAME_VOLUME
from bimix_tracking.fitting.least_squares import Minimum, Prior, huber, huber_weight, minimize
from bimix_tracking.fitting.problem import Points, mixture_codes
from bimix_tracking.laws.protocol import Array, Index, Law

PRIOR_NOISE = 0.003
"""Log loss by which a law is off on a run, when its prior is weighed against the data."""
BATCH = 3_000_000
"""Numbers of a Jacobian held at once (24 MB); more problems than that are fitted one batch after another."""
_AGREE = 1e-3
"""Starts agree whose cost is within this of the best one's, relatively."""
_TOLERANCE = 1e-15
_SHRUNK_TOLERANCE = 1e-8
"""A law with shrunk parameters has flat directions, whose last digits nothing depends on."""
_STARTS = 3
"""So many of a law's starts are followed, those that fit best before the first step."""
_THIN = 300
_ROUGH, _ROUGH_STEPS = 1e-3, 30
"""Tolerance and steps of the starts among which the best is chosen, and of what only a residual is wanted of."""


def prior_of(model: Law, points: Points) -> Prior:
    """Return the law's prior in the unit of the cost: weighed as one run that is off by `PRIOR_NOISE`."""
    mean, precision = model.prior(points.own, points.inputs.shares.shape[1])
    return Prior(mean, precision * (PRIOR_NOISE**2 * points.per_run())[:, None, None])


def by_run(model: Law, points: Points, theta: Array, delta: float) -> tuple[Array, Array]:
    """Return each run's part of gradient and curvature at θ, without the prior's.

    The curvature is JᵀJ over the points within δ: beyond it the Huber loss has none. (Its weight δ / |e|, which makes
    a minimiser's steps safe, would make what many outliers leave uncertain look sure.)

    Args:
        model: The law.
        points: What was fitted.
        theta: Shape (targets, parameters).
        delta: δ of the Huber loss.

    Returns:
        Shapes (targets, runs, parameters) and (targets, runs, parameters, parameters).
    """
    log_loss, jacobian = model.evaluate(theta, points.own, points.inputs)
    residual = log_loss - points.log_loss
    weight = points.weight * huber_weight(residual, delta)
    inner = points.weight * (np.abs(residual) <= delta)
    runs, size = len(points.inputs.shares), theta.shape[1]
    scores, curvature = np.zeros((len(theta), runs, size)), np.zeros((len(theta), runs, size, size))
    # Points are in the order of runs.
    edges = np.searchsorted(points.run, np.arange(runs + 1))
    weighted = jacobian * weight[..., None]
    curved = jacobian * inner[..., None]
    for run in range(runs):
        part = slice(edges[run], edges[run + 1])
        scores[:, run] = np.matmul(residual[:, None, part], weighted[:, part])[:, 0]
        curvature[:, run] = np.matmul(np.swapaxes(curved[:, part], 1, 2), jacobian[:, part])
    return scores, curvature


def solve(
    model: Law,
    points: Points,
    which: Index,
    start: Array,
    weight: Array,
    told: npt.NDArray[np.bool_],
    delta: float,
    *,
    rough: bool = False,
    most_steps: int = 500,
    tolerance: float | None = None,
) -> Minimum:
    """Minimise problems that are each of the target that `which` says; `tolerance` None: to the end."""
    lower, upper = (b[which] for b in model.bounds(points.own, points.inputs, points.log_loss, points.weight))
    held = model.held(points.inputs.shares.shape[1])
    prior = prior_of(model, points)
    shrunk = bool(prior.precision.any())
    if tolerance is None:
        tolerance = _ROUGH if rough else _SHRUNK_TOLERANCE if shrunk else _TOLERANCE

    def residuals(theta: Array, problem: Index) -> tuple[Array, Array]:
        of = which[problem]
        log_loss, jacobian = model.evaluate(theta, points.own[of], points.inputs)
        return log_loss - points.log_loss[of], jacobian

    return minimize(
        residuals,
        start,
        weight,
        lower=np.where(told, lower, held),
        upper=np.where(told, upper, held),
        delta=delta,
        prior=Prior(prior.mean[which], prior.precision[which]) if shrunk else None,
        max_iterations=_ROUGH_STEPS if rough else most_steps,
        tolerance=tolerance,
    )


def told(model: Law, points: Points, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which θ the runs of each replicate can tell, (replicates, targets, parameters).

    Args:
        model: The law.
        points: What is fitted.
        counted: Which runs a replicate has, (replicates, runs).
    """
    shares = points.inputs.shares
    mixture = mixture_codes(shares)
    volumes = volume_codes(points.inputs.log_u)[points.inputs.volume]
    triples = np.zeros((len(counted), len(points.targets), 3), np.intp)
    for i, own in enumerate(points.own):
        weight = points.weight[i] > 0
        measured = np.bincount(points.run[weight], minlength=len(shares)) > 0
        present = (counted & measured).astype(float)
        at = np.zeros((len(shares), int(volumes.max(initial=0)) + 1))
        at[points.run[weight], volumes[weight]] = 1
        own_codes = near_codes(shares[:, own]) if own >= 0 else np.zeros(len(shares), np.intp)
        for k, hot in enumerate((np.eye(len(shares))[own_codes], np.eye(len(shares))[mixture], at)):
            triples[:, i, k] = (present @ hot > 0).sum(-1)
    known, each = np.unique(triples.reshape(-1, 3), axis=0, return_inverse=True)
    table = np.stack([model.told(int(triple[0]), int(triple[1]), int(triple[2]), shares.shape[1]) for triple in known])
    return np.asarray(table[each.reshape(-1)].reshape(*triples.shape[:2], -1))


def volume_codes(log_u: Array) -> Index:
    """Number data volumes so that those within `SAME_VOLUME` of the first of them have one number."""
    order = np.argsort(log_u)
    ordered = log_u[order]
    firsts, place = [], 0
    while place < len(ordered):  # a step a number, not a volume: runs may have thousands of their own
        firsts.append(place)
        place = int(np.searchsorted(ordered, ordered[place] + np.log(SAME_VOLUME), "right"))
    codes = np.empty(len(log_u), np.intp)
    codes[order] = np.searchsorted(firsts, np.arange(len(ordered)), "right") - 1
    return codes


def near_codes(values: Array) -> Index:
    """Number values so that those that differ by rounding only have one number."""
    order = np.argsort(values)
    codes = np.empty(len(values), np.intp)
    codes[order] = np.r_[0, np.cumsum(np.diff(values[order]) > 1e-6)][: len(values)]
    return codes


def best_of(
    model: Law, points: Points, delta: float, *, polish: bool = True
) -> tuple[Array, Minimum, Minimum, npt.NDArray[np.bool_]]:
    """Fit all targets: roughly from all starts, then the best of each to the end.

    Returns:
        The best θ of each target; where every start ended, (targets, starts, …); where the best ones did; told θ.
    """
    everyone = np.ones((1, len(points.inputs.shares)), bool)
    count = len(points.targets)
    known = told(model, points, everyone)[0]
    some = _thinned(points)
    starts = model.starts(some.own, some.inputs, some.log_loss, some.weight)
    starts = _screened(model, some, starts, delta, _STARTS if polish else 1)
    _, tries, size = starts.shape
    which = np.repeat(np.arange(count), tries)
    flat = starts.reshape(-1, size)
    batch = max(1, BATCH // max(1, len(points.run) * size))
    parts = [
        solve(
            model,
            points,
            which[i : i + batch],
            flat[i : i + batch],
            points.weight[which[i : i + batch]],
            known[which[i : i + batch]],
            delta,
            rough=True,
        )
        for i in range(0, len(flat), batch)
    ]
    theta, cost, converged = (
        np.concatenate([getattr(found, name) for found in parts]).reshape(count, tries, *shape)
        for name, shape in (("theta", (size,)), ("cost", ()), ("converged", ()))
    )
    each = np.arange(count)
    if polish:
        # Where the rough ends differ, the starts must go to their ends before anything is said about them.
        alone = np.flatnonzero(agreeing(cost, points) < min(2, tries))
        if len(alone):
            of = np.repeat(alone, tries)
            found = solve(model, points, of, theta[alone].reshape(-1, size), points.weight[of], known[of], delta)
            theta[alone], cost[alone] = found.theta.reshape(-1, tries, size), found.cost.reshape(-1, tries)
            converged[alone] = found.converged.reshape(-1, tries)
    rough = Minimum(theta, cost, converged)
    best = Minimum(theta[each, cost.argmin(-1)], cost.min(-1), converged[each, cost.argmin(-1)])
    if polish:
        best = solve(model, points, each, best.theta, points.weight, known, delta)
    return best.theta, rough, best, known


def agreeing(cost: Array, points: Points) -> Index:
    """Return how many starts reached the best cost of their target, from (targets, starts)."""
    # Costs of a perfect fit are rounding: compare them against what 1e-8 of relative error would cost.
    rounding = 0.5e-16 * points.weight.sum(-1, keepdims=True)
    return np.asarray((cost <= cost.min(-1, keepdims=True) * (1 + _AGREE) + rounding).sum(-1), np.intp)


def _thinned(points: Points) -> Points:
    """Return every so-manyth point: where to start, a few hundred tell as well as all."""
    step = max(1, len(points.run) // _THIN)
    inputs = replace(points.inputs, mixture=points.inputs.mixture[::step], volume=points.inputs.volume[::step])
    return replace(points, inputs=inputs, log_loss=points.log_loss[:, ::step], weight=points.weight[:, ::step])


def _screened(model: Law, points: Points, starts: Array, delta: float, most: int) -> Array:
    """Return the best starts of each target, by the cost they start at: steps from the others would be wasted."""
    if starts.shape[1] <= most:
        return starts
    cost = np.stack(
        [
            huber(model.evaluate(starts[:, k], points.own, points.inputs)[0] - points.log_loss, points.weight, delta)
            for k in range(starts.shape[1])
        ],
        axis=1,
    )
    best = np.argsort(cost, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(starts, best[..., None], axis=1)
