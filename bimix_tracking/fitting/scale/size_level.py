"""A model size's level: how far its losses are from the law's, target by target, along a run; and what gave it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bimix_tracking.fitting.levels import Levels
from bimix_tracking.laws.protocol import Array


@dataclass(frozen=True)
class SizeLevel:
    """The level δ_i(N, p) of one model size relative to the reference size: log L_i(N) = log L_i(reference) + δ_i.

    Args:
        size: Parameters.
        schedule: Tokens of its runs' schedule.
        runs: Their names; none where the size was not observed.
        mixtures: How many different ones they have.
        in_law: Whether the law is fitted to them too; else they give the level only.
        levels: By target (progress, δ) along a run; no knots: 0.
        error: By target the standard deviation of δ at the end of a run that the curve's extension and the trend over
            sizes add to what a run's error makes of it, log loss.
        reached: The largest progress of its runs.
        exact: Whether the law was first fitted to this size, so that its level is the law's own.
    """

    size: float
    schedule: float
    runs: tuple[str, ...] = ()
    mixtures: int = 0
    in_law: bool = False
    levels: Mapping[str, Levels] = field(default_factory=dict)
    error: Mapping[str, float] = field(default_factory=dict)
    reached: float = 1.0
    exact: bool = False

    @property
    def observed(self) -> bool:
        """Whether there are runs of this size."""
        return bool(self.runs)

    def at(self, target: str, progress: float | Array) -> Array:
        """Return δ of a target at a progress: interpolated in log p, the first and last knot's beyond them."""
        levels = self.levels.get(target, ())
        if not levels:
            return np.zeros(np.shape(progress))
        knots, level = np.array(levels).T
        return np.asarray(np.interp(np.log(progress), np.log(knots), level))

    def at_end(self, target: str) -> float:
        """Return δ of a target at the end of a run."""
        return float(self.at(target, 1.0))

    def to_dict(self) -> dict[str, Any]:
        """Return the level as JSON types; `from_dict` reads it back."""
        return {
            **vars(self),
            "runs": list(self.runs),
            "levels": {target: [list(knot) for knot in knots] for target, knots in self.levels.items()},
            "error": dict(self.error),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SizeLevel:
        """Read what `to_dict` wrote."""
        levels = {target: tuple((at, level) for at, level in knots) for target, knots in content["levels"].items()}
        return cls(**dict(content) | {"runs": tuple(content["runs"]), "levels": levels})


@dataclass(frozen=True)
class Anchor:
    """A run at the reference size that tells its level.

    Args:
        run: Its name.
        mixture: Its proportions by domain.
        tokens: Of its last losses.
        progress: Part of its schedule that they are at.
        paired: Whether its mixture was also run at the size of the law.
        deviation: By target log observed − log predicted with the level of all anchors, at its end. What a slope of
            mixture effects takes of it is left in: the slope was fitted to it.
        far: Whether its mixture is far outside the sweep's: then it tells a level only where no other anchor does.
        others: How many other anchors gave the level: none of a lone one, whose deviation is 0 whatever it lost.
    """

    run: str
    mixture: Mapping[str, float]
    tokens: float
    progress: float
    paired: bool
    deviation: Mapping[str, float]
    far: bool = False
    others: int = 0

    @property
    def error(self) -> dict[str, float]:
        """By target log observed − log predicted where the level is that of the other anchors; NaN of a lone one.

        Its deviation times k / (k − 1) with k anchors, for its own part of their mean is in it.
        """
        if not self.others:
            return dict.fromkeys(self.deviation, float("nan"))
        return {target: value * (self.others + 1) / self.others for target, value in self.deviation.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the anchor as JSON types; `from_dict` reads it back."""
        return {**vars(self), "mixture": dict(self.mixture), "deviation": dict(self.deviation)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Anchor:
        """Read what `to_dict` wrote."""
        return cls(**content)
