"""What a law must offer to be fitted, predicted from and optimised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Inputs:
    """Where a law is evaluated. Mixtures and volumes are held once: many points share them, and powers are dear.

    Args:
        shares: Proportions, shape (mixtures, domains); or of each problem its own, (problems, mixtures, domains).
        mixture: Which mixture each point is of, shape (points,).
        log_u: Distinct log(s / s₀), shape (volumes,).
        volume: Which volume each point is at, shape (points,).
        zero_share: Floor of a target's own proportion in the laws that are infinite at 0.
    """

    shares: Array
    mixture: Index
    log_u: Array
    volume: Index
    zero_share: float

    @classmethod
    def rows(cls, shares: Array, log_u: Array, zero_share: float) -> Inputs:
        """Return the inputs of one point a row of shares."""
        each = np.arange(len(shares))
        return cls(shares, each, log_u, each, zero_share)

    @classmethod
    def each(cls, shares: Array, log_u: Array, zero_share: float) -> Inputs:
        """Return the inputs of one point a problem, each with its own mixture: shares of shape (problems, domains).

        At one volume, `log_u` of shape (1,), or at one of its own, (problems, 1).
        """
        none = np.zeros(1, np.intp)
        return cls(shares[:, None, :], none, log_u, none, zero_share)

    def own_share(self, own: Index) -> Array:
        """Return each problem's own proportion, not below the floor, shape (problems, mixtures)."""
        mine = self.shares.T[own] if self.shares.ndim == 2 else self.shares[np.arange(len(own)), :, own]
        return np.maximum(mine, self.zero_share)

    def along(self, slopes: Array) -> Array:
        """Return Σ_j t_j r_j of slopes (problems, domains), shape (problems, mixtures)."""
        if self.shares.ndim == 2:
            return np.asarray(slopes @ self.shares.T)
        return np.asarray((self.shares @ slopes[..., None])[..., 0])


@dataclass(frozen=True)
class ByShare:
    """A law's value and its slope and bend in the proportions, at fixed s.

    The bend of a law L = h(Σ_j φ_j(r_j)) has this form: ∂²L/∂r∂rᵀ = L (q g gᵀ + diag d), with g = ∂ log L/∂r.

    Args:
        log_loss: log L, shape (problems, points).
        gradient: g, shape (problems, points, domains).
        factor: q, shape (problems, points).
        diagonal: d, shape (problems, points, domains).
    """

    log_loss: Array
    gradient: Array
    factor: Array
    diagonal: Array


class Law(Protocol):
    """A parametric law log L(r, u; θ) of the mixture r and the scaled data volume u = s / s₀.

    A law works on θ, its parameters in a scale in which steps of one size mean the same for each of them, and on a
    batch of problems: the first axis of θ, each with a target domain (`own`, its column in the shares; −1: a target
    that is no domain of the mixtures). s₀ is the geometric mean of the observed s, so a fit on tokens and one on
    steps are the same fit. Third parties add laws by the entry point group `bimix_tracking.laws`, an object each;
    `bimix_tracking.laws.check_law` says what one lacks.
    """

    name: str
    formula: str
    """As the report prints it."""
    mixtures_needed: int
    """With fewer distinct mixtures the law is not chosen: more of its parameters than that are not shrunk."""
    needs_own: bool
    """Whether a target must be a domain of the mixtures."""
    infinite_at_zero: bool
    """Whether a target's own proportion must be above 0."""
    own_only: bool
    """Whether it sees no proportion but the target's own. Then `effect` is watched, and a reported value above 0 of it
    means that the loss falls when the proportion grows."""
    power_of_own: bool
    """Whether L = K(s) r_i^−α of the own proportion, so that the best mixture has a closed form."""
    effect: int
    """Position in θ of a parameter without which the effect of the mixture isn't told."""
    watched: Mapping[str, int]
    """Reported name → position in θ of the parameters whose reaching a bound says something."""
    fine_at: Mapping[tuple[str, str], str]
    """(name, side) → `no floor` or `fine`: bounds that are no cause for doubt."""

    @property
    def page_script(self) -> str | None:
        """What the report's explorer evaluates: a JavaScript function (t, at, r, own, logU, floor) → log L.

        t[at], t[at + 1], … is θ, r the proportions (`count` of them), `own` the target's place in them or −1, logU
        log(s / s₀), `floor` the proportion floor. `logAddExp` and `power` (that of `volume`) are at hand. None: a page
        in which the law has a part says that it isn't interactive.
        """

    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the parameters as they are reported."""

    def evaluate(self, theta: Array, own: Index, x: Inputs) -> tuple[Array, Array]:
        """Return log L, shape (problems, points), and ∂ log L / ∂θ, shape (problems, points, parameters)."""

    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        """Return log L with its slope and bend in r at fixed s."""

    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        """Return starting points, shape (problems, starts, parameters), from losses of shape (problems, points)."""

    def bounds(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> tuple[Array, Array]:
        """Return lower and upper bounds of θ, each (problems, parameters); equal where a parameter doesn't exist."""

    def prior(self, own: Index, domains: int) -> tuple[Array, Array]:
        """Return what θ is shrunk to, (problems, parameters), and the precision, (problems, parameters, parameters).

        In the unit of one run whose losses are off by the prior's noise; 0 where nothing is shrunk.
        """

    def told(self, shares: int, mixtures: int, volumes: int, domains: int) -> npt.NDArray[np.bool_]:
        """Return which θ data can tell that have so many distinct own shares, mixtures and volumes."""

    def held(self, domains: int) -> Array:
        """Return the value of θ at which a parameter that cannot be told is held, shape (parameters,)."""

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
    counts = weight > 0
    low = np.where(counts, log_loss, np.inf).min(-1, initial=np.inf)
    high = np.where(counts, log_loss, -np.inf).max(-1, initial=-np.inf)
    return np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 0.0)


def one_hot(own: Index, domains: int) -> Array:
    """Return 1 at each problem's own domain, shape (problems, domains); all 0 for a target outside."""
    return np.asarray(own[:, None] == np.arange(domains), float)
