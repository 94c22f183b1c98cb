"""Rank correlations of mixtures between two model sizes, and whether they are good enough to choose by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import chi2

from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import said
from bimix_tracking.quantities import MISSING, about, signed

LEAST_PAIRED = 4
"""Fewer mixtures have no rank correlation worth printing."""
ENOUGH_PAIRED = 10
"""With so many, a correlation of 0.97 is found to hold in 93 % of sweeps; with six in a third."""
_HOLDS, _FAILS = 0.8 - 1e-9, 0.5
"""Four mixtures of which two neighbours change places correlate by 0.8."""
BREAKS = 0.9


class Transfer(StrEnum):
    """Whether ranks of mixtures hold between model sizes."""

    HOLDS = "holds"
    """ρ̂ ≥ 0.8, and its interval is above 0.5."""
    DOUBTFUL = "doubtful"
    """ρ̂ < 0.8, and it doesn't fail."""
    FAILS = "fails"
    """ρ̂ < 0.5, and its interval is below 0.8."""
    UNKNOWN = "unknown"
    """Fewer than four mixtures were run at two sizes, or so few that ρ̂ ≥ 0.8 may be chance."""


@dataclass(frozen=True)
class Rank:
    """Spearman's correlation of last losses at two sizes.

    Args:
        correlation: ρ̂, not corrected for run noise; NaN where fewer than four mixtures have both losses.
        low: Lower end of its 90 % interval.
        high: Upper end.
        most: What run noise alone would leave of a perfect correlation, by repeats; 1 where these don't tell.
    """

    correlation: float
    low: float
    high: float
    most: float = 1.0

    @property
    def breaks(self) -> bool:
        """Whether the rank is broken: the interval is below 0.9 of what noise alone would leave.

        A target whose correlation is 0.9 is called broken in 5 % of sweeps, one of 0.97 in less than 1 %.
        """
        return self.high < BREAKS * self.most

    @property
    def interval(self) -> str:
        """The 90 % interval as it is printed."""
        if math.isnan(self.correlation):
            return MISSING
        return said("{low} to {high}", low=signed(self.low), high=signed(self.high))

    def to_dict(self) -> dict[str, float | bool | None]:
        """Return everything as JSON types."""
        known = math.isfinite(self.correlation)
        numbers = {name: getattr(self, name) if known else None for name in ("correlation", "low", "high")}
        return {**numbers, "noise_leaves": self.most, "breaks": self.breaks}


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class SizePair:
    """The mixtures that were run at two sizes.

    Args:
        small: Parameters of the smaller size.
        large: Of the larger.
        mixtures: How many were run at both, with all targets that count.
        mean: Rank correlation of the weighted mean of the targets.
        targets: Of each target.
        runs: The first run of each of the mixtures, at either size.
        sums: Weighted sums of the last losses, at either size.
        law: Where the mixtures of the sizes differ: whose predictions from the smaller size stand for its losses.
    """

    small: float
    large: float
    mixtures: int
    mean: Rank
    targets: Mapping[str, Rank]
    runs: tuple[tuple[str, str], ...] = ()
    sums: tuple[Array, Array] = (np.empty(0), np.empty(0))
    law: str = ""

    @property
    def breaking(self) -> tuple[str, ...]:
        """The targets whose rank breaks; of predicted losses it isn't judged."""
        return () if self.law else tuple(target for target, rank in self.targets.items() if rank.breaks)

    @property
    def verdict(self) -> Transfer:
        """Whether ranks hold between these two sizes."""
        rank = self.mean
        if math.isnan(rank.correlation):
            return Transfer.UNKNOWN
        if rank.correlation >= _HOLDS:
            return Transfer.HOLDS if rank.low >= _FAILS else Transfer.UNKNOWN
        if self.law:  # its errors alone may be why
            return Transfer.UNKNOWN
        return Transfer.FAILS if rank.correlation < _FAILS and rank.high < _HOLDS else Transfer.DOUBTFUL

    @cached_property
    def regret(self) -> float:
        """What the small size's best mixture loses at the large one against the best there: Σ w L, of these mixtures.

        Run noise is in it, so it is rather too large than too small. NaN below four mixtures.
        """
        one, other = self.sums
        return float(other[one.argmin()] - other.min()) if len(one) >= LEAST_PAIRED else math.nan

    @cached_property
    def gain(self) -> float:
        """What the best of these mixtures gains over their mean at the large size, Σ w L; NaN below four mixtures."""
        other = self.sums[1]
        return float(other.mean() - other.min()) if len(other) >= LEAST_PAIRED else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "small": self.small,
            "large": self.large,
            "mixtures": self.mixtures,
            "law": self.law or None,
            "verdict": str(self.verdict),
            "mean": self.mean.to_dict(),
            "targets": {target: rank.to_dict() for target, rank in self.targets.items()},
            "breaking": list(self.breaking),
            "regret": self.regret if math.isfinite(self.regret) else None,
            "gain": self.gain if math.isfinite(self.gain) else None,
            "runs": [
                {"small": small, "large": large, "sums": [float(one), float(other)]}
                for (small, large), one, other in zip(self.runs, *self.sums, strict=True)
            ],
        }


@dataclass(frozen=True)
class AnchorCheck:
    """What anchor runs say of ranks: how far their differences are from those that the other sizes' law predicts.

    Args:
        deviations: By anchor run Σ w L (log observed − log predicted), with the level of them all; at least two.
        spread: Standard deviation of Σ w L between mixtures.
    """

    deviations: Mapping[str, float]
    spread: float

    @property
    def error(self) -> float:
        """Mean absolute error of Σ w L of an anchor with the level of the others."""
        count = len(self.deviations)
        return float(np.abs(list(self.deviations.values())).mean()) * count / (count - 1)

    @property
    def doubtful(self) -> bool:
        """Whether anchors differ by more than a correlation of 0.8 with the predicted ones allows; 5 % false alarms.

        (k − 1) s² / χ²(0.95, k − 1) > (1 − 0.8²) spread², of k anchors whose deviations have the variance s².
        """
        each = np.array(list(self.deviations.values()))
        least = float(((each - each.mean()) ** 2).sum() / chi2.ppf(0.95, len(each) - 1))
        return least > (1 - _HOLDS**2) * self.spread**2

    def sentence(self) -> str:
        """Return by how much an anchor errs of what mixtures differ by."""
        return said(
            "Predicted with the level of the others, {count} anchor runs err by {share} of the standard deviation "
            "between mixtures.",
            count=len(self.deviations),
            share=about(self.error / self.spread),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        deviations = {run: float(value) for run, value in self.deviations.items()}
        return {"deviations": deviations, "error": self.error, "spread": self.spread, "doubtful": self.doubtful}
