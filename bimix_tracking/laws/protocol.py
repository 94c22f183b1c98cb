"""What a law must offer to be fitted, predicted from and optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Inputs:
    """Where a law is evaluated: mixtures × data volumes. Powers are dear, so what many points share is held once.

    Args:
        shares: Proportions, shape (mixtures, domains); or of each problem its own, (problems, mixtures, domains).
        log_u: log(s / s₀): (1, volumes) where all mixtures share their volumes, (mixtures, volumes) where each has its
            own; or of each problem its own, (problems, 1 or mixtures, volumes).
        floor: Proportion floor of a target's own proportion in the laws that are infinite at 0.
    """

    shares: Array
    log_u: Array
    floor: float

    @classmethod
    def rows(cls, shares: Array, log_u: Array, floor: float) -> Inputs:
        """Return the inputs of one volume a mixture: log_u of shape (mixtures,)."""
        return cls(shares, np.asarray(log_u)[:, None], floor)

    @classmethod
    def each(cls, shares: Array, log_u: Array, floor: float) -> Inputs:
        """Return the inputs of one point a problem, each with its own mixture: shares of shape (problems, domains).

        At one volume, `log_u` of shape (1,), or at one of its own, (problems, 1).
        """
        return cls(shares[:, None, :], np.asarray(log_u).reshape(-1, 1, 1), floor)

    def own_share(self, own: Index) -> Array:
        """Return each problem's own proportion, not below the floor, shape (problems, mixtures)."""
        mine = self.shares.T[own] if self.shares.ndim == 2 else self.shares[np.arange(len(own)), :, own]
        return np.maximum(mine, self.floor)

    def along(self, slopes: Array) -> Array:
        """Return Σ_j t_j r_j of slopes (problems, domains), shape (problems, mixtures)."""
        if self.shares.ndim == 2:
            return np.asarray(slopes @ self.shares.T)
        return np.asarray((self.shares @ slopes[..., None])[..., 0])


@dataclass(frozen=True)
class Blocks:
    """A law's value and its derivatives by θ = (volume part, mixture part) on a grid of mixtures × volumes.

    The derivative at mixture m and volume v is a_mv (φ_v, ψ_m): what depends on the volume and what depends on the
    mixture are never multiplied out. So JᵀWJ of the mixture's part is Σ_m ψ_m ψ_mᵀ Σ_v w_mv a_mv², and no Jacobian
    at single points is needed.

    Args:
        log_loss: log L, shape (problems, mixtures, volumes).
        scale: a, same shape; None: 1 everywhere.
        volume: φ, shape (problems, 1 or mixtures, volumes, parameters of the volume).
        mixture: ψ, shape (problems, mixtures, parameters of the mixture).
    """

    log_loss: Array
    scale: Array | None
    volume: Array
    mixture: Array

    def jacobian(self) -> Array:
        """Return ∂ log L / ∂θ multiplied out, shape (problems, mixtures, volumes, parameters)."""
        count = self.volume.shape[-1]
        result = np.empty((*self.log_loss.shape, count + self.mixture.shape[-1]))
        result[..., :count], result[..., count:] = self.volume, self.mixture[:, :, None, :]
        return result if self.scale is None else np.asarray(result * self.scale[..., None])


@dataclass(frozen=True)
class ByShare:
    """A law's value and its slope and bend in the proportions, at fixed s, one volume a mixture.

    The bend of a law L = h(Σ_j φ_j(r_j)) has this form: ∂²L/∂r∂rᵀ = L (q g gᵀ + diag d), with g = ∂ log L/∂r.

    Args:
        log_loss: log L, shape (problems, mixtures).
        gradient: g, shape (problems, mixtures, domains).
        factor: q, shape (problems, mixtures).
        diagonal: d, shape (problems, mixtures, domains).
    """

    log_loss: Array
    gradient: Array
    factor: Array
    diagonal: Array


@dataclass(frozen=True)
class Traits:
    """What is special about a law: the engine asks for these, never for a name.

    Args:
        effect: Position in θ of a parameter without which the effect of the mixture isn't identifiable.
        watched: Reported name → position in θ of the parameters whose reaching a bound says something.
        fine_at: (name, side) → `no floor` or `fine`: bounds that are no cause for doubt.
        mixtures_needed: With fewer distinct mixtures the law is not chosen: more of its parameters than that are not
            shrunk.
        needs_own: Whether a target must be a domain of the mixtures.
        infinite_at_zero: Whether a target's own proportion must be above 0.
        own_only: Whether it sees no proportion but the target's own. Then `effect` is watched, and a reported value
            above 0 of it means that the loss falls when the proportion grows.
        power_of_own: Whether L = K(s) r_i^−α of the own proportion, so that the best mixture has a closed form.
        separable: Whether its derivatives are blocks. Otherwise it is asked for one volume a mixture at a time, with
            all of θ in the mixture's part.
    """

    effect: int
    watched: Mapping[str, int]
    mixtures_needed: int
    needs_own: bool
    infinite_at_zero: bool
    fine_at: Mapping[tuple[str, str], str] = field(default_factory=dict)
    own_only: bool = False
    power_of_own: bool = False
    separable: bool = True


