"""A batch of small robust least-squares problems at once: Levenberg–Marquardt with a Huber loss, bounds and a prior.

Domains, starts and replicates are one batch each, so a fit is a few hundred array operations in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Model = Callable[[Array, npt.NDArray[np.intp]], tuple[Array, Array]]
"""(θ (n, parameters), which problems these are (n,)) → residuals (n, points), Jacobian (n, points, parameters)."""

_GAIN_UP, _GAIN_DOWN, _DAMPING_MAX = 4.0, 0.2, 1e12
_STEP_TOLERANCE = 1e-13
_STALLS = 3
_ARRIVED = 1e-7


@dataclass(frozen=True)
class Minimum:
    """Where each problem of a batch ended.

    Args:
        theta: Shape (problems, parameters).
        cost: Σ w ρ(residual) + the prior's, shape (problems,).
        converged: Whether the steps had become negligible, shape (problems,).
    """

    theta: Array
    cost: Array
    converged: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prior:
    """½ (θ − mean)ᵀ precision (θ − mean), added to each problem's cost.

    Args:
        mean: Shape (problems, parameters).
        precision: Shape (problems, parameters, parameters).
    """

    mean: Array
    precision: Array

    def pull(self, theta: Array, of: npt.NDArray[np.intp]) -> Array:
        """Return the gradient at θ of those problems."""
        gradient: Array = (self.precision[of] @ (theta - self.mean[of])[..., None])[..., 0]
        return gradient

    def cost(self, theta: Array, of: npt.NDArray[np.intp]) -> Array:
        """Return the cost at θ of those problems."""
        total: Array = 0.5 * ((theta - self.mean[of]) * self.pull(theta, of)).sum(-1)
        return total


def huber(residual: Array, weight: Array, delta: float) -> Array:
    """Return Σ w ρ(e) over the last axis: ρ = e²/2 for |e| ≤ δ, δ(|e| − δ/2) beyond.

    >>> float(huber(np.array([0.5, 3.0]), np.ones(2), 1.0))
    2.625
    """
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    total: Array = (weight * inner * (size - inner / 2)).sum(-1)
    return total


def huber_weight(residual: Array, delta: float) -> Array:
    """Return ρ′(e) / e: 1 within δ, δ / |e| beyond.

    >>> huber_weight(np.array([0.5, 4.0]), 1.0)
    array([1.  , 0.25])
    """
    return np.minimum(1.0, delta / np.maximum(np.abs(residual), 1e-300))


def minimize(
    model: Model,
    start: Array,
    weight: Array,
    *,
    lower: Array,
    upper: Array,
    delta: float,
    prior: Prior | None = None,
    tolerance: float = 1e-15,
    max_iterations: int = 500,
) -> Minimum:
    """Minimise Σ_n w_n ρ_δ(e_n(θ)) + ½ (θ − m)ᵀ P (θ − m) for every problem of a batch, lower ≤ θ ≤ upper.

    Where lower = upper a parameter is held. Each step solves (JᵀWJ + P + μ diag) d = −JᵀWe − P(θ − m) with the Huber
    weights in W, is cut to the box, and is taken only if the cost falls.

    Args:
        model: Residuals and their Jacobian.
        start: Shape (problems, parameters).
        weight: Of each point; 0 pads. Shape (problems, points).
        lower: Shape (problems, parameters).
        upper: Likewise.
        delta: Where the loss turns linear, in units of the residual.
        prior: What θ is shrunk to; None: nothing.
        tolerance: Three steps in a row that lower the cost by no more than this, relatively, end a problem.
        max_iterations: At most so many steps.

    Returns:
        The minima, in the order of `start`.
    """
    theta = np.clip(start, lower, upper)
    problems, size = theta.shape
    damping = np.full(problems, 1e-3)
    stalls = np.zeros(problems, int)
    change = np.full(problems, np.inf)
    converged = np.zeros(problems, bool)
    active = np.arange(problems)
    residual, jacobian = model(theta, active)
    cost = huber(residual, weight, delta)
    if prior is not None:
        cost = cost + prior.cost(theta, active)
    eye = np.eye(size)
    for _ in range(max_iterations):
        w = weight[active] * huber_weight(residual, delta)
        gradient = np.matmul((w * residual)[:, None, :], jacobian)[:, 0]
        hessian = np.matmul(np.swapaxes(jacobian * w[..., None], 1, 2), jacobian)
        here, low, high = theta[active], lower[active], upper[active]
        if prior is not None:
            gradient += prior.pull(here, active)
            hessian += prior.precision[active]
        # A parameter whose way down leads out of the box stays at its side in this step.
        still = ((here <= low) & (gradient > 0)) | ((here >= high) & (gradient < 0)) | (low == high)
        moving = ~still
        hessian = hessian * (moving[:, :, None] & moving[:, None, :])
        diagonal = np.einsum("nkk->nk", hessian)
        largest = diagonal.max(-1, keepdims=True, initial=0.0)
        ridge = damping[active, None] * diagonal + 1e-15 * largest + np.where(still | (largest == 0), 1.0, 0.0)
        step = np.linalg.solve(hessian + ridge[:, :, None] * eye, np.where(moving, -gradient, 0.0)[..., None])[..., 0]
        candidate = np.clip(here + step, low, high)
        new_residual, new_jacobian = model(candidate, active)
        new_cost = huber(new_residual, weight[active], delta)
        if prior is not None:
            new_cost = new_cost + prior.cost(candidate, active)
        better = new_cost < cost[active]
        small = np.abs(candidate - here).max(-1) <= _STEP_TOLERANCE * (1 + np.abs(here).max(-1))
        change[active] = np.where(better, (cost[active] - new_cost) / np.maximum(cost[active], 1e-300), change[active])
        stalled = better & (cost[active] - new_cost <= tolerance * cost[active])
        stalls[active] = np.where(stalled, stalls[active] + 1, 0)
        theta[active[better]] = candidate[better]
        cost[active[better]] = new_cost[better]
        if better.all():
            residual, jacobian = new_residual, new_jacobian
        else:
            residual[better], jacobian[better] = new_residual[better], new_jacobian[better]
        damping[active] = np.where(better, np.maximum(damping[active] * _GAIN_DOWN, 1e-14), damping[active] * _GAIN_UP)
        done = small | (stalls[active] >= _STALLS) | (damping[active] > _DAMPING_MAX)
        converged[active[done]] = True
        if done.any():
            active, residual, jacobian = active[~done], residual[~done], jacobian[~done]
        if not active.size:
            break
    # Where most points are outliers the last digits come slowly: what moved by nothing that counts has arrived.
    converged[active] = change[active] <= _ARRIVED
    return Minimum(theta, cost, converged)
