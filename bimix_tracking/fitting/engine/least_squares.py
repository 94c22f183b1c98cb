"""A batch of small robust least-squares problems at once: Levenberg–Marquardt with a Huber loss, bounds and a prior.

A problem is made of blocks (`laws.protocol.Blocks`): sums over data volumes are taken before the mixtures' part of
the Jacobian is touched, so a step costs what its mixtures cost, however many volumes each has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, Blocks, Index, Prior

Model = Callable[[Array, Index], Blocks]
"""(θ (n, parameters), which problems these are (n,)) → blocks whose `log_loss` is the residual."""

ARRIVED = 1e-3
"""Relative offset (Bates & Watts 1981) at which a fit has arrived: θ errs by a thousandth of its standard error."""
USABLE = 0.2
"""Up to this offset the error of a prediction is less than a fifth of its standard error."""
_GAIN_UP, _GAIN_DOWN, _DAMPING_MAX = 4.0, 0.2, 1e12
_LIGHT = 1e-2
"""With more damping than that the step doesn't measure the distance to the minimum."""
_NEARLY_NONE = 1e-9
_NO_STEP = 1e-13
_SIDES = 12
"""So often parameters that would leave the box are put on its side within one step."""
_EXACT = 1e-9
"""Residuals (log loss) that are rounding: nothing is closer to a minimum than that."""


@dataclass(frozen=True)
class Minimum:
    """Where each problem of a batch ended.

    Args:
        theta: Shape (problems, parameters).
        cost: Σ w ρ(residual) + the prior's, shape (problems,).
        offset: Relative offset there: how far the minimum is, in standard errors of θ, shape (problems,).
    """

    theta: Array
    cost: Array
    offset: Array


def huber(residual: Array, weight: Array, delta: float) -> Array:
    """Return Σ w ρ(e) over all axes, but the first of several: ρ = e²/2 for |e| ≤ δ, δ(|e| − δ/2) beyond.

    >>> float(huber(np.array([0.5, 3.0]), np.ones(2), 1.0))
    2.625
    """
    size = np.abs(residual)
    inner = np.minimum(size, delta)
    size -= inner / 2
    inner *= size
    inner *= weight
    return np.asarray(inner.sum(tuple(range(min(1, inner.ndim - 1), inner.ndim))))


def huber_weight(residual: Array, delta: float) -> Array:
    """Return ρ′(e) / e: 1 within δ, δ / |e| beyond.

    >>> huber_weight(np.array([0.5, 4.0]), 1.0)
    array([1.  , 0.25])
    """
    return np.asarray(delta / np.maximum(np.abs(residual), delta))


def normal(found: Blocks, weight: Array) -> tuple[Array, Array]:
    """Return JᵀWe and JᵀWJ of blocks whose `log_loss` is the residual e.

    With J_mv = a_mv (φ_v, ψ_m): H_φφ = Σ_v φφᵀ Σ_m w a², H_φψ = Σ_m (Σ_v w a² φ_v) ψ_mᵀ, H_ψψ = Σ_m ψψᵀ Σ_v w a².

    Args:
        found: The blocks, and e.
        weight: Shape (problems, mixtures, volumes).

    Returns:
        Shapes (problems, parameters) and (problems, parameters, parameters).
    """
    pulled = weight * found.log_loss
    curved = weight
    if found.scale is not None:
        pulled *= found.scale
        curved = weight * found.scale
        curved *= found.scale
    phi, psi = found.volume, found.mixture
    problems, own_rows, volumes, count = phi.shape
    mixtures = psi.shape[1]
    size = count + psi.shape[2]
    gradient, hessian = np.empty((problems, size)), np.empty((problems, size, size))
    by_mixture = curved.sum(-1)
    gradient[:, count:] = np.matmul(pulled.sum(-1)[:, None, :], psi)[:, 0]
    # The product of one array with itself takes half the time of any other.
    rooted = psi * np.sqrt(by_mixture)[..., None]
    hessian[:, count:, count:] = np.matmul(np.swapaxes(rooted, 1, 2), rooted)
    if count:
        if own_rows == 1:
            flat = phi[:, 0]
            along = np.matmul(curved, flat)
            gradient[:, :count] = np.matmul(pulled.sum(1)[:, None, :], flat)[:, 0]
            both = flat * curved.sum(1)[..., None]
        else:
            flat = phi.reshape(problems, mixtures * volumes, count)
            weighted = phi * curved[..., None]
            along = weighted.sum(2)
            gradient[:, :count] = np.matmul(pulled.reshape(problems, 1, -1), flat)[:, 0]
            both = weighted.reshape(flat.shape)
        hessian[:, :count, :count] = np.matmul(np.swapaxes(both, 1, 2), flat)
        hessian[:, :count, count:] = np.matmul(np.swapaxes(along, 1, 2), psi)
        hessian[:, count:, :count] = np.swapaxes(hessian[:, :count, count:], 1, 2)
    return gradient, hessian


