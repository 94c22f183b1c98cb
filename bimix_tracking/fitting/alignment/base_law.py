"""The law of one group of runs, fitted first: the levels of all others are told from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.groups import Group
from bimix_tracking.fitting.ensemble import fit_ensemble
from bimix_tracking.fitting.later import last_residuals
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import USUAL
from bimix_tracking.fitting.single_law import fit_single
from bimix_tracking.fitting.warmup import settled
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import ENSEMBLE

_SAME = 1e-3
"""Mixtures whose proportions differ by no more are one: a run of the group tells what the law's form misses there."""
_OF_PAIR = 0.5
"""Part of a small run's residual that a large one of its mixture is taken to share: the law's form error is shared, the
run's noise is not, and about as large."""


@dataclass(frozen=True, eq=False)
class BaseLaw:
    """The law of the group with the most mixtures.

    Args:
        group: The runs.
        fit: Their law.
    """

    group: Group
    fit: LawFit

    @classmethod
    def of(cls, group: Group, law: str = ENSEMBLE) -> BaseLaw:
        """Fit the law: the ensemble of all laws, or a single one where no mixture can be held out."""
        obs = group.observations
        options = settled(obs, USUAL)
        if law == ENSEMBLE:
            try:
                return cls(group, fit_ensemble(obs, options=options))
            except ObservationsError:  # too few mixtures to hold one out
                law = "transfer"
        return cls(group, fit_single(obs, law, options))

    @property
    def targets(self) -> tuple[str, ...]:
        """What the law predicts."""
        return tuple(self.fit.targets)

    def log_losses(self, shares: Array, progress: Array) -> Array:
        """Return the law's log losses of one mixture, shape (points, targets)."""
        return np.asarray(np.log(self.fit.losses(shares[None], progress * self.group.schedule).to_numpy(float)))

    def expected(self, shares: Array, progress: Array) -> tuple[Array, bool]:
        """Return what a run of a mixture is compared with, and whether the mixture was run in this group.

        log L of the law, and half of what such a run's own losses are above it.

        Args:
            shares: The mixture, shape (domains,).
            progress: Shape (points,).

        Returns:
            Shape (points, targets).
        """
        law = self.log_losses(shares, progress)
        obs = self.group.observations
        same = np.abs(obs.mixtures.to_numpy(float) - shares).max(1) <= _SAME
        runs = set(np.array(obs.runs, object)[same])
        if not runs:
            return law, False
        curves = self.group.curves[self.group.curves["run"].isin(runs)]
        for i, target in enumerate(self.targets):
            above = [
                np.interp(
                    np.log(progress),
                    np.log(one["progress"].to_numpy(float)),
                    one["log_loss"].to_numpy(float) - self.log_losses(shares, one["progress"].to_numpy(float))[:, i],
                )
                for _, one in curves[curves["domain"] == target].groupby("run", sort=False)
            ]
            if above:
                law[:, i] += _OF_PAIR * np.mean(above, axis=0)
        return law, True

    @cached_property
    def residual(self) -> dict[str, float]:
        """Standard deviation of a run about the law at its end, by target, log loss: held out where that was done."""
        held_out = self.fit.held_out
        obs = self.group.observations
        if held_out is not None and held_out.runs:
            error = pd.DataFrame([dict(one.error) for one in held_out.runs])
            predicted = self.fit.losses(held_out.shares, held_out.tokens)
            wider = 1.0
        else:
            error = last_residuals(obs, self.fit).reset_index(drop=True)
            last = np.array([obs.last_tokens[run] for run in obs.runs])
            predicted = self.fit.losses(obs.mixtures.to_numpy(float), last)
            wider = float(np.sqrt(len(last) / max(len(last) - 2, 1)))
        found = {}
        for target in self.targets:
            relative = (error[target] / predicted[target]).to_numpy(float) if target in error else np.array([np.nan])
            if np.isfinite(relative).any():
                found[target] = wider * float(np.sqrt(np.nanmean(relative**2)))
        return found

    @property
    def runs(self) -> int:
        """From how many runs `residual` is."""
        return len(self.group.runs) if self.fit.held_out is None else len(self.fit.held_out.runs)
