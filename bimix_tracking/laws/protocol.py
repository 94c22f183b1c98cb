"""What a law must offer to be fitted, predicted from and optimised."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Law(Protocol):
    """A parametric law log L(r, u; θ) of the mixture r and the scaled data volume u = s / s₀.

    A law works on θ, its parameters in a scale in which steps of one size mean the same for each of them, and on
    batches: leading dimensions of θ and of the data broadcast. s₀ is the geometric mean of the observed s, so a
    fit on tokens and one on steps are the same fit.
    """

    name: str
    parameters: tuple[str, ...]
    """Names of the parameters as they are reported, in the order of θ."""

    def log_loss(self, theta: Array, log_share: Array, log_u: Array) -> Array:
        """Return log L, shape (…, points).

        Args:
            theta: Shape (…, parameters).
            log_share: log r_i of the target domain at each point, shape (…, points).
            log_u: log(s / s₀), shape (…, points).
        """

    def jacobian(self, theta: Array, log_share: Array, log_u: Array) -> Array:
        """Return ∂ log L / ∂θ, shape (…, points, parameters)."""

    def starts(self, log_share: Array, log_u: Array, log_loss: Array, weight: Array) -> Array:
        """Return starting points, shape (…, starts, parameters), from data of shape (…, points)."""

    def bounds(self, log_loss: Array, weight: Array) -> tuple[Array, Array]:
        """Return the lower and the upper bound of θ, each of shape (…, parameters)."""

    def identifiable(self, shares: int, volumes: int) -> tuple[bool, ...]:
        """Return for each parameter whether data with that many distinct shares and volumes can tell it."""

    def held(self) -> Array:
        """Return the value of θ at which a parameter that cannot be told is held, shape (parameters,)."""

    def report(self, theta: Array, scale: float) -> dict[str, float]:
        """Return the parameters in the units of s, from θ and s₀."""

    def internal(self, parameters: dict[str, float], scale: float) -> Array:
        """Return θ of reported parameters: the inverse of `report`."""
