"""What a set of mixtures would identify of a law before any is run: Fisher information, and its best choice.

At one data volume a run at mixture x measures each target's log L with noise σ. With J(x) = ∂ log L / ∂θ and the law's
own prior precision P, the covariance of θ after runs x_1 … x_n is

    Σ = (P + 1 + Σ_n J(x_n)ᵀ J(x_n) / σ²)⁻¹,

the 1 a wide prior on what a law leaves free. What is wanted isn't θ but the ranking of mixtures, so the criterion is
the mean variance of the predicted log loss about its mean, over mixtures x that may turn out best (an I-optimal, or
V-optimal, Bayesian design: Chaloner & Verdinelli 1995, 10.1214/ss/1177009939). J depends on θ: it is averaged
over plausible laws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.design.space_filling import SMALLEST_SHARE, distances, inside, into_box, scattered
from bimix_tracking.laws.protocol import Array, Index, Inputs, Law
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.progress import Progress, reported

_ALPHAS = (0.03, 0.3)
"""Exponents of published fits lie in here (BiMix on The Pile and SlimPajama, SlimPajama's public sweep)."""
_LEVELS = (1.5, 3.5)
_TRANSFER = 0.15
_PROBLEMS = 48
"""So many (plausible law, target) pairs are averaged over at most."""
_NEAR, _WIDE = 16, 16
"""Mixtures whose ranking is wanted: about the optimum of each plausible law, and anywhere in the box."""
_PASSES = 4
_BESIDE = 2.0
_COST, _TIED = 1.0, 0.95
"""A proportion that no run reaches costs as much as a variance e times as large: the optimum may be beyond it."""
_LOCAL = 40
CHOOSING, EXCHANGING = "choosing mixtures", "exchanging mixtures"
"""Stages, as progress reports them."""
_SAME = 1e-9


@dataclass(frozen=True)
class _Part:
    """One law's problems, a problem a (plausible θ, target)."""

    law: Law
    theta: Array
    own: Index
    free: Array
    prior: Array
    wanted: Array
    """∂ log L / ∂θ about its mean at the mixtures whose ranking is wanted, shape (problems, mixtures, parameters), so
    that Σ wᵀ Cov w is the mean variance there."""

    def covariance(self, shares: Array, noise: float) -> Array:
        """Return that of θ after runs at shares, shape (problems, parameters, parameters)."""
        jacobian = self.jacobian(shares)
        return np.asarray(np.linalg.inv(self.prior + np.swapaxes(jacobian, 1, 2) @ jacobian / noise**2))

    def jacobian(self, shares: Array) -> Array:
        """Return ∂ log L / ∂θ, shape (problems, mixtures, parameters)."""
        inputs = Inputs.rows(shares, np.zeros(len(shares)), SMALLEST_SHARE)
        return np.asarray(self.law.blocks(self.theta, self.own, inputs).jacobian()[:, :, 0] * self.free[:, None, :])


class Information:
    """What mixtures would identify of laws: the criterion of a design, and the search for the best one.

    Args:
        laws: Names of the laws that may turn out right.
        lower: Smallest proportions, shape (domains,).
        upper: Largest proportions, shape (domains,).
        noise: σ, the noise of a run's log loss.
        rng: Of the plausible laws.
    """

    def __init__(
        self, laws: Sequence[str], lower: Array, upper: Array, *, noise: float, rng: np.random.Generator
    ) -> None:
        self._lower, self._upper, self._noise, self._rng = lower, upper, noise, rng
        count = len(lower)
        self.optima, self._losses_at = _plausible(max(2, 24 // count + 1), lower, upper, rng)
        draws = len(self.optima)
        pairs = rng.permutation(draws * count)[:_PROBLEMS]
        draw, own = np.divmod(pairs, count)
        general = scattered(self.optima, _WIDE, lower, upper, rng)
        self._parts = [self._part(find_law(name), draw, own, general) for name in laws]
        self.names = tuple(laws)

    def _part(self, law: Law, draw: Index, own: Index, general: Array) -> _Part:
        count = len(self._lower)
        inputs = Inputs.rows(general, np.zeros(len(general)), SMALLEST_SHARE)
        truth = self._losses_at(general)[draw, :, own]
        observed, ones = truth[..., None], np.ones((*truth.shape, 1))
        # A law's own starts are its guesses at losses like these; the nearest one is a plausible θ.
        starts = law.starts(own, inputs, observed, ones)
        fits = [law.blocks(starts[:, i], own, inputs).log_loss[..., 0] - truth for i in range(starts.shape[1])]
        best = np.argmin([((residual - residual.mean(1, keepdims=True)) ** 2).sum(1) for residual in fits], axis=0)
        theta = starts[np.arange(len(own)), best]
        box = law.box(own, inputs, observed, ones)
        identifiable = law.identifiable(count + 9, count + 9, 1, count)
        free = (box.upper > box.lower) & identifiable
        theta = np.clip(np.where(identifiable, theta, box.held), box.lower, box.upper)
        prior = law.prior(own, count).precision + np.eye(theta.shape[1])
        part = _Part(law, theta, own, free.astype(float), prior, np.empty(0))
        wanted = np.zeros((len(theta), 1 + _NEAR + len(general), theta.shape[1]))
        for one in np.unique(draw):
            near = inside(
                self.optima[one] * np.exp(0.3 * self._rng.standard_normal((_NEAR, count))),
                self._lower, self._upper, self._rng,
            )  # fmt: skip
            at = np.concatenate([self.optima[one : one + 1], near, general])
            jacobian = part.jacobian(at)[draw == one]
            about = jacobian - jacobian.mean(1, keepdims=True)
            wanted[draw == one] = about / math.sqrt(len(at))
        return _Part(law, theta, own, part.free, part.prior, wanted)

    def variance(self, shares: Array, law: str) -> float:
        """Return the mean variance of a law's predicted log loss about its mean, after runs at shares (n, domains)."""
        part = self._parts[self.names.index(law)]
        return float(((part.wanted @ part.covariance(shares, self._noise)) * part.wanted).sum((1, 2)).mean())

    def exchange(
        self,
        fixed: Array,
        pool: Array,
        count: int,
        *,
        apart: float = 0.0,
        reach: tuple[Array, Array] | None = None,
        moves: bool = True,
        progress: Progress | None = None,
    ) -> Array:
        """Return the mixtures to add to fixed ones, shape (count, domains): greedily, then each exchanged in turn.

        An exchange is with a member of the pool or with the mixture itself moved in one or a few domains, until no
        exchange helps.

        Args:
            fixed: What is run anyway, (n, domains).
            pool: Shape (members, domains).
            count: How many to add.
            apart: The distance that two runs keep at least (`space_filling.separation`).
            reach: Proportions that are to be tried of each domain, a small and a large one, each (domains,): what is
                recommended later lies between those tried. Each that no run reaches costs a part of the variance.
            moves: Whether a mixture may leave the pool; without, each is a member of it, and no member is taken twice.
            progress: Called as (what, done, total).
        """
        jacobians = self.jacobians(pool)
        chosen = np.zeros((0, fixed.shape[1]))
        for _ in reported(progress, CHOOSING, range(count)):
            there = np.concatenate([fixed, chosen])
            after = np.where(_clear(pool, there, apart), self.after(there, jacobians), np.inf)
            after += _unreached(there, pool, reach)
            chosen = np.concatenate([chosen, pool[[int(after.argmin())]]])
        for number in range(_PASSES):
            moved = False
            for place in reported(progress, f"{EXCHANGING}, pass {number + 1}", range(count)):
                rest = np.concatenate([fixed, np.delete(chosen, place, axis=0)])
                # The mixture as it is comes first among its own moves.
                local = self._moved(chosen[place]) if moves else chosen[place][None]
                more = [
                    np.concatenate([of_pool, part.jacobian(local)], axis=1)
                    for part, of_pool in zip(self._parts, jacobians, strict=True)
                ]
                others = np.concatenate([pool, local])
                after = self.after(rest, more) + _unreached(rest, others, reach)
                now = after[len(pool)]
                after[~_clear(others, rest, apart)] = np.inf
                best = int(after.argmin())
                if after[best] < now - 1e-4:
                    chosen[place] = others[best]
                    moved = True
            if not moved:
                break
        return chosen

    def reach(self, reference: Array) -> tuple[Array, Array]:
        """Return a small and a large proportion of each domain that a sweep should try, each (domains,).

        Those of the plausible laws' optima, and somewhat less and more than the reference, as far as the box goes.

        Args:
            reference: Shape (domains,).
        """
        low = np.minimum(self.optima.min(0), reference / _BESIDE)
        high = np.maximum(self.optima.max(0), reference * _BESIDE)
        return np.clip(low, self._lower, self._upper), np.clip(high, self._lower, self._upper)

    def jacobians(self, pool: Array) -> list[Array]:
        """Return what `after` needs of a pool's mixtures, (members, domains): computed once."""
        return [part.jacobian(pool) for part in self._parts]

    def after(self, shares: Array, jacobians: Sequence[Array]) -> Array:
        """Return the criterion with each member of a pool added to runs at shares, shape (members,).

        That is the mean over the laws of the log of `variance`.
        """
        total = np.zeros(jacobians[0].shape[1])
        for part, rows in zip(self._parts, jacobians, strict=True):
            covariance = part.covariance(shares, self._noise)
            towards = part.wanted @ covariance
            now = (towards * part.wanted).sum((1, 2))
            fall = ((rows @ np.swapaxes(towards, 1, 2)) ** 2).sum(-1)
            fall /= self._noise**2 + ((rows @ covariance) * rows).sum(-1)
            total += np.log(np.maximum((now[:, None] - fall).mean(0), 1e-300))
        return total / len(self._parts)

    def _moved(self, at: Array) -> Array:
        count = len(at)
        which = self._rng.random((_LOCAL, count)) < max(1.5 / count, 0.15)
        step = self._rng.choice([0.15, 0.5], (_LOCAL, 1)) * self._rng.standard_normal((_LOCAL, count)) * which
        return np.concatenate([at[None], inside(at * np.exp(step), self._lower, self._upper, self._rng)])


def _clear(some: Array, others: Array, apart: float) -> npt.NDArray[np.bool_]:
    """Return which mixtures are no near-twin of others, and none of them, shape (some,)."""
    if not len(others):
        return np.ones(len(some), bool)
    same = np.abs(some[:, None] - others).max(-1).min(1) < _SAME
    return np.asarray(~same & (distances(some, others).min(1) >= apart))


def _plausible(
    draws: int, lower: Array, upper: Array, rng: np.random.Generator
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the optima of laws drawn at random, (draws, domains), and a function for their log losses.

    L_i = c_i (r_i + Σ_j t_ij r_j)^(−α_i), with α and c even in the logarithm, and a few transfers.
    """
    count = len(lower)
    alpha = np.exp(rng.uniform(math.log(_ALPHAS[0]), math.log(_ALPHAS[1]), (draws, count)))
    level = np.exp(rng.uniform(math.log(_LEVELS[0]), math.log(_LEVELS[1]), (draws, count)))
    transfer = rng.exponential(_TRANSFER, (draws, count, count)) * (rng.random((draws, count, count)) < 0.3)
    transfer[:, np.arange(count), np.arange(count)] = 1.0

    def losses(shares: Array) -> Array:
        effective = np.einsum("dij,nj->dni", transfer, shares)
        return np.asarray(np.log(level)[:, None] - alpha[:, None] * np.log(np.maximum(effective, 1e-12)))

    # r_j ∝ −r_j ∂F/∂r_j holds at the optimum, and going there again and again arrives.
    at = into_box(np.ones((draws, count)), lower, upper)
    for _ in range(100):
        effective = np.maximum(np.einsum("dij,dj->di", transfer, at), 1e-12)
        pull = np.einsum("di,dij->dj", alpha * level * effective ** (-alpha - 1), transfer)
        at = into_box(np.maximum(at, 1e-9) * pull, lower, upper)
    return at, losses


def _unreached(there: Array, others: Array, reach: tuple[Array, Array] | None) -> Array:
    """Return what proportions cost that no run has reached, with each of some others added, shape (others,)."""
    if reach is None:
        return np.zeros(len(others))
    low, high = reach
    most, least = np.maximum(there.max(0), others), np.minimum(there.min(0), others)
    return np.asarray(_COST * ((most < _TIED * high).sum(1) + (_TIED * least > low).sum(1)))