def minimize(
    model: Model,
    start: Array,
    weight: Array,
    *,
    lower: Array,
    upper: Array,
    delta: float,
    prior: Prior | None = None,
    offset: float = ARRIVED,
    steps: int = 150,
    persistent: bool = True,
) -> Minimum:
    """Minimise Σ_n w_n ρ_δ(e_n(θ)) + ½ (θ − m)ᵀ P (θ − m) for every problem of a batch, lower ≤ θ ≤ upper.

    Where lower = upper a parameter is held. Each step solves (JᵀWJ + P + μ diag) d = −JᵀWe − P(θ − m) with the Huber
    weights in W, is cut to the box, and is taken only if the cost falls. A problem has arrived when its relative
    offset √(gᵀH⁻¹g / p) / √(2 cost / n) is below `offset` (Bates & Watts 1981, 10.1080/00401706.1981.10486281): then
    θ errs by that part of its standard error.

    Args:
        model: Residuals and their derivatives.
        start: Shape (problems, parameters).
        weight: Of each point; 0 pads. Shape (problems, mixtures, volumes).
        lower: Shape (problems, parameters).
        upper: Likewise.
        delta: Where the loss turns linear, in units of the residual.
        prior: What θ is shrunk to; None: nothing.
        offset: When a problem has arrived.
        steps: At most so many.
        persistent: Whether what hasn't arrived then goes on once for as many, with Nielsen's damping, which a bent
            valley asks for (Nielsen 1999, IMM-REP-1999-05).

    Returns:
        The minima, in the order of `start`.
    """
    batch = _Batch(model, np.clip(start, lower, upper), weight, lower, upper, delta, prior)
    batch.descend(offset, steps, gentle=False)
    if persistent:
        batch.descend(offset, steps, gentle=True)
    return Minimum(batch.theta, batch.cost, batch.offset)


