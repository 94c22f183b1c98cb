"""The law of one group of runs, fitted first: the levels of all others are told from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.groups import Group
from bimix_tracking.fitting.ensemble import fit_ensemble
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
                    one["log_loss"].to_numpy(float) - self._at(shares, one["progress"].to_numpy(float))[:, i],
                )
                for _, one in curves[curves["domain"] == target].groupby("run", sort=False)
            ]
            if above:
                law[:, i] += _OF_PAIR * np.mean(above, axis=0)
        return law, True

    def _at(self, shares: Array, progress: Array) -> Array:
        return self.log_losses(shares, progress)

    @cached_property
    def residual(self) -> dict[str, float]:
        """Standard deviation of a held-out run about the law at its end, by target, log loss."""
        held_out = self.fit.held_out
        if held_out is None or not held_out.runs:
            return {}
        shares, tokens = held_out.shares, held_out.tokens
        predicted = self.fit.losses(shares, tokens)
        found = {}
        for target in self.targets:
            error = np.array([one.error.get(target, np.nan) for one in held_out.runs]) / predicted[target].to_numpy()
            if np.isfinite(error).any():
                found[target] = float(np.sqrt(np.nanmean(error**2)))
        return found

    @cached_property
    def runs(self) -> int:
        """From how many runs `residual` is."""
        return 0 if self.fit.held_out is None else len(self.fit.held_out.runs)
