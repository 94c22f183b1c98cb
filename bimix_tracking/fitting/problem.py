"""What a fit is made to: the losses of a sweep as one array, every target at every (run, checkpoint).

Which points count is decided here, and said in the notes: shares of (nearly) 0, the warm-up, a last checkpoint that
is the one before it once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.pooling import Note
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.laws.protocol import Array, Index, Inputs, Law
from bimix_tracking.messages import said

SAME_CHECKPOINT = 0.005
"""Checkpoints of one run nearer than this in log tokens are one point: its loss would count twice."""


@dataclass(frozen=True)
class Points:
    """Losses on a grid; a cell that wasn't measured, or doesn't count, has weight 0.

    Args:
        targets: Names of the target domains.
        own: Column of each target in the shares, −1 where it is no domain of the mixtures, shape (targets,).
        inputs: Shares of each run, and where each of the points is.
        log_loss: Shape (targets, points).
        weight: In proportion to the evaluation tokens where these are known, mean 1, shape (targets, points).
        scale: s₀, the geometric mean of the data volumes.
    """

    targets: tuple[str, ...]
    own: Index
    inputs: Inputs
    log_loss: Array
    weight: Array
    scale: float

    @property
    def run(self) -> Index:
        """Position of each point's run in `Observations.runs`."""
        return self.inputs.mixture

    @property
    def log_u(self) -> Array:
        """log(s / s₀) of each point."""
        return self.inputs.log_u[self.inputs.volume]

    @property
    def shares(self) -> Array:
        """Own proportion of each target at each point, shape (targets, points); NaN for a target outside."""
        own = self.inputs.shares.T[self.own][:, self.run]
        return np.where(self.own[:, None] < 0, np.nan, own)

    def per_run(self) -> Array:
        """Return the mean summed weight of a run that counts at all, shape (targets,)."""
        sums = np.stack([np.bincount(self.run, w, len(self.inputs.shares)) for w in self.weight])
        return np.asarray(sums.sum(-1) / np.maximum((sums > 0).sum(-1), 1))


def mixture_codes(shares: Array) -> Index:
    """Number the distinct rows of shares, (runs, domains), and return each run's."""
    return np.asarray(np.unique(np.round(shares, 6), axis=0, return_inverse=True)[1]).reshape(-1)


def points_of(obs: Observations, law: Law, options: FitOptions, *, notes: list[Note] | None = None) -> Points:
    """Return what a law is fitted to, and add to `notes` what was excluded or adjusted for it.

    Args:
        obs: The sweep.
        law: Decides which targets it can have, and whether a share of 0 is a problem.
        options: Proportion floor and warm-up.
        notes: Added to; None: nobody reads them.
    """
    notes = [] if notes is None else notes
    targets = [target for target in obs.targets if target in obs.domains or not law.needs_own]
    notes += [
        Note(said("set aside"), said("{law} only has losses of domains of the mixture", law=law.name), 1, domain=target)
        for target in obs.targets
        if target not in targets
    ]
    table = obs.losses
    scale = float(np.exp(np.log(obs.losses["tokens"].to_numpy(float)).mean()))
    run, code = obs.codes
    volumes, volume = np.unique(table["tokens"].to_numpy(float), return_inverse=True)
    cell, point = np.unique(run * len(volumes) + volume.reshape(-1), return_inverse=True)
    # One grid for every law, whichever targets it can have: predictions of several laws are then compared by place.
    place = np.array([targets.index(t) if t in targets else -1 for t in obs.targets], np.intp)[code]
    kept = place >= 0
    table = table[kept]
    at = (place[kept], point.reshape(-1)[kept])
    log_loss, weight = np.zeros((2, len(targets), len(cell)))
    log_loss[at] = np.log(table["loss"].to_numpy(float))
    tokens = table["eval_tokens"].to_numpy(float)
    counted = np.full((len(targets), len(cell)), np.nan)
    counted[at] = np.where(np.isfinite(tokens) & (tokens > 0), tokens, -1.0)
    for i in range(len(targets)):
        measured = ~np.isnan(counted[i])
        known = measured.any() and (counted[i][measured] > 0).all()
        weight[i, measured] = counted[i][measured] / counted[i][measured].mean() if known else 1.0
    inputs = Inputs(
        shares=obs.mixtures.to_numpy(float),
        mixture=cell // len(volumes),
        log_u=np.log(volumes / scale),
        volume=cell % len(volumes),
        zero_share=options.floor,
    )
    own = np.array([obs.domains.index(t) if t in obs.domains else -1 for t in targets], np.intp)
    points = Points(tuple(targets), own, inputs, log_loss, weight, scale)
    if law.infinite_at_zero:
        _near_zero(points, options.floor if options.clamped else None, notes)
    _warm_up(points, options.warmup_end, notes)
    _repeated_checkpoints(points, obs.runs, notes)
    return points


def _near_zero(points: Points, zero_share: float | None, notes: list[Note]) -> None:
    low = (points.shares < points.inputs.zero_share) & (points.weight > 0)
    for i, target in enumerate(points.targets):
        runs = len(np.unique(points.run[low[i]]))
        if runs and zero_share is None:
            notes.append(
                Note(said("set aside"), said("runs with a proportion of (nearly) 0 of the domain"), runs, domain=target)
            )
            points.weight[i, low[i]] = 0.0
        elif runs:
            text = said("proportions below {least:g} counted as {least:g}, where the law is finite", least=zero_share)
            notes.append(Note(said("adjusted"), text, runs, domain=target))


def _warm_up(points: Points, warmup: float, notes: list[Note]) -> None:
    early = points.log_u <= np.log(max(warmup, 1e-300) / points.scale) + 1e-9
    hit = early[None, :] & (points.weight > 0)
    if hit.any():
        text = said(
            "losses at up to {warmup:.4g} tokens, still in the warm-up: no power law holds there yet", warmup=warmup
        )
        notes.append(Note(said("set aside"), text, int(hit.any(0).sum())))
        points.weight[hit] = 0.0


def _repeated_checkpoints(points: Points, runs: Sequence[str], notes: list[Note]) -> None:
    # Points are in the order of runs, and within a run of tokens.
    log_u = points.log_u
    near = np.zeros(len(log_u), bool)
    near[:-1] = (np.diff(log_u) < SAME_CHECKPOINT) & (np.diff(points.run) == 0)
    hit = near[None, :] & (points.weight > 0)
    # Only where the later one is there to stand for both.
    hit[:, :-1] &= points.weight[:, 1:] > 0
    if hit.any():
        count = len(np.unique(points.run[hit.any(0)]))
        text = said(
            "checkpoints within {near:.1%} of the next one's tokens, in {count} of {runs} runs",
            near=SAME_CHECKPOINT,
            count=count,
            runs=len(runs),
        )
        notes.append(Note(said("set aside"), text, int(hit.any(0).sum())))
        points.weight[hit] = 0.0