class _Batch:
    """Problems on their way: θ, cost and offset of each."""

    def __init__(
        self, model: Model, theta: Array, weight: Array, lower: Array, upper: Array, delta: float, prior: Prior | None
    ) -> None:
        self.model, self.theta, self.weight = model, theta, weight
        self.lower, self.upper, self.delta, self.prior = lower, upper, delta, prior
        self.cost, self.offset = np.full(len(theta), np.inf), np.full(len(theta), np.inf)
        self.counted = np.maximum((weight > 0).sum((1, 2)), 1)

    def descend(self, offset: float, steps: int, *, gentle: bool) -> None:
        active = np.flatnonzero(self.offset > offset)
        if not len(active):
            return
        found, cost, weight = self._evaluate(self.theta[active], active)
        damping, growth = np.full(len(active), 1e-3), np.full(len(active), 2.0)
        for number in range(steps + 1):
            gradient, hessian = normal(found, weight * huber_weight(found.log_loss, self.delta))
            step, fall, free = self._step(self.theta[active], active, gradient, hessian, damping)
            self.offset[active] = self._offset(fall, free, cost, active)
            self.cost[active] = cost
            ended = (damping >= _DAMPING_MAX) | (number == steps)
            blind = ended & (damping > _LIGHT)
            if blind.any():  # so much damping hides how far the minimum is
                self._look(_some(found, blind), cost[blind], weight[blind], active[blind])
            going = ~ended & ~((self.offset[active] <= offset) & (damping <= _LIGHT))
            if not going.any():
                break
            if not going.all():
                active, cost, weight, step = active[going], cost[going], weight[going], step[going]
                damping, growth, fall = damping[going], growth[going], fall[going]
                found = _some(found, going)
            here = self.theta[active]
            candidate = np.clip(here + step, self.lower[active], self.upper[active])  # to the last digit
            new, new_cost, _ = self._evaluate(candidate, active, weight)
            better = new_cost < cost
            small = np.abs(candidate - here).max(-1) <= _NO_STEP * (1 + np.abs(here).max(-1))
            self.theta[active[better]] = candidate[better]
            gained = (cost - new_cost) / np.maximum(fall / 2, 1e-300)
            found = new if better.all() else _mixed(found, new, better)
            cost = np.where(better, new_cost, cost)
            if gentle:
                eased = np.maximum(1 / 3, 1 - (2 * np.clip(gained, 0, 1) - 1) ** 3)
                damping = np.where(better, np.maximum(damping * eased, 1e-14), damping * growth)
                growth = np.where(better, 2.0, 2 * growth)
            else:
                damping = np.where(better, np.maximum(damping * _GAIN_DOWN, 1e-14), damping * _GAIN_UP)
            damping = np.where(small, _DAMPING_MAX, damping)  # no step is left: this is the end

    def _offset(self, fall: Array, free: Array, cost: Array, which: Index) -> Array:
        noise = 2 * cost / self.counted[which] + _EXACT**2
        return np.asarray(np.sqrt(np.maximum(fall, 0) / np.maximum(free, 1) / noise))

    def _look(self, found: Blocks, cost: Array, weight: Array, which: Index) -> None:
        gradient, hessian = normal(found, weight * huber_weight(found.log_loss, self.delta))
        _, fall, free = self._step(self.theta[which], which, gradient, hessian, np.full(len(which), _NEARLY_NONE))
        self.offset[which] = self._offset(fall, free, cost, which)

    def _evaluate(self, theta: Array, which: Index, weight: Array | None = None) -> tuple[Blocks, Array, Array]:
        weight = self.weight[which] if weight is None else weight
        found = self.model(theta, which)
        cost = huber(found.log_loss, weight, self.delta)
        return found, cost if self.prior is None else cost + self.prior.cost(theta, which), weight

    def _step(
        self, here: Array, which: Index, gradient: Array, hessian: Array, damping: Array
    ) -> tuple[Array, Array, Array]:
        """Return the step within the box, twice the decrease of the quadratic model, and how many parameters move."""
        here_low, here_high = self.lower[which] - here, self.upper[which] - here
        if self.prior is not None:
            gradient += self.prior.pull(here, which)
            hessian += self.prior.precision[which]
        # A parameter whose way down leads out of the box stays at its side in this step.
        fixed = ((here_low >= 0) & (gradient > 0)) | ((here_high <= 0) & (gradient < 0)) | (here_low == here_high)
        diagonal = np.einsum("nkk->nk", hessian).copy()
        largest = diagonal.max(-1, keepdims=True, initial=0.0)
        np.einsum("nkk->nk", hessian)[:] += damping[:, None] * diagonal + 1e-15 * largest + (largest == 0)
        step = _within(hessian, gradient, here_low, here_high, fixed)
        fall = _fall(hessian, gradient, step)
        # Sides that were taken all at once may be too many: then one after another, which is never worse than no step.
        wrong = np.flatnonzero(fall <= 0)
        if len(wrong):
            step[wrong] = _descended(hessian[wrong], gradient[wrong], here_low[wrong], here_high[wrong], fixed[wrong])
            fall[wrong] = _fall(hessian[wrong], gradient[wrong], step[wrong])
        return step, fall, (~fixed).sum(-1)


