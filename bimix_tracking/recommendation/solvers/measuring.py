"""What a search within guards asks for: a model of a mixture's value and its room to each limit, and the region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, Index

_NO_ROOM = 1e-14


@dataclass(frozen=True)
class Measured:
    """What a model says of mixtures.

    Args:
        value: f, shape (n,).
        gradient: Its slope, shape (n, domains).
        room: How far each guard is from its limit, above 0 inside, shape (n, guards); infinite: no such guard.
        slopes: Of −room, shape (n, guards, domains).
        bend: (z, own) → own · ∂²f + Σ_k z_k ∂²(−room_k), positive semidefinite, shape (n, domains, domains).
    """

    value: Array
    gradient: Array
    room: Array
    slopes: Array
    bend: Callable[[Array, float], Array]


class Model(Protocol):
    """Functions of a mixture, of several problems."""

    def __call__(self, shares: Array, which: Index) -> Measured:
        """Return what is known of mixture n, (n, domains), in problem `which[n]`."""


@dataclass(frozen=True)
class Region:
    """Where a batch of mixtures may be: each array has a row a problem.

    Args:
        lower: Shape (problems, domains).
        upper: Likewise.
        near: What the distance is from, likewise; None: none is limited.
        radius: Largest distance in total variation, shape (problems,).
    """

    lower: Array
    upper: Array
    near: Array | None = None
    radius: Array | None = None

    def of(self, rows: Index) -> Region:
        """Return the region of some problems."""
        near = None if self.near is None else self.near[rows]
        return Region(self.lower[rows], self.upper[rows], near, None if self.radius is None else self.radius[rows])

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """Which proportions aren't pinned, shape (problems, domains)."""
        return np.asarray(self.upper - self.lower > _NO_ROOM)


def together(pieces: list[tuple[Index, Index, Measured]], count: int, domains: int) -> Callable[[Array, float], Array]:
    """Return the bend of problems that were measured in several calls."""
    if len(pieces) == 1 and len(pieces[0][0]) == len(pieces[0][2].value):
        return pieces[0][2].bend

    def bend(z: Array, own: float) -> Array:
        result = np.empty((count, domains, domains))
        for rows, local, found in pieces:
            part = np.zeros((len(found.value), z.shape[1]))
            part[local] = z[rows]
            result[rows] = found.bend(part, own)[local]
        return result

    return bend


def only(bend: Callable[[Array, float], Array], rest: Index, shape: tuple[int, ...]) -> Callable[[Array, float], Array]:
    """Return the bend of the rest of the problems."""

    def part(z: Array, own: float) -> Array:
        whole = np.zeros(shape)
        whole[rest] = z
        return np.asarray(bend(whole, own)[rest])

    return part
