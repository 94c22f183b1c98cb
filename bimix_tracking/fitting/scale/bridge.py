"""The scale bridge: mixture effects are shared between model sizes, levels are not.

    log L_i(r, s, N) = log L_i(r, u, N₀) + δ_i(N, p),   p = s / S_N,   u = p S_N₀

N₀ is the reference size, whose losses the law has; S_N the length of the schedule at size N, p the progress. Runs line
up by progress: where the learning rate is in its schedule makes a loss, more than how many tokens it has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bimix_tracking.data.model_sizes import checked_size, nearest
from bimix_tracking.fitting.levels import Levels
from bimix_tracking.fitting.scale.size_level import Anchor, SizeLevel
from bimix_tracking.fitting.scale.trend import LeftOut, Trend
from bimix_tracking.laws.protocol import Array
from bimix_tracking.quantities import parameters

PRIOR = 4.0
"""The error of a run about the law counts as much as so many anchors' spread: one or two anchors tell little of it."""


@dataclass(frozen=True)
class Bridge:
    """What losses at several model sizes have to do with each other.

    Args:
        reference: N₀, the model size whose losses and tokens the law has.
        sizes: Levels by size, rising; one of them is the reference's.
        asked: The size that was asked for; None: none was.
        known: Whether the level at that size is known, at least roughly; else all figures are those of the reference.
        rough: Whether the reference's level is extrapolated from smaller sizes.
        anchors: Runs that gave the reference's level; none where the law was fitted to that size first.
        slope: How much further the reference falls for each nat of log loss that the law falls, where anchors end
            early and their curves were extended by it; None: none ended early.
        stretch: By target b, by how much more mixtures do at the reference size than at the smaller ones: those are
            brought to it by log L ← log L + b (log L − c(p)). None of a target: no more.
        centre: By target (progress, c): log loss of the mean anchor, which a stretch leaves alone.
        trend: Levels over three sizes or more; None of fewer.
        contradict: What is said where anchors differ by more than their errors; None: they don't.
        far: What is said of anchors outside the sweep; None: none is.
        notes: What was excluded on the way.
        axis: What runs line up by: progress over sizes, tokens where all runs have one.
    """

    reference: float
    sizes: tuple[SizeLevel, ...]
    asked: float | None = None
    known: bool = True
    rough: bool = False
    anchors: tuple[Anchor, ...] = ()
    slope: float | None = None
    stretch: Mapping[str, float] = field(default_factory=dict)
    centre: Mapping[str, Levels] = field(default_factory=dict)
    trend: Trend | None = None
    contradict: str | None = None
    far: str | None = None
    notes: tuple[str, ...] = ()
    axis: Literal["progress", "tokens"] = "progress"

    @property
    def of_reference(self) -> SizeLevel:
        """The reference size's level: 0."""
        return self.of(self.reference)

    @property
    def observed(self) -> tuple[float, ...]:
        """The sizes that runs have, rising."""
        return tuple(dict.fromkeys(one.size for one in self.sizes if one.observed))

    @property
    def left_out(self) -> LeftOut | None:
        """What the smaller sizes say of the largest; None of fewer than three."""
        return None if self.trend is None else self.trend.left_out

    def of(self, size: float) -> SizeLevel:
        """Return the level of a model size, of its longest schedule.

        Args:
            size: Parameters; within a factor 1.2 of an observed size, that one is meant.

        Raises:
            ValueError: No run has it, and fewer than three sizes were observed; or it is smaller than all.
        """
        found = nearest(checked_size(size), [one.size for one in self.sizes])
        if found is not None:
            return max((one for one in self.sizes if one.size == found), key=lambda one: one.schedule)
        observed = ", ".join(parameters(one) for one in self.observed)
        if size < min(one.size for one in self.sizes):
            raise ValueError(
                f"{parameters(size)} parameters are fewer than any run has ({observed}): ask for a size from "
                f"{parameters(self.sizes[0].size)} on"
            )
        if self.trend is None or size < self.trend.sizes[-1]:
            raise ValueError(
                f"the level of the losses at {parameters(size)} parameters is unknown: runs have {observed}. Run one "
                "mixture at that size (bimix plan --anchor), and fit again"
            )
        return self.extrapolated(size)

    def extrapolated(self, size: float) -> SizeLevel:
        """Return the level of a size larger than all, by the trend over three sizes or more: a rough one."""
        if self.trend is None:
            raise ValueError("fewer than three sizes have no trend")
        largest = self.of(self.trend.sizes[-1])
        rise = {target: self.trend.at(target, size) - self.trend.levels[target][-1] for target in self.trend.levels}
        return SizeLevel(
            size=float(size),
            schedule=self.trend.schedule(size),
            levels={
                target: tuple((at, level + further) for at, level in largest.levels.get(target, ()) or ((1.0, 0.0),))
                for target, further in rise.items()
            },
            error={target: self.trend.error(target, size) for target in rise},
        )

    def variance(self, size: float, terms: Mapping[str, float], of_run: float) -> float:
        """Return the variance that the level of a size adds to a weighted sum of losses, nats².

            σ_δ² = v / k + σ_x²,   v = (ν σ_run² + Σ_a (d_a − d̄)²) / (ν + k − 1)

        k anchors deviate by d_a from their common level; σ_run² is the variance of a run about the law, worth ν = 4
        anchors. σ_x is what the extension of a curve, or the trend over sizes, adds: it moves all targets alike.

        Args:
            size: The model size.
            terms: By target its weight times its loss, nats.
            of_run: σ_run², nats².
        """
        level = self.of(size)
        beyond = sum(term * level.error.get(target, 0.0) for target, term in terms.items())
        if level.exact or not level.observed:
            return float(beyond**2)
        return float(self.of_anchor(terms, of_run) / max(self.runs_of(level), 1) + beyond**2)

    def of_anchor(self, terms: Mapping[str, float], of_run: float) -> float:
        """Return v, the variance of a run at the reference size about law and level; see `variance`."""
        used = [one for one in self.anchors if one.others]
        each = np.array([sum(w * one.deviation.get(t, 0.0) for t, w in terms.items()) for one in used])
        spread = float(((each - each.mean()) ** 2).sum()) if len(each) else 0.0
        return (PRIOR * of_run + spread) / (PRIOR + max(len(each) - 1, 0))

    def runs_of(self, level: SizeLevel) -> int:
        """Return how many runs a size's level is the mean of."""
        used = sum(not one.far for one in self.anchors) or len(self.anchors)
        return used if level.size == self.reference and self.anchors else len(level.runs)

    def level_at(self, size: float, target: str, progress: float | Array) -> Array:
        """Return δ of a target at a size and a progress, log loss."""
        return self.of(size).at(target, progress)

    def to_dict(self) -> dict[str, Any]:
        """Return the bridge as JSON types; `from_dict` reads it back."""
        return {
            **vars(self),
            "sizes": [one.to_dict() for one in self.sizes],
            "anchors": [one.to_dict() for one in self.anchors],
            "stretch": dict(self.stretch),
            "centre": {target: [list(knot) for knot in knots] for target, knots in self.centre.items()},
            "trend": None if self.trend is None else self.trend.to_dict(),
            "left_out": None if self.left_out is None else dict(self.left_out.error),
            "contradict": None if self.contradict is None else str(self.contradict),
            "far": None if self.far is None else str(self.far),
            "notes": [str(note) for note in self.notes],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Bridge:
        """Read what `to_dict` wrote."""
        known = {name: value for name, value in content.items() if name != "left_out"}
        return cls(
            **known
            | {
                "sizes": tuple(SizeLevel.from_dict(one) for one in content["sizes"]),
                "anchors": tuple(Anchor.from_dict(one) for one in content["anchors"]),
                "trend": None if content.get("trend") is None else Trend.from_dict(content["trend"]),
                "notes": tuple(content.get("notes", ())),
                "centre": {t: tuple((at, c) for at, c in knots) for t, knots in content.get("centre", {}).items()},
            }
        )
