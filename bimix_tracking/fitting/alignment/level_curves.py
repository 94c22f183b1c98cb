"""The level of one group of runs along their progress, as far as the runs go, and from there to their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking.fitting.alignment.base_law import BaseLaw
from bimix_tracking.fitting.alignment.groups import Group, knots
from bimix_tracking.fitting.levels import Levels
from bimix_tracking.laws.protocol import Array

COMPLETE = 0.95
"""A run that reached so much of its schedule has seen its end."""
_MANY = 5
"""Of so many runs the median is their level: one that went wrong doesn't move it."""
_TAIL = 0.5
"""The slope of a curve that ends early is taken from where it had this part of its last progress."""
_UNSURE, _LEAST = 0.5, 0.1
"""Standard deviation of an extension: half of it, or a tenth of what the law falls, whichever is larger."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class RunLevel:
    """How far a run's losses are above the law.

    Args:
        run: Its name.
        shares: Its mixture.
        progress: Where it was evaluated, rising, shape (points,).
        level: Log loss above the law, shape (points, targets); NaN where a target wasn't evaluated.
        law: The law's log losses, of that shape.
        paired: Whether its mixture was run in the law's group.
    """

    run: str
    shares: Array
    progress: Array
    level: Array
    law: Array
    paired: bool

    @property
    def complete(self) -> bool:
        """Whether it has seen its schedule's end."""
        return bool(self.progress[-1] >= COMPLETE)

    def at(self, where: Array) -> Array:
        """Return the level at other points, (points, targets): interpolated in log p, NaN beyond its own ends."""
        found = np.full((len(where), self.level.shape[1]), np.nan)
        for i, level in enumerate(self.level.T):
            known = np.isfinite(level)
            if known.any():
                at = np.log(self.progress[known])
                low, high = at[0] - 0.02, at[-1] + 0.02  # the last two checkpoints may be nearly one
                inside = (np.log(where) >= low) & (np.log(where) <= high)
                found[inside, i] = np.interp(np.log(where[inside]), at, level[known])
        return found


@dataclass(frozen=True, eq=False)
class LevelCurve:
    """The level of a group along its runs.

    Args:
        targets: Names.
        knots: Progress, shape (knots,).
        level: δ, shape (knots, targets).
        extended: Standard deviation of δ at the end that an extension adds, shape (targets,).
        slope: By which the curves were extended; None: one of them reached the end.
        deviation: By run how far it is from δ at its own end, shape (targets,).
    """

    targets: tuple[str, ...]
    knots: Array
    level: Array
    extended: Array
    slope: float | None
    deviation: Mapping[str, Array]

    def levels(self) -> dict[str, Levels]:
        """Return δ by target as knots; the part that is known."""
        found: dict[str, Levels] = {}
        for i, target in enumerate(self.targets):
            known = np.isfinite(self.level[:, i])
            found[target] = tuple(zip(self.knots[known].tolist(), self.level[known, i].tolist(), strict=True))
        return found


def run_levels(group: Group, base: BaseLaw, *, beside_pairs: bool = True) -> list[RunLevel]:
    """Return how far each run of a group is above the law.

    Args:
        group: The runs.
        base: The law.
        beside_pairs: Whether what the law's own run of a mixture is off is half expected of another one, too; not where
            the group's runs are the law's.
    """
    found = []
    shares = group.observations.mixtures.to_numpy(float)
    curves = group.curves
    for run, row in zip(group.runs, shares, strict=True):
        mine = curves[curves["run"] == run]
        table = mine.pivot_table(index="progress", columns="domain", values="log_loss").sort_index()
        observed = table.reindex(columns=list(base.targets)).to_numpy(float)
        progress = table.index.to_numpy(float)
        law = base.log_losses(row, progress)
        expected, paired = base.expected(row, progress) if beside_pairs else (law, False)
        found.append(RunLevel(run, row, progress, observed - expected, law, paired))
    return found


