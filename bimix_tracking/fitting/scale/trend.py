"""Levels of sizes that no run has: extrapolated over three sizes or more, roughly, and held against the largest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tracking.laws.protocol import Array

FEWEST = 3
"""Two sizes give a line and nothing that it could be held against."""
EXPONENT = 0.15
"""γ of log L = c + a N^−γ: levels of three sizes don't identify it, and this is what large sweeps found."""
_STEEP = 2 * EXPONENT
"""As good a guess: where most of a loss is a floor, it flattens sooner. Three sizes that happen to lie on the one curve
make it no surer."""


@dataclass(frozen=True)
class LeftOut:
    """What the smaller sizes say of the largest one, which was left out.

    Args:
        size: The largest size.
        error: By target log observed − log extrapolated at the end of a run.
    """

    size: float
    error: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean absolute error over targets, log loss."""
        return float(np.mean(np.abs(list(self.error.values())))) if self.error else float("nan")


@dataclass(frozen=True)
class Trend:
    """Levels over sizes, δ_i(N) = c_i + a_i N^−γ through the sizes observed; 0 at the reference.

    Args:
        sizes: Those observed, rising.
        schedules: Tokens of each one's schedule.
        levels: By target δ at the end of a run of each.
        left_out: What the smaller ones say of the largest.
    """

    sizes: tuple[float, ...]
    schedules: tuple[float, ...]
    levels: Mapping[str, tuple[float, ...]]
    left_out: LeftOut

    @classmethod
    def of(
        cls, sizes: Sequence[float], schedules: Sequence[float], levels: Mapping[str, Sequence[float]]
    ) -> Trend | None:
        """Return the trend over sizes that are different; None of fewer than three."""
        order = np.argsort(sizes)
        if len(order) < FEWEST:
            return None
        size = np.asarray(sizes, float)[order]
        found = {target: np.asarray(level, float)[order] for target, level in levels.items()}
        known = {target: level for target, level in found.items() if np.isfinite(level).all()}
        error = {t: float(level[-1] - _extended(size[:-1], level[:-1], size[-1])) for t, level in known.items()}
        return cls(
            tuple(size.tolist()),
            tuple(np.asarray(schedules, float)[order].tolist()),
            {target: tuple(level.tolist()) for target, level in known.items()},
            LeftOut(float(size[-1]), error),
        )

    def at(self, target: str, size: float) -> float:
        """Return δ of a target at the end of a run of a larger model."""
        return _extended(np.array(self.sizes), np.array(self.levels[target]), size)

    def above(self, size: float) -> Trend:
        """Return the trend with its levels above that of a larger model: which becomes the reference."""
        levels = {t: tuple(one - self.at(t, size) for one in each) for t, each in self.levels.items()}
        return Trend(self.sizes, self.schedules, levels, self.left_out)

    def error(self, target: str, size: float) -> float:
        """Return its standard deviation: √(σ_left² + σ_γ²).

        σ_left is the error of the largest size left out, by how much further this one is; a target that the trend met
        by chance has at least the mean error of all. σ_γ is what a trend that flattens twice as fast says otherwise.
        """
        step = np.log(self.sizes[-1] / self.sizes[-2])
        further = max(float(np.log(size / self.sizes[-1]) / step), 0.0)
        left = further * max(abs(self.left_out.error[target]), self.left_out.mean)
        steeper = _extended(np.array(self.sizes), np.array(self.levels[target]), size, _STEEP)
        return float(np.hypot(left, steeper - self.at(target, size)))

    def schedule(self, size: float) -> float:
        """Return the schedule that the sizes' own lead to: a power of the size, tokens."""
        slope, constant = np.polyfit(np.log(self.sizes), np.log(self.schedules), 1)
        return float(np.exp(constant + slope * np.log(size)))

    def to_dict(self) -> dict[str, Any]:
        """Return the trend as JSON types; `from_dict` reads it back."""
        levels = {target: list(level) for target, level in self.levels.items()}
        return {"sizes": list(self.sizes), "schedules": list(self.schedules), "levels": levels}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Trend | None:
        """Read what `to_dict` wrote."""
        return cls.of(content["sizes"], content["schedules"], content["levels"])


def _extended(sizes: Array, levels: Array, size: float, exponent: float = EXPONENT) -> float:
    """Return the level at a size, by a line in N^−γ through the two largest sizes."""
    x, to = sizes[-2:] ** -exponent, size**-exponent
    slope = (levels[-1] - levels[-2]) / (x[1] - x[0])
    return float(levels[-1] + slope * (to - x[1]))
