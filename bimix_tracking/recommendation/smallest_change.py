"""The smallest change: how much of the gain each step away from the present mixture gets.

    r(ε) = argmin F(r)  subject to all constraints and  ½ Σ |r − reference| ≤ ε   (or KL(r ‖ reference) ≤ ε)

for ε from 0, or from the nearest mixture that the constraints allow, to the distance of the optimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about, count
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.solvers.limits import Change, Near
from bimix_tracking.recommendation.uncertainty import LEVEL, Uncertainty

STEPS = 12
MOST_OF_IT = 0.8
"""The part of the gain that a sentence names a distance for."""
_NOWHERE = 1e-6
_ROUNDS, _TRIED_AT_ONCE = 4, 12


@dataclass(frozen=True)
class Step:
    """The best mixture within a distance of the reference.

    Args:
        moved: How far it is from the reference: total variation, the part of the tokens that are others.
        radius: How far it was allowed to be, in the unit of `SmallestChange.change`.
        mixture: The mixture.
        gain: Its gain over the reference, in the objective's unit.
        interval: The gain's interval; None without replicates.
        part: Of the gain of the last step.
    """

    moved: float
    radius: float
    mixture: Mixture
    gain: float
    interval: tuple[float, float] | None
    part: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        interval = None if self.interval is None else list(self.interval)
        return dict(vars(self)) | {"mixture": dict(self.mixture), "interval": interval}


@dataclass(frozen=True)
class SmallestChange:
    """The optima on the way from the reference to the optimum.

    Args:
        steps: From the nearest to the farthest.
        change: How a distance is limited: total variation or divergence.
        level: Of the intervals.
        start: Why the first step is not the reference; "" where it is.
    """

    steps: tuple[Step, ...]
    change: Change
    level: float
    start: str = ""

    @property
    def gain(self) -> float:
        """The gain of the last step, which is the optimum."""
        return self.steps[-1].gain

    def moved_for(self, part: float) -> float:
        """Return how far one must move for a part of the gain, straight between the steps.

        The gain is concave in the distance, so between two steps it is no less than that: one may need to move less.
        """
        parts = np.array([step.part for step in self.steps])
        moved = np.array([step.moved for step in self.steps])
        after = int(np.argmax(parts >= part - 1e-12))
        if after == 0:
            return float(moved[0])
        along = (part - parts[after - 1]) / (parts[after] - parts[after - 1])
        return float(moved[after - 1] + along * (moved[after] - moved[after - 1]))

    @property
    def sentence(self) -> str:
        """How far to move for most of the gain."""
        if self.gain <= 0:
            return said("no step away from the reference gains anything")
        return said(
            "moving {points} points of share gets {part} of the gain; all of it takes {all}",
            points=count(100 * self.moved_for(MOST_OF_IT)),
            part=about(MOST_OF_IT),
            all=count(100 * self.steps[-1].moved),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "change": self.change,
            "level": self.level,
            "start": self.start,
            "sentence": str(self.sentence),
            "steps": [step.to_dict() for step in self.steps],
        }


def distance(shares: Array, reference: Array, change: Change) -> float:
    """Return how far a mixture is from another one: a proportion, or nats; infinite where the other has none of it.

    >>> distance(np.array([0.5, 0.5]), np.array([0.4, 0.6]), "tv")
    0.09999999999999998
    """
    if change == "tv":
        return float(np.abs(shares - reference).sum() / 2)
    has = shares > 0
    with np.errstate(divide="ignore"):
        return float((shares[has] * np.log(shares[has] / reference[has])).sum())


def least_change(problem: Problem, reference: Array, farthest: float, change: Change) -> float:
    """Return how far the nearest mixture is that meets all constraints, of which one is known to be `farthest` away.

    Args:
        problem: With its guards.
        reference: Shape (domains,).
        farthest: A distance at which there is one.
        change: How it is measured.
    """
    low, high = 0.0, farthest
    for _ in range(_ROUNDS):
        radii = np.linspace(low, high, _TRIED_AT_ONCE)[:-1]
        tried = replace(problem, near=Near(reference, high, change))
        cautious = _cautious(radii, farthest)
        met = tried.within(np.zeros(len(radii), np.intp), radius=radii, cautious=cautious).feasible
        first = int(np.argmax(met)) if met.any() else len(radii)
        if first == 0:
            return float(radii[0])
        low, high = float(radii[first - 1]), float(radii[first]) if first < len(radii) else high
    return high


def _cautious(radii: Array, full: float) -> Array:
    """Return which part of the guards' margins counts at each distance, of those at the optimum's.

    What a law's form gets wrong of a difference grows as the root of the distance (`FormError.between`), what the
    estimate does as the distance: the root is the larger of the two.
    """
    return np.sqrt(np.clip(radii / max(full, 1e-300), 0.0, 1.0))


def smallest_change(
    problem: Problem,
    reference: Mixture,
    replicates: Replicates | None = None,
    *,
    change: Change = "tv",
    sure: Uncertainty | None = None,
    beyond: bool = False,
    steps: int = STEPS,
    level: float = LEVEL,
) -> SmallestChange | None:
    """Return the optima within growing distances of the reference; None where the optimum is the reference.

    Args:
        problem: What was minimised.
        reference: Where to start from.
        replicates: Give the intervals, of the gain of each mixture as it stands.
        change: How a distance is limited; total variation where the optimum has what the reference has nothing of.
        sure: Of the optimum: each step has its part of the selection bias, by the distance, for the farther a mixture
            may be from the reference the more there is to choose from.
        beyond: Whether to go on beyond the problem's own largest change.
        steps: How many beside the first.
        level: Of the intervals.
    """
    fit, at = problem.fit, reference.array(problem.fit.domains)
    free = replace(problem, near=None)
    target = (free if beyond else problem).minimum([at])[0].shares[0]
    full = distance(target, at, change)
    if change == "kl" and not np.isfinite(full):
        change, full = "tv", distance(target, at, "tv")
    if full < _NOWHERE:
        return None
    least = least_change(free, at, full, change)
    radii = np.linspace(least, full, steps + 1)
    near = replace(free, near=Near(at, full, change))
    cautious = _cautious(radii, full)
    shares = near.within(np.zeros(len(radii), np.intp), start=target, radius=radii, cautious=cautious).shares.copy()
    shares[-1] = target
    if least == 0.0:
        shares[0] = at
    optimism = 0.0 if sure is None else sure.optimism
    counted = np.array([problem.weights.get(name, 0.0) for name in fit.targets])
    used = counted > 0
    losses = fit.losses(np.concatenate([at[None], shares]), problem.tokens).to_numpy(float)[:, used] @ counted[used]
    gains = losses[0] - losses[1:]
    moved = np.abs(shares - at).sum(-1) / 2
    ends: list[tuple[float, float] | None] = [None] * len(shares)
    if replicates is not None:
        ends = list(_intervals(problem, replicates, shares, at, gains - optimism * moved / moved[-1], level))
    whole = float(gains[-1])
    return SmallestChange(
        tuple(
            Step(
                moved=float(moved[i]),
                radius=float(radii[i]),
                mixture=Mixture.normalized(dict(zip(fit.domains, shares[i].tolist(), strict=True))),
                gain=float(gains[i]),
                interval=ends[i],
                part=float(gains[i]) / whole if whole > 0 else 0.0,
            )
            for i in range(len(shares))
        ),
        change,
        level,
        said(
            "the reference is outside what the constraints allow: the nearest mixture within them has {points} points "
            "of share elsewhere",
            points=count(100 * float(moved[0])),
        )
        if least > 0
        else "",
    )


def _intervals(
    problem: Problem, replicates: Replicates, shares: Array, at: Array, gains: Array, level: float
) -> list[tuple[float, float]]:
    """Return the interval of each gain, with the form error of the difference, as `uncertainty` does."""
    fit, weights = problem.fit, problem.weights
    counted = np.array([weights.get(name, 0.0) for name in fit.targets])
    used = counted > 0
    drawn = replicates.losses(np.concatenate([at[None], shares]), problem.tokens)[..., used] @ counted[used]
    drawn = drawn[np.isfinite(drawn).all(-1)]
    form = replicates.form(weights)
    variance = np.zeros(len(shares)) if form is None else form.between(at, shares)
    centre = fit.losses(np.concatenate([at[None], shares]), problem.tokens).to_numpy(float)[:, used] @ counted[used]
    residuals = drawn[:, :1] - drawn[:, 1:] - (centre[0] - centre[1:])
    below, above = replicates.sides(residuals, weights, variance, level)
    return list(zip((gains + below).tolist(), (gains + above).tolist(), strict=True))