def _fall(hessian: Array, gradient: Array, step: Array) -> Array:
    """Return twice the decrease of the quadratic model by a step: gᵀH⁻¹g of a step to its minimum."""
    return np.asarray(-((2 * gradient + (hessian @ step[..., None])[..., 0]) * step).sum(-1))


def _descended(hessian: Array, gradient: Array, lower: Array, upper: Array, fixed: npt.NDArray[np.bool_]) -> Array:
    """Return what `_within` does, going to the first side in the way and on from there: more solves, always down."""
    fixed, step = fixed.copy(), np.zeros_like(gradient)
    rows = np.arange(len(step))
    for _ in range(step.shape[1]):
        here = step[rows]
        move = np.where(fixed[rows], 0.0, _solved(hessian[rows], gradient[rows], here, fixed[rows]) - here)
        room = np.where(move > 0, upper[rows] - here, lower[rows] - here)
        ratio = np.where(move == 0, np.inf, room / np.where(move == 0, 1.0, move))
        first = ratio.argmin(1)
        length = np.minimum(ratio[np.arange(len(rows)), first], 1.0)
        step[rows] = np.clip(here + length[:, None] * move, lower[rows], upper[rows])
        blocked = length < 1
        rows, first = rows[blocked], first[blocked]
        if not len(rows):
            break
        fixed[rows, first] = True
    return step


def _solved(hessian: Array, gradient: Array, at: Array, held: npt.NDArray[np.bool_]) -> Array:
    """Return the minimum of ½ dᵀHd + gᵀd with d = `at` where it is held."""
    if not held.any():
        return np.asarray(np.linalg.solve(hessian, -gradient[..., None])[..., 0])
    fast = np.where(held, at, 0.0)
    right = np.where(held, at, -gradient - (hessian @ fast[..., None])[..., 0])
    system = hessian * ~held[:, :, None]
    system *= ~held[:, None, :]
    np.einsum("nkk->nk", system)[:] += held
    return np.asarray(np.linalg.solve(system, right[..., None])[..., 0])


def _within(hessian: Array, gradient: Array, lower: Array, upper: Array, fixed: npt.NDArray[np.bool_]) -> Array:
    """Return about the minimum of ½ dᵀHd + gᵀd with lower ≤ d ≤ upper.

    What leaves the box is put on its side, and the others are solved for anew: cut at the box alone, a step would be
    no step down where many parameters are at their sides.
    """
    fixed, step = fixed.copy(), np.zeros_like(gradient)
    rows = np.arange(len(step))
    for _ in range(_SIDES):
        held = fixed[rows]
        solved = _solved(hessian[rows], gradient[rows], step[rows], held)
        step[rows] = np.clip(solved, lower[rows], upper[rows])
        out = ~held & ((solved < lower[rows]) | (solved > upper[rows]))
        fixed[rows] |= out
        rows = rows[out.any(-1)]
        if not len(rows):
            break
    return step


def _some(found: Blocks, rows: npt.NDArray[np.bool_]) -> Blocks:
    scale = None if found.scale is None else found.scale[rows]
    return Blocks(found.log_loss[rows], scale, found.volume[rows], found.mixture[rows])


def _mixed(old: Blocks, new: Blocks, rows: npt.NDArray[np.bool_]) -> Blocks:
    """Return the new blocks where `rows` says so, the old ones elsewhere."""
    worse = ~rows
    for after, before in (
        (new.log_loss, old.log_loss),
        (new.volume, old.volume),
        (new.mixture, old.mixture),
        (new.scale, old.scale),
    ):
        if after is not None and before is not None:
            after[worse] = before[worse]
    return new
