"""Runs of one model size and one schedule: whose losses have a level in common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import mixture_codes
from bimix_tracking.fitting.scale.applied import SAME_SCHEDULE, progress_of
from bimix_tracking.laws.protocol import Array

IN_LAW = 4
"""Fewer mixtures tell a level but little of what mixtures do."""
_SAME_PROGRESS = 1.02
"""Points of progress within this factor of one another are one knot."""


@dataclass(frozen=True, eq=False)  # tables have no one truth
class Group:
    """The runs of one size and one schedule.

    Args:
        size: Parameters.
        schedule: Tokens.
        observations: Of its runs.
    """

    size: float
    schedule: float
    observations: Observations

    @property
    def runs(self) -> tuple[str, ...]:
        """Their names."""
        return self.observations.runs

    @cached_property
    def mixtures(self) -> int:
        """How many different mixtures they have."""
        return int(mixture_codes(self.observations.mixtures.to_numpy(float)).max()) + 1

    @property
    def in_law(self) -> bool:
        """Whether a law is fitted to them."""
        return self.mixtures >= IN_LAW

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Their losses: columns `run`, `domain`, `progress` (of the run's own schedule) and `log_loss`."""
        losses = self.observations.losses
        return pd.DataFrame(
            {
                "run": losses["run"],
                "domain": losses["domain"],
                "progress": progress_of(self.observations, losses, self.schedule),
                "log_loss": np.log(losses["loss"].to_numpy(float)),
            }
        )

    @cached_property
    def reached(self) -> dict[str, float]:
        """The largest progress of each run."""
        return {str(run): float(end) for run, end in self.curves.groupby("run", sort=False)["progress"].max().items()}


def grouped(obs: Observations) -> list[Group]:
    """Return the runs by size and schedule, rising.

    A size whose runs all have their own schedules, none with mixtures enough, is one group by tokens.
    """
    found: list[Group] = []
    for size in obs.model_sizes:
        mine = [run for run in obs.runs if obs.sizes[run] == size]
        parts: list[list[str]] = []
        for run in sorted(mine, key=obs.schedule_of):
            if parts and obs.schedule_of(run) <= SAME_SCHEDULE * obs.schedule_of(parts[-1][0]):
                parts[-1].append(run)
            else:
                parts.append([run])
        groups = [Group(size, _schedule(obs, part), obs.only(part)) for part in parts]
        whole = Group(size, max(map(obs.schedule_of, mine)), obs.only(mine))
        found += groups if len(groups) == 1 or any(one.in_law for one in groups) or not whole.in_law else [whole]
    return found


def knots(progress: Array) -> Array:
    """Return the points of progress that are different, rising: of those that are one, the last."""
    each = np.unique(progress)
    last = np.r_[each[1:] > _SAME_PROGRESS * each[:-1], True]
    return np.asarray(each[last])


def _schedule(obs: Observations, runs: list[str]) -> float:
    return float(np.median([obs.schedule_of(run) for run in runs]))
