"""Links: how a target's value becomes the working loss that laws are fitted to, and back.

Laws are of losses: positive, lower is better, noise of about half a percent. A loss in nats per token and bits per byte
are such; an accuracy and a score become one, their working loss L, by a link:

    accuracy:  log L = κ (η̄ − logit q),  q = (accuracy − chance) / (1 − chance)
    score:     log L = κ (ȳ − y),         y the score, or −score where lower is better

η̄ and ȳ are those of the sweep's mean, so L is about 1. κ gives L the noise of a loss: a sampling error of 0.5 %, and a
spread between runs of 5 % at most.

The logit of an observed accuracy near chance is noise without end, and none below it. So within a sampling error of
chance the logit goes on along its tangent, as it does that near to 1; and an observed accuracy is taken along
the tangent at p̂, the observed accuracy shrunk to the mean of its checkpoint by the part of the spread that binomial
noise explains: η = logit q̂ + (accuracy − p̂) / ((1 − chance) q̂ (1 − q̂)), the working response of a generalised linear
model (McCullagh and Nelder 1989, §2.5), with the weight 1 / Var η.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from bimix_tracking import quantities
from bimix_tracking.data.targets import Kind, Target

Array = npt.NDArray[np.float64]
_EDGE = 1e-6
"""Of a link that no sweep made."""
_NOISE, _SPREAD, _WITHOUT_NOISE = 0.005, 0.05, 0.03
"""Of log L: its sampling error, the most it may spread between runs, and its spread where no noise is known."""
_SAME_CHECKPOINT = 0.1
"""Evaluations of runs nearer than this in log tokens are shrunk to one mean."""
_NEAREST, _FARTHEST, _UNKNOWN = 0.01, 0.25, 0.02
"""How near q̂ may be to 0 and 1: its sampling error, within the first two; the third where that is unknown."""


@dataclass(frozen=True)
class Link:
    """How a target's value becomes its working loss, and back; see the module. The identity for losses and bpb.

    Args:
        kind: Of the target.
        rate: κ.
        centre: η̄ or ȳ.
        chance: Of an accuracy.
        rising: Whether higher is better.
        spread: Standard deviation between runs of their last values, in the own unit; 0 if unknown.
        edge: Of an accuracy: nearer than this to 0 or 1 the logit of q goes on along its tangent, for values below
            chance are observed.

    >>> link = Link(Kind.ACCURACY, rate=0.1, centre=0.0, chance=0.25, rising=True)
    >>> float(link.loss(0.625)), round(float(link.value(link.loss(0.8))), 9), round(link.unit, 3)
    (1.0, 0.8, 1.875)
    """

    kind: Kind = Kind.LOSS
    rate: float = 1.0
    centre: float = 0.0
    chance: float = 0.0
    rising: bool = False
    spread: float = 0.0
    edge: float = _EDGE

    @property
    def identity(self) -> bool:
        """Whether value and working loss are one."""
        return self.kind in (Kind.LOSS, Kind.BPB)

    @property
    def unit(self) -> float:
        """What a unit of L is worth in the target's own unit, at L = 1; positive."""
        if self.identity:
            return 1.0
        return float(self.slope(1.0))

    def slope(self, loss: Any) -> Any:
        """Return by how much the value moves, in its own unit and without a sign, for a unit of working loss at one."""
        if self.identity:
            return np.ones_like(np.asarray(loss, float))
        loss = np.asarray(loss, float)
        if self.kind is Kind.SCORE:
            return 1 / (self.rate * loss)
        steepest = logit(1 - self.edge)
        q = expit(np.clip(self.centre - np.log(loss) / self.rate, -steepest, steepest))
        return (1 - self.chance) * q * (1 - q) / (self.rate * loss)

    def loss(self, value: Any) -> Any:
        """Return the working loss of a value, or of an array of them."""
        if self.identity:
            return value
        return np.exp(self.rate * (self.centre - self._scaled(np.asarray(value, float))))

    def value(self, loss: Any) -> Any:
        """Return the value of a working loss, or of an array of them."""
        if self.identity:
            return loss
        with np.errstate(divide="ignore"):
            scaled = self.centre - np.log(np.asarray(loss, float)) / self.rate
        if self.kind is Kind.ACCURACY:
            inner = np.clip(scaled, logit(self.edge), logit(1 - self.edge))
            q = expit(inner) + (scaled - inner) * self.edge * (1 - self.edge)
            return np.clip(self.chance + (1 - self.chance) * q, 0.0, 1.0)
        return scaled if self.rising else -scaled

    def shown(self, value: float) -> str:
        """Return a value as it is printed, in its own unit.

        >>> Link().shown(2.5), Link(Kind.ACCURACY, rising=True).shown(0.4123)
        ('2.5000', '41.2 %')
        """
        if self.kind is Kind.ACCURACY:
            return quantities.accuracy(value)
        return quantities.digits(value) if self.kind is Kind.SCORE else quantities.nats(value)

    def shown_change(self, change: float) -> str:
        """Return a difference of two values as it is printed, with its sign.

        >>> Link().shown_change(-0.01), Link(Kind.ACCURACY, rising=True).shown_change(0.0123)
        ('−0.0100', '+1.2 pp')
        """
        if self.kind is Kind.ACCURACY:
            return quantities.points(change)
        text = quantities.digits(change) if self.kind is Kind.SCORE else quantities.nats(change)
        return f"+{text}" if change > 0 else text

    def to_dict(self) -> dict[str, Any]:
        """Return the link as JSON types."""
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"kind": str(self.kind)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Link:
        """Read what `to_dict` wrote."""
        return cls(**{**content, "kind": Kind(content["kind"])})

    def _scaled(self, value: Array) -> Array:
        if self.kind is Kind.ACCURACY:
            q = (value - self.chance) / (1 - self.chance)
            inner = np.clip(q, self.edge, 1 - self.edge)
            return np.asarray(logit(inner) + (q - inner) / (self.edge * (1 - self.edge)))
        return value if self.rising else -value


