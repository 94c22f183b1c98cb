"""Runs of several model sizes, brought to the level and the axis of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.levels import raised
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.laws.protocol import Array

SAME_SCHEDULE = 1.1
"""Schedules within this factor of one another are one."""


def progress_of(obs: Observations, losses: pd.DataFrame, schedule: float) -> Array:
    """Return the progress of some losses: tokens by their run's own schedule, where it is about the group's.

    Args:
        obs: The sweep.
        losses: Rows of its losses, of runs of one group.
        schedule: That of the group, tokens.
    """
    own = {run: obs.schedule_of(run) for run in losses["run"].unique().tolist()}
    used = {run: s if max(s / schedule, schedule / s) <= SAME_SCHEDULE else schedule for run, s in own.items()}
    return np.asarray(losses["tokens"].to_numpy(float) / losses["run"].map(used).to_numpy(float))


def _rounded(tokens: Array) -> Array:
    """Return data volumes without what divisions added: the same progress of two sizes is one volume."""
    return np.array([float(f"{volume:.10g}") for volume in tokens.tolist()])


def aligned_by(obs: Observations, bridge: Bridge | None) -> Observations:
    """Return the runs that a law is fitted to as if all were of the reference size; those of one size as they are.

        log L_i ← log L_i − δ_i(N, p),   s ← p S_N₀,   log L_i ← log L_i + b_i (log L_i − c_i(p))

    Args:
        obs: Runs of several sizes; aligned ones stay as they are.
        bridge: Levels of their sizes; None: there are none.
    """
    if bridge is None or not obs.several_sizes:
        return obs
    schedule = bridge.of_reference.schedule
    parts = []
    for level in (one for one in bridge.sizes if one.in_law):
        mine = obs.losses[obs.losses["run"].isin(level.runs)]
        progress = progress_of(obs, mine, level.schedule)
        loss = mine["loss"].to_numpy(float).copy()
        value = mine["value"].to_numpy(float).copy()
        for target in mine["domain"].unique().tolist():
            rows = (mine["domain"] == target).to_numpy()
            loss[rows] *= np.exp(-level.at(target, progress[rows]))
            if level.size != bridge.reference and bridge.stretch.get(target):
                centre = np.exp(raised(bridge.centre[target], progress[rows]))
                loss[rows] *= (loss[rows] / centre) ** bridge.stretch[target]
            value[rows] = obs.link(target).value(loss[rows])
        parts.append(mine.assign(tokens=_rounded(progress * schedule), loss=loss, value=value))
    runs = [run for run in obs.runs if any(run in one.runs for one in bridge.sizes if one.in_law)]
    order = {run: place for place, run in enumerate(runs)}
    losses = pd.concat(parts)
    losses = losses.assign(_order=losses["run"].map(order)).sort_values(["_order", "tokens"], kind="stable")
    losses = losses.drop(columns="_order").reset_index(drop=True)
    return replace(
        obs,
        mixtures=obs.mixtures.loc[runs],
        losses=losses,
        sizes={run: obs.sizes[run] for run in runs},
        schedules=dict.fromkeys(runs, schedule),
        reference=bridge.reference,
    )