@dataclass(frozen=True)
class Box:
    """Where θ is sought.

    Args:
        lower: Shape (problems, parameters).
        upper: Likewise; equal to `lower` where a parameter doesn't exist.
        held: The value of a parameter that isn't identifiable, shape (parameters,).
    """

    lower: Array
    upper: Array
    held: Array


@dataclass(frozen=True)
class Prior:
    """½ (θ − mean)ᵀ precision (θ − mean): what θ is shrunk to, 0 where nothing is shrunk.

    A law's own is in the unit of one run whose losses have the prior's noise.

    Args:
        mean: Shape (problems, parameters).
        precision: Shape (problems, parameters, parameters).
    """

    mean: Array
    precision: Array

    def pull(self, theta: Array, of: Index) -> Array:
        """Return the gradient at θ of those problems."""
        return np.asarray((self.precision[of] @ (theta - self.mean[of])[..., None])[..., 0])

    def cost(self, theta: Array, of: Index) -> Array:
        """Return the cost at θ of those problems."""
        return np.asarray(0.5 * ((theta - self.mean[of]) * self.pull(theta, of)).sum(-1))


class Law(Protocol):
    """A parametric law log L(r, u; θ) of the mixture r and the scaled data volume u = s / s₀.

    A law works on θ = (volume part, mixture part), its parameters in a scale in which steps of one size mean the same
    for each of them, and on a batch of problems: the first axis of θ, each with a target domain (`own`, its column in
    the shares; −1: a target that is no domain of the mixtures). s₀ is the geometric mean of the observed s, so a fit on
    tokens and one on steps are the same fit. Third parties add laws by the entry point group `bimix_tracking.laws`, an
    object each; `bimix_tracking.laws.check_law` says what one lacks.
    """

    name: str
    formula: str
    """As the report prints it."""
    traits: Traits

    @property
    def page_script(self) -> str | None:
        """What the report's explorer evaluates: a JavaScript function (t, at, r, own, logU, floor) → log L.

        t[at], t[at + 1], … is θ, r the proportions (`count` of them), `own` the target's place in them or −1, logU
        log(s / s₀), `floor` the proportion floor. `logAddExp` and `power` (that of `volume`) are at hand. None: a page
        in which the law has a part says that it isn't interactive.
        """

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the parameters as they are reported."""

    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        """Return log L and its derivatives by θ."""

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return log L with its slope and bend in r at fixed s; `x` has one volume a mixture."""

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return starting points, (problems, starts, parameters), from losses of (problems, mixtures, volumes)."""

    def box(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Box:
        """Return where θ is sought, from losses of shape (problems, mixtures, volumes)."""

    def prior(self, own: Index, domains: int) -> Prior:
        """Return what θ is shrunk to."""

    def identifiable(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Return which θ are identifiable from so many distinct own shares, mixtures and volumes.

        Of a target outside, which has no own share, as many shares as mixtures are said.
        """

    def report(self, theta: Array, scale: float, own: int, domains: Sequence[str]) -> dict[str, float]:
        """Return the parameters in the units of s, from θ and s₀."""

    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        """Return θ of reported parameters: the inverse of `report`."""


def script_beside(module: str) -> str:
    """Return a law's page script, from the file of the module's name that ends in `.js`.

    Args:
        module: The module's `__file__`.
    """
    return Path(module).with_suffix(".js").read_text(encoding="utf-8")


def loss_range(log_loss: Array, weight: Array) -> tuple[Array, Array]:
    """Return the smallest and the largest log loss that counts, each (problems,); 0 where none does."""
    counts, axes = weight > 0, tuple(range(1, weight.ndim))
    low = np.where(counts, log_loss, np.inf).min(axes, initial=np.inf)
    high = np.where(counts, log_loss, -np.inf).max(axes, initial=-np.inf)
    return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)


def mean_log_loss(log_loss: Array, weight: Array) -> Array:
    """Return the weighted mean of each problem's log losses, (problems,); plain where nothing counts."""
    axes = tuple(range(1, weight.ndim))
    w = np.where(weight.sum(axes, keepdims=True) > 0, weight, 1.0)
    return np.asarray((w * log_loss).sum(axes) / w.sum(axes))


def one_hot(own: Index, domains: int) -> Array:
    """Return 1 at each problem's own domain, shape (problems, domains); all 0 for a target outside."""
    return np.asarray(own[:, None] == np.arange(domains), float)
