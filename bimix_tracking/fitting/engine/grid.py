"""A sweep as arrays, built once: the losses of every target on a grid of runs × data volumes."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bimix_tracking.data.observations import Observations
from bimix_tracking.laws.protocol import Array, Index, Inputs

_SHARED = 2.0
"""Runs share a row of volumes while that has at most so many times the cells of rows of their own: it costs less."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Grid:
    """Losses on a grid; a cell that wasn't measured, or doesn't count, has weight 0.

    Args:
        targets: Names of the targets.
        own: Column of each target in the shares, −1 where it is no domain of the mixtures, shape (targets,).
        shares: Mixture of each run, shape (runs, domains).
        log_u: log(s / s₀): one row (1, volumes) where the runs share their volumes, else a row a run,
            (runs, volumes), filled up with its last one.
        log_loss: Shape (targets, runs, volumes); 0 where nothing was measured.
        weight: In proportion to the evaluation tokens, or an accuracy's precision, where known; mean 1; of that shape.
        scale: s₀, the geometric mean of the data volumes.
    """

    targets: tuple[str, ...]
    own: Index
    shares: Array
    log_u: Array
    log_loss: Array
    weight: Array
    scale: float

    @cached_property
    def cells(self) -> tuple[Index, Index]:
        """Run and volume of each cell where any target was measured, in the order of runs and of tokens."""
        run, volume = np.nonzero((self.log_loss != 0).any(0) | (self.weight > 0).any(0))
        return run, volume

    @property
    def run(self) -> Index:
        """Run of each cell."""
        return self.cells[0]

    @cached_property
    def at_u(self) -> Array:
        """log(s / s₀) of each cell."""
        run, volume = self.cells
        return np.asarray(self.log_u[run if len(self.log_u) > 1 else 0, volume])

    def at(self, values: Array) -> Array:
        """Return what stands in the cells, shape (…, cells), of an array (…, runs, volumes)."""
        return np.asarray(values[..., self.cells[0], self.cells[1]])

    def only(self, targets: Index) -> Grid:
        """Return the grid of some of the targets, by place."""
        return replace(
            self,
            targets=tuple(self.targets[i] for i in targets),
            own=self.own[targets],
            log_loss=self.log_loss[targets],
            weight=self.weight[targets],
        )

    def points(self) -> Grid:
        """Return the same losses with one volume a mixture: a row of shares for each run and volume."""
        runs, volumes = self.log_loss.shape[1:]
        return replace(
            self,
            shares=np.repeat(self.shares, volumes, axis=0),
            log_u=np.broadcast_to(self.log_u, (runs, volumes)).reshape(-1, 1),
            log_loss=self.log_loss.reshape(len(self.targets), -1, 1),
            weight=self.weight.reshape(len(self.targets), -1, 1),
        )

    def inputs(self, floor: float) -> Inputs:
        """Return where a law is evaluated."""
        return Inputs(self.shares, self.log_u, floor)

    def per_run(self) -> Array:
        """Return the mean summed weight of a run that counts at all, shape (targets,)."""
        sums = self.weight.sum(-1)
        return np.asarray(sums.sum(-1) / np.maximum((sums > 0).sum(-1), 1))


_known: weakref.WeakKeyDictionary[Observations, Grid] = weakref.WeakKeyDictionary()


def grid_of(obs: Observations) -> Grid:
    """Return the grid of a sweep with all its targets; the same one whenever the same observations are asked for."""
    found = _known.get(obs)
    if found is None:
        found = _known[obs] = _built(obs)
    return found


def _built(obs: Observations) -> Grid:
    table = obs.losses
    tokens = table["tokens"].to_numpy(float)
    scale = float(np.exp(np.log(tokens).mean()))
    run, target = obs.codes
    volumes, volume = np.unique(tokens, return_inverse=True)
    volume = volume.reshape(-1)
    present: npt.NDArray[np.bool_] = np.zeros((len(obs.runs), len(volumes)), bool)
    if present.size <= _SHARED * len(np.unique(run * len(volumes) + volume)) + len(volumes):
        place, log_u = volume, np.log(volumes / scale)[None]
    else:
        place, log_u = _own_rows(run, tokens, len(obs.runs), scale)
    shape = (len(obs.targets), len(obs.runs), log_u.shape[1])
    log_loss, weight = np.zeros(shape), np.zeros(shape)
    log_loss[target, run, place] = np.log(table["loss"].to_numpy(float))
    judged = table["eval_tokens"].to_numpy(float)
    precision = table["precision"].to_numpy(float) if "precision" in table else np.full(len(table), np.nan)
    judged = np.where(np.isfinite(precision), precision, judged)
    for i in range(len(obs.targets)):
        mine = target == i
        counted = judged[mine]
        known = len(counted) > 0 and np.isfinite(counted).all() and (counted > 0).all()
        weight[i, run[mine], place[mine]] = counted / counted.mean() if known else 1.0
    own = np.array([obs.domains.index(t) if t in obs.domains else -1 for t in obs.targets], np.intp)
    return Grid(obs.targets, own, obs.mixtures.to_numpy(float), log_u, log_loss, weight, scale)


def _own_rows(run: Index, tokens: Array, runs: int, scale: float) -> tuple[Index, Array]:
    """Return each loss's place in its run's own row of volumes, and these rows, log(s / s₀)."""
    pairs, pair = np.unique(np.stack([run.astype(float), tokens]), axis=1, return_inverse=True)
    of = pairs[0].astype(np.intp)
    first = np.searchsorted(of, np.arange(runs))
    number = np.arange(len(of)) - first[of]
    rows = np.full((runs, int(number.max()) + 1), np.nan)
    rows[of, number] = np.log(pairs[1] / scale)
    last = np.fmax.accumulate(np.where(np.isnan(rows), -np.inf, rows), axis=1)  # tokens grow along a row
    return number[pair.reshape(-1)], np.where(np.isfinite(last), last, 0.0)


def mixture_codes(shares: Array) -> Index:
    """Number the distinct rows of shares, (runs, domains), and return each run's."""
    return np.asarray(np.unique(np.round(shares, 6), axis=0, return_inverse=True)[1]).reshape(-1)


def near_codes(values: Array) -> Index:
    """Number values so that those that differ by rounding only have one number."""
    order = np.argsort(values)
    codes = np.empty(len(values), np.intp)
    codes[order] = np.r_[0, np.cumsum(np.diff(values[order]) > 1e-6)][: len(values)]
    return codes


def volume_codes(log_u: Array, within: float) -> Index:
    """Number data volumes so that those within a factor of the first of them have one number.

    Args:
        log_u: log s of each.
        within: The factor, above 1.
    """
    order = np.argsort(log_u)
    ordered = log_u[order]
    firsts, place = [], 0
    while place < len(ordered):  # a step a number, not a volume: runs may have thousands of their own
        firsts.append(place)
        place = int(np.searchsorted(ordered, ordered[place] + np.log(within), "right"))
    codes = np.empty(len(log_u), np.intp)
    codes[order] = np.searchsorted(firsts, np.arange(len(ordered)), "right") - 1
    return codes
