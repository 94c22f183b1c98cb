"""A target's last values of each run, in its own unit, by which mixtures are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind
from bimix_tracking.fitting.engine.grid import mixture_codes
from bimix_tracking.laws.protocol import Array
from bimix_tracking.selection.cross_validation import LAST, Validation


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class LastValues:
    """The last values of runs that got far enough to be compared.

    Args:
        value: In the target's own unit, shape (runs,).
        mixture: Number of each run's mixture, of that shape.
        shares: Their mixtures, shape (runs, domains).
        sampling: Variance of a value by its questions alone, own unit²; NaN where their number is unknown.
        questions: Mean number of questions; NaN where unknown.
    """

    value: Array
    mixture: npt.NDArray[np.intp]
    shares: Array
    sampling: float
    questions: float

    @cached_property
    def place(self) -> npt.NDArray[np.intp]:
        """Place of each run's mixture in `means`."""
        return np.unique(self.mixture, return_inverse=True)[1].reshape(-1)

    @cached_property
    def often(self) -> npt.NDArray[np.intp]:
        """How many runs each mixture has."""
        return np.bincount(self.place)

    @cached_property
    def means(self) -> pd.Series:
        """Mean value of each mixture, by its number."""
        return pd.Series(np.bincount(self.place, self.value) / self.often, index=np.unique(self.mixture))

    @cached_property
    def mixtures(self) -> Array:
        """Their proportions, shape (mixtures, domains)."""
        return self.shares[np.unique(self.mixture, return_index=True)[1]]

    @property
    def between(self) -> float:
        """Sum of squares between mixtures, own unit²: by chance alone σ² χ², of one degree less than mixtures."""
        return float((self.often * (self.means.to_numpy(float) - self.value.mean()) ** 2).sum())

    @property
    def within(self) -> float:
        """Sum of squares of repeats about their mixture's mean, own unit²."""
        return float(((self.value - self.means.to_numpy(float)[self.place]) ** 2).sum())

    @property
    def repeats(self) -> int:
        """Runs beyond the first of each mixture: degrees of freedom of `within`."""
        return len(self.value) - len(self.often)


def last_values(obs: Observations, target: str) -> LastValues:
    """Return a target's last values; runs that end well before the longest are left out.

    Args:
        obs: The sweep.
        target: One of its targets.
    """
    run, code = obs.codes
    tokens = obs.losses["tokens"].to_numpy(float)
    mine = np.flatnonzero(code == obs.targets.index(target))
    order = mine[np.lexsort((tokens[mine], run[mine]))]
    order = order[np.r_[run[order][1:] != run[order][:-1], True]]
    order = order[tokens[order] >= LAST * tokens[order].max()]
    value, shares = obs.measured[order], obs.mixtures.to_numpy(float)
    sampling = questions = math.nan
    described = obs.target(target)
    if described.kind is Kind.ACCURACY:
        asked = obs.losses["questions"].to_numpy(float)[order]
        asked = np.where(np.isfinite(asked), asked, described.questions or math.nan)
        if np.isfinite(asked).all():
            mean = float(np.clip(value.mean(), 0.5 / asked.sum(), 1 - 0.5 / asked.sum()))
            sampling, questions = mean * (1 - mean) * float((1 / asked).mean()), float(asked.mean())
    return LastValues(value, mixture_codes(shares)[run[order]], shares[run[order]], sampling, questions)


def held_out_last(obs: Observations, target: str, validation: Validation | None) -> tuple[Array, Array, float]:
    """Return observed and predicted working losses by held-out mixture, and a run's residual in the own unit.

    Args:
        obs: The sweep.
        target: One of its targets.
        validation: Held-out predictions; None: there are none.
    """
    nothing = np.empty(0)
    if validation is None or target not in validation.domains:
        return nothing, nothing, math.nan
    sums = replace(validation.only([target]), weights={target: 1.0}).last_sums()
    if sums.empty:
        return nothing, nothing, math.nan
    link = obs.link(target)
    off = link.value(sums["observed"].to_numpy(float)) - link.value(sums["predicted"].to_numpy(float))
    by_mixture = sums.groupby([validation.mixtures[str(run)] for run in sums.index]).mean()
    residual = float(np.sqrt(np.mean(np.square(off))))
    return by_mixture["observed"].to_numpy(float), by_mixture["predicted"].to_numpy(float), residual