IDENTITY = Link()
"""Of a loss."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Linked:
    """A target's values as laws are fitted to them.

    Args:
        link: What made them so.
        loss: Working losses, shape (values,).
        precision: Weight of each, of the same shape, about 1; NaN where nothing is known of their noise.
    """

    link: Link
    loss: Array
    precision: Array


def linked(target: Target, values: Array, questions: Array, run: npt.NDArray[np.intp], tokens: Array) -> Linked:
    """Return a target's values as working losses, with the link that these values set.

    Args:
        target: What it is.
        values: As measured, in its own unit, shape (values,).
        questions: Of how many questions each is the mean, of that shape; NaN: as the target says.
        run: Number of its run, of that shape.
        tokens: Training tokens, of that shape.

    >>> target = Target("mmlu", "accuracy", questions=1000, chance=0.25)
    >>> accuracy = np.array([0.26, 0.35, 0.5])
    >>> found = linked(target, accuracy, np.full(3, np.nan), np.arange(3), np.full(3, 1e9))
    >>> found.loss.round(3), found.link.value(found.loss).round(2)
    (array([1.077, 1.006, 0.973]), array([0.26, 0.35, 0.5 ]))
    """
    order = np.lexsort((tokens, run))
    last = order[np.r_[run[order][1:] != run[order][:-1], True]]
    if target.kind is Kind.SCORE:
        scaled = values if target.rising else -values
        spread = float(scaled[last].std())
        rate = _WITHOUT_NOISE / spread if spread > 0 else 1.0
        link = Link(Kind.SCORE, rate, float(scaled[last].mean()), rising=target.rising, spread=spread)
        return Linked(link, np.asarray(link.loss(values)), np.full(len(values), np.nan))
    if target.kind is not Kind.ACCURACY:
        return Linked(Link(Kind(target.kind), spread=float(values[last].std())), values, np.full(len(values), np.nan))
    chance, free = target.chance, 1 - target.chance
    asked = np.where(np.isfinite(questions), questions, np.nan if target.questions is None else target.questions)
    at = _shrunk(values, asked, tokens)
    sampled = bool(np.isfinite(asked).any())
    usual = float(np.nanmean(asked)) if sampled else 1.0
    mean = float(values[last].mean())
    error = math.sqrt(max(mean * (1 - mean), _NEAREST**2) / usual) / free
    edge = min(max(error, _NEAREST), _FARTHEST) if sampled else _UNKNOWN
    q = np.clip((at - chance) / free, edge, 1 - edge)
    at, slope = chance + free * q, free * q * (1 - q)
    scaled = logit(q) + (values - at) / slope
    noise = np.sqrt(at * (1 - at) / np.where(np.isfinite(asked), asked, usual)) / slope
    middle = float(np.median(noise[last]))
    spread = float(scaled[last].std())
    rates = [_NOISE / middle] if sampled else []
    if spread > 0:
        rates.append((_SPREAD if rates else _WITHOUT_NOISE) / spread)
    unscaled = Link(Kind.ACCURACY, 1.0, 0.0, chance, True, float(values[last].std()), edge)
    link = replace(unscaled, rate=min(rates, default=1.0), centre=-float(np.log(unscaled.loss(mean))))
    return Linked(link, np.exp(link.rate * (link.centre - scaled)), (middle / noise) ** 2)


def _shrunk(values: Array, questions: Array, tokens: Array) -> Array:
    """Return each value shrunk to the mean of its checkpoint, by the part of the spread that is binomial noise."""
    place = np.unique(np.round(np.log(np.maximum(tokens, 1.0)) / _SAME_CHECKPOINT), return_inverse=True)[1].reshape(-1)
    count = np.bincount(place)
    mean = (np.bincount(place, values) / count)[place]
    several = (count > 1)[place]
    free = int(several.sum() - (count > 1).sum())
    if not free or not np.isfinite(questions).any():
        return values
    total = float(((values - mean)[several] ** 2).sum()) / free
    noise = float(np.nanmean((mean * (1 - mean) / questions)[several]))
    kept = max(1 - noise / total, 0.0) if total > 0 else 0.0
    return np.asarray(np.where(several, mean + kept * (values - mean), values))
