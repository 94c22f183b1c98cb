"""The least value of smooth convex functions of a mixture within guards and a distance; a batch of problems at once.

    minimise f(r)  subject to  Σ r = 1,  lower ≤ r ≤ upper,  room_k(r) ≥ 0,  ½ Σ |r − near| ≤ radius

A primal–dual interior-point method: all iterates are strictly inside, so what it returns breaks no guard. The bounds
are condensed into the Newton system, H + diag(z / c); the distance takes u ≥ 0, u ≥ r − near, Σ u ≤ radius beside r.
Steps are Mehrotra's, shortened until the barrier function falls (Nocedal and Wright, 2006, ch. 14 and 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.recommendation.solvers.measuring import Measured, Model, Region, only, together

_STEPS, _HALVINGS = 150, 40
_ARRIVED, _STILL = 1e-14, 1e-11
"""Complementarity and slope of the Lagrangian at the end, of functions whose slope is about 1 at the start."""
_KEPT = 0.005
"""At least this part of the distance to a bound is kept in a step."""
_FIRST = 0.1
_SHORT = 0.5
_ARMIJO, _ROUNDING = 1e-4, 1e-14
_DUALS = 1e10
_CORNER = 1e-13


@dataclass(frozen=True)
class Interior:
    """Where searches ended.

    Args:
        shares: Shape (n, domains).
        multipliers: z of each guard, in units of f per unit of room, shape (n, guards).
        ball: Multiplier of the distance, shape (n,).
        common: Multiplier of Σ r = 1, shape (n,).
        excess: By how much the guards had to be relaxed, where that is what was minimised; shape (n,).
    """

    shares: Array
    multipliers: Array
    ball: Array
    common: Array
    excess: Array


def search(
    model: Model, region: Region, start: Array, which: Index, *, relaxed: bool = False, enough: float = np.inf
) -> Interior:
    """Search from strictly inside.

    Args:
        model: What is minimised, and the guards.
        region: Of these problems.
        start: Shape (n, domains), strictly inside the region, and the guards unless they are relaxed.
        which: Which of the model's problems these are, shape (n,).
        relaxed: Minimise the excess t of room_k ≥ −t instead of f.
        enough: Then a search ends where t is below −`enough`.
    """
    state = _State(model, region, start, which, relaxed)
    for _ in range(_STEPS):
        state.drop(enough)
        if not len(state.active):
            break
        state.step()
    state.keep(np.arange(len(state.active)))
    return state.found


class _State:
    """The problems still searched: r, u and t in one row x, rooms c and multipliers z in one row each.

    c is r − lower, upper − r, the guards', then u, u − (r − near) and radius − Σ u.
    """

    def __init__(self, model: Model, region: Region, start: Array, which: Index, relaxed: bool) -> None:
        count, domains = start.shape
        self.model, self.region, self.which, self.relaxed = model, region, which, relaxed
        self.domains, self.ball = domains, region.near is not None
        self.active = np.arange(count)
        self.free = region.free
        parts = [start]
        if region.near is not None and region.radius is not None:
            over = np.maximum(start - region.near, 0.0)
            parts.append(over + (region.radius - over.sum(-1))[:, None] / (2 * domains))
        self.at = model(start, which)
        guards = self.at.room.shape[1]
        self.on = np.isfinite(self.at.room)
        if relaxed:
            short = np.where(self.on, -self.at.room, -np.inf).max(-1)
            parts.append(np.maximum(1.1 * short, short + 1e-3)[:, None])
        self.x = np.concatenate(parts, -1)
        steep = np.where(self.free, np.abs(self.at.gradient), 0.0).max(-1)
        self.scale = np.where((steep > 0) & (not relaxed), 1 / np.where(steep > 0, steep, 1.0), 1.0)
        self.cost = np.zeros(self.x.shape[1])
        self.cost[-1] = float(relaxed)
        self.c = self._rooms(self.x, self.at, np.arange(count))
        self.live = self._live()
        self.z = np.where(self.live, _FIRST / domains / self.c, 0.0)
        self.common = np.zeros(count)
        self.stuck, self.length = np.zeros(count, bool), np.ones(count)
        self.residual = np.full(count, np.inf)
        self.found = Interior(
            start.copy(), np.zeros((count, guards)), np.zeros(count), np.zeros(count), np.full(count, -np.inf)
        )

    def _live(self) -> npt.NDArray[np.bool_]:
        more = self.c.shape[1] - 2 * self.domains - self.on.shape[1]
        return np.concatenate([self.free, self.free, self.on, np.ones((len(self.on), more), bool)], -1)

    def _rooms(self, x: Array, at: Measured, rows: Index) -> Array:
        d = self.domains
        r, region, free = x[:, :d], self.region, self.free[rows]
        room = np.where(self.on[rows], at.room + (x[:, -1:] if self.relaxed else 0.0), 1.0)
        parts = [np.where(free, r - region.lower[rows], 1.0), np.where(free, region.upper[rows] - r, 1.0), room]
        if region.near is not None and region.radius is not None:
            u = x[:, d : 2 * d]
            parts += [u, u - (r - region.near[rows]), (region.radius[rows] - u.sum(-1))[:, None]]
        return np.concatenate(parts, -1)

    def _down(self, dx: Array) -> Array:
        """Return J dx: how fast the rooms grow along a step."""
        d = self.domains
        dr = dx[:, :d]
        rows = -(self.at.slopes @ dr[..., None])[..., 0] + (dx[:, -1:] if self.relaxed else 0.0)
        parts = [dr, -dr, np.where(self.on, rows, 0.0)]
        if self.ball:
            du = dx[:, d : 2 * d]
            parts += [du, du - dr, -du.sum(-1, keepdims=True)]
        return np.where(self.live, np.concatenate(parts, -1), 0.0)

    def _up(self, v: Array) -> Array:
        """Return Jᵀ v."""
        d, guards = self.domains, self.on.shape[1]
        v = np.where(self.live, v, 0.0)
        row = v[:, 2 * d : 2 * d + guards]
        r = v[:, :d] - v[:, d : 2 * d] - (row[:, None] @ self.at.slopes)[:, 0]
        parts = []
        if self.ball:
            a, b, all_ = v[:, 2 * d + guards : -1 - d], v[:, -1 - d : -1], v[:, -1:]
            r = r - b
            parts = [a + b - all_]
        if self.relaxed:
            parts.append(row.sum(-1, keepdims=True))
        return np.concatenate([r, *parts], -1)

    def _gradient(self) -> Array:
        result = np.tile(self.cost, (len(self.x), 1))
        if not self.relaxed:
            result[:, : self.domains] += self.scale[:, None] * self.at.gradient
        return result

    def _system(self) -> tuple[Array, Array]:
        """Return the Newton system, in x and the multipliers of guards, distance and Σ r, with two right sides.

        The second one is what a unit of μ adds. Bounds are condensed into the diagonal. Guards are not: their slopes
        times z / c would bury directions in which nothing else bends.
        """
        d, guards, size = self.domains, self.on.shape[1], self.x.shape[1]
        rows = guards + self.ball
        ratio = np.where(self.live, self.z / self.c, 0.0)
        inverse = np.where(self.live, 1 / self.c, 0.0)
        z = self.z[:, 2 * d : 2 * d + guards]
        # z is of the scaled f.
        unit = self.scale[:, None]
        bend = self.at.bend(z, 0.0) if self.relaxed else unit[..., None] * self.at.bend(z / unit, 1.0)
        system = np.zeros((len(self.x), size + rows + 1, size + rows + 1))
        right = np.zeros((len(self.x), size + rows + 1, 2))
        own, each = np.arange(d), size + np.arange(guards)
        free = self.free
        system[:, :d, :d] = bend * (free[:, :, None] & free[:, None, :])
        system[:, own, own] += ratio[:, :d] + ratio[:, d : 2 * d] + ~free
        right[:, :size, 0] = -self._gradient()
        right[:, :d, 1] = inverse[:, :d] - inverse[:, d : 2 * d]
        slopes = self.at.slopes * (free[:, None, :] & self.on[..., None])
        system[:, size : size + guards, :d] = -slopes
        system[:, :d, size : size + guards] = np.swapaxes(slopes, 1, 2)
        system[:, each, each] = np.where(self.on, self.c[:, 2 * d : 2 * d + guards] / np.where(self.on, z, 1.0), 1.0)
        right[:, size : size + guards, 1] = np.where(self.on, 1 / np.where(self.on, z, 1.0), 0.0)
        if self.relaxed:
            system[:, each, size - 1] = self.on
            system[:, size - 1, each] = -1.0 * self.on
        if self.ball:
            a, b = slice(2 * d + guards, 3 * d + guards), slice(3 * d + guards, 4 * d + guards)
            last = size + guards
            system[:, own, own] += ratio[:, b] * free
            system[:, own, own + d] = system[:, own + d, own] = -ratio[:, b] * free
            system[:, own + d, own + d] += ratio[:, a] + ratio[:, b]
            right[:, :d, 1] -= inverse[:, b]
            right[:, d : 2 * d, 1] = inverse[:, a] + inverse[:, b]
            system[:, last, d : 2 * d], system[:, d : 2 * d, last] = -1.0, 1.0
            system[:, last, last] = self.c[:, -1] / self.z[:, -1]
            right[:, last, 1] = 1 / self.z[:, -1]
        right[:, :d] *= free[..., None]
        system[:, :d, -1] = system[:, -1, :d] = free
        system[:, -1, -1] = -_CORNER * (free.sum(-1) == 0)
        return system, right

    def step(self) -> None:
        """Take one step in every problem."""
        d, size, count = self.domains, self.x.shape[1], np.maximum(self.live.sum(-1), 1)
        guards = self.on.shape[1]
        gradient = self._gradient()
        solved = _solved(*self._system())
        affine = solved[:, :size, 0]
        mean = (self.z * self.c).sum(-1) / count
        change = self._down(affine)
        dual = np.where(self.live, -self.z - self.z * change / self.c, 0.0)
        ahead = [_most(self.c, change)[:, None], _most(self.z, dual)[:, None]]
        left = ((self.c + ahead[0] * change) * (self.z + ahead[1] * dual)).sum(-1) / count
        part = np.clip(left / np.maximum(mean, 1e-300), 0.0, 1.0) ** 3
        # A step that a guard's bend cut short has run ahead of the others: it goes back to the middle first.
        part = np.maximum(part, 1 - self.length)
        target = np.maximum(part * mean, _ARRIVED / 10)
        whole = solved[..., 0] + target[:, None] * solved[..., 1]
        dx = whole[:, :size]
        self.common = whole[:, -1]
        change = self._down(dx)
        dual = np.where(self.live, (target[:, None] - self.z * change) / self.c - self.z, 0.0)
        dual[:, 2 * d : 2 * d + guards] = np.where(
            self.on, whole[:, size : size + guards] - self.z[:, 2 * d : 2 * d + guards], 0.0
        )
        if self.ball:
            dual[:, -1] = whole[:, size + guards] - self.z[:, -1]
        self._shorten(dx, change, target, gradient)
        far = np.minimum((1 - _KEPT) * _most(self.z, dual), 1.0)
        far = np.where(self.length < _SHORT, np.minimum(self.length, far), far)
        self.z = self.z + far[:, None] * dual
        close = target[:, None] / self.c
        self.z = np.where(self.live, np.clip(self.z, close / _DUALS, close * _DUALS), 0.0)
        slope = self._gradient() - self._up(self.z)
        slope[:, : self.domains] = np.where(self.free, slope[:, : self.domains] + self.common[:, None], 0.0)
        self.residual = np.abs(slope).max(-1)

    def _shorten(self, dx: Array, change: Array, target: Array, gradient: Array) -> None:
        """Move along a step, halved until every room keeps a part of itself and the barrier function falls."""
        barrier = self._merit(self.x, self.at, self.c, np.arange(len(self.x)), target)
        fall = (gradient * dx).sum(-1) - target * np.where(self.live, change / self.c, 0.0).sum(-1)
        slack = _ROUNDING * (1 + np.abs(barrier)) * 10
        length = np.minimum((1 - _KEPT) * _most(self.c, change), 1.0)
        seeking = np.ones(len(self.x), bool)
        moved, at, rooms = self.x.copy(), self.at, self.c.copy()
        value, slope, room, slopes = (part.copy() for part in (at.value, at.gradient, at.room, at.slopes))
        pieces: list[tuple[Index, Index, Measured]] = []
        for _ in range(_HALVINGS):
            rows = np.flatnonzero(seeking)
            if not len(rows):
                break
            tried = self.x[rows] + length[rows, None] * dx[rows]
            found = self.model(tried[:, : self.domains], self.which[rows])
            c = self._rooms(tried, found, rows)
            inside = np.all(c >= _KEPT / 2 * self.c[rows], axis=-1)
            merit = self._merit(tried, found, np.where(inside[:, None], c, 1.0), rows, target[rows])
            good = inside & (merit <= barrier[rows] + _ARMIJO * length[rows] * fall[rows] + slack[rows])
            done, local = rows[good], np.flatnonzero(good)
            moved[done], rooms[done], seeking[done] = tried[good], c[good], False
            for whole, piece in zip(
                (value, slope, room, slopes), (found.value, found.gradient, found.room, found.slopes), strict=True
            ):
                whole[done] = piece[good]
            if len(done):
                pieces.append((done, local, found))
            length[seeking] /= 2
        stayed = np.flatnonzero(seeking)
        if len(stayed):
            pieces.append((stayed, stayed, at))
        self.x, self.c, self.stuck, self.length = moved, rooms, seeking, length
        self.at = Measured(value, slope, room, slopes, together(pieces, len(moved), self.domains))

    def _merit(self, x: Array, at: Measured, c: Array, rows: Index, target: Array) -> Array:
        objective = x @ self.cost + (0.0 if self.relaxed else self.scale[rows] * at.value)
        return np.asarray(objective - target * np.where(self.live[rows], np.log(c), 0.0).sum(-1))

    def drop(self, enough: float) -> None:
        """Keep what has arrived, and go on with the others."""
        gap = np.where(self.live, self.z * self.c, 0.0).max(-1)
        done = self.stuck | ((gap <= 4 * _ARRIVED) & (self.residual <= _STILL))
        if self.relaxed:
            done |= self.x[:, -1] < -enough
        if not done.any():
            return
        self.keep(np.flatnonzero(done))
        rest = np.flatnonzero(~done)
        at, bend = self.at, self.at.bend
        self.at = Measured(
            at.value[rest], at.gradient[rest], at.room[rest], at.slopes[rest], only(bend, rest, at.room.shape)
        )
        self.region = self.region.of(rest)
        for name in (
            "x",
            "c",
            "z",
            "scale",
            "common",
            "stuck",
            "length",
            "residual",
            "on",
            "free",
            "live",
            "which",
            "active",
        ):
            setattr(self, name, getattr(self, name)[rest])

    def keep(self, rows: Index) -> None:
        """Write down where problems are."""
        d, guards, to = self.domains, self.on.shape[1], self.active[rows]
        self.found.shares[to] = self.x[rows, :d]
        self.found.multipliers[to] = self.z[rows, 2 * d : 2 * d + guards] / self.scale[rows, None]
        self.found.common[to] = self.common[rows] / self.scale[rows]
        if self.ball:
            self.found.ball[to] = self.z[rows, -1] / self.scale[rows]
        if self.relaxed:
            self.found.excess[to] = self.x[rows, -1]


def _most(values: Array, change: Array) -> Array:
    """Return how long a step may be until a value is 0, shape (n,); at most 1 / (1 − kept)."""
    ratio = np.where(change < 0, -values / np.where(change < 0, change, -1.0), np.inf).min(-1)
    return np.asarray(np.minimum(ratio, 1 / (1 - _KEPT)))


def _solved(system: Array, right: Array) -> Array:
    try:
        return np.asarray(np.linalg.solve(system, right), np.float64)
    except np.linalg.LinAlgError:
        return np.stack([np.linalg.lstsq(one, two, rcond=None)[0] for one, two in zip(system, right, strict=True)])
