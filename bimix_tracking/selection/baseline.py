"""The baseline for a held-out mixture, with no law: the mean of the other runs."""

from __future__ import annotations

import numpy as np

from bimix_tracking.fitting.engine.grid import Grid
from bimix_tracking.laws.protocol import Array, Index

_VOLUMES = 256
"""Runs with more checkpoints of their own than this are averaged at so many volumes."""


def mean_of_others(grid: Grid, fold: Index) -> Array:
    """Return the mean log loss, at the same data volume, of the runs of other folds, shape (targets, runs, volumes).

    Between a run's own checkpoints its losses are interpolated in log s.

    Args:
        grid: The sweep; losses without a weight don't count.
        fold: Of each run.
    """
    counts = grid.weight > 0
    at = np.broadcast_to(grid.log_u, counts.shape[1:])
    shared = len(grid.log_u) == 1
    volumes = grid.log_u[0] if shared else np.unique(grid.at_u)
    if len(volumes) > _VOLUMES and not shared:
        volumes = np.linspace(volumes[0], volumes[-1], _VOLUMES)
    curves = np.zeros((*counts.shape[:2], len(volumes)))
    whole = counts.all(-1) & shared
    if shared:
        curves[whole] = grid.log_loss[whole]
    for i, run in zip(*np.nonzero(~whole & counts.any(-1)), strict=True):
        mine = counts[i, run]
        curves[i, run] = np.interp(volumes, at[run, mine], grid.log_loss[i, run, mine])
    of = np.eye(int(fold.max()) + 1)[fold]
    present = counts.any(-1).astype(float)
    others = curves.sum(1)[:, None] - np.einsum("rf,trv->tfv", of, curves)
    others /= np.maximum(present.sum(1)[:, None] - present @ of, 1)[..., None]
    each = others[:, fold]
    if shared:
        return np.asarray(each)
    place = np.clip(np.searchsorted(volumes, at) - 1, 0, max(len(volumes) - 2, 0))
    upper = np.minimum(place + 1, len(volumes) - 1)
    gap = volumes[upper] - volumes[place]
    part = np.clip(np.divide(at - volumes[place], gap, out=np.zeros(at.shape), where=gap > 0), 0, 1)
    low, high = (np.take_along_axis(each, np.broadcast_to(p, counts.shape), -1) for p in (place, upper))
    return np.asarray(low + part * (high - low))