def level_curve(runs: Sequence[RunLevel], base: BaseLaw, where: Array) -> LevelCurve:
    """Return the level that runs have in common along their progress, to its end.

    At each knot the mean over the runs that reach the end (the median of five or more), and each other run moves it by
    its own distance from it, where it is. Where none reaches the end, the longest are taken as far as they go, and from
    there δ follows the law's own fall, times a slope b that is fitted to the second half of their curves, one for all
    targets: a larger model falls further, and in all of them alike.

        δ_i(p) = δ_i(p_end) + b (log L_i(p) − log L_i(p_end))

    Args:
        runs: Of one group.
        base: The law.
        where: Knots beyond the runs' own.
    """
    end = max(one.progress[-1] for one in runs)
    long = [one for one in runs if one.complete] or [one for one in runs if one.progress[-1] >= COMPLETE * end]
    at = knots(np.concatenate([one.progress for one in long]))
    each = np.stack([one.at(at) for one in long])
    known = np.isfinite(each)
    often = known.sum(0)
    middle = np.full(often.shape, np.nan)
    some = often > 0
    if len(long) >= _MANY:
        middle[some] = np.nanmedian(each[:, some], axis=0)
    else:
        middle[some] = np.nanmean(each[:, some], axis=0)
    moved = []
    for one in runs:
        away = one.level - _interpolated(at, middle, one.progress)
        moved.append(_last(away) if one not in long else np.zeros(middle.shape[1]))
    short = [one for one in runs if one not in long]
    if short:
        shift = np.stack(moved)
        counted = np.isfinite(shift)
        middle += np.where(counted, shift, 0.0).sum(0) / np.maximum(counted.sum(0), 1)
    slope, extended = None, np.zeros(middle.shape[1])
    if end < COMPLETE:
        slope = _slope(long)
        further = np.unique(np.r_[where[where > end], 1.0])
        law = np.mean([base.log_losses(one.shares, np.r_[at[-1], further]) for one in long], axis=0)
        fall = law[1:] - law[0]
        last = np.array([_last(column[:, None])[0] for column in middle.T])
        at, middle = np.r_[at, further], np.concatenate([middle, last + slope * fall])
        extended = np.maximum(_UNSURE * np.abs(slope * fall[-1]), _LEAST * np.abs(fall[-1]))
    deviation = {one.run: _last(one.level - _interpolated(at, middle, one.progress)) for one in runs}
    return LevelCurve(base.targets, at, middle, extended, slope, deviation)


def _slope(runs: Sequence[RunLevel]) -> float:
    """Return Σ l̃ δ̃ / Σ l̃² over runs and targets, l̃ and δ̃ the law's log losses and the levels less their means."""
    product, square = 0.0, 0.0
    for one in runs:
        tail = one.progress >= _TAIL * one.progress[-1]
        level, law = one.level[tail], one.law[tail]
        whole = np.isfinite(level).all(0)
        if tail.sum() < 2:
            continue
        law, level = law[:, whole], level[:, whole]
        law, level = law - law.mean(0), level - level.mean(0)
        product, square = product + float((law * level).sum()), square + float((law**2).sum())
    return product / square if square > 0 else 0.0


def _interpolated(at: Array, values: Array, where: Array) -> Array:
    """Return a curve's values, (knots, targets), at other points, in log p; the ends' beyond them."""
    found = np.full((len(where), values.shape[1]), np.nan)
    for i, column in enumerate(values.T):
        known = np.isfinite(column)
        if known.any():
            found[:, i] = np.interp(np.log(where), np.log(at[known]), column[known])
    return found


def _last(values: Array) -> Array:
    """Return the last value of each column that is known; NaN where none is."""
    found = np.full(values.shape[1], np.nan)
    for i, column in enumerate(values.T):
        known = np.flatnonzero(np.isfinite(column))
        if len(known):
            found[i] = column[known[-1]]
    return found
