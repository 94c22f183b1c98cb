"""What the large model will lose on the recommended mixture, by target and in the mean, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bimix_tracking.display.texts import printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, nats
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import LEVEL

Ends = tuple[float, float]


@dataclass(frozen=True)
class Forecast:
    """One target of the large run, as printed.

    Args:
        target: Its name.
        predicted: Its value on the recommended mixture.
        interval: Of that value.
        reference: Its value on the reference.
        change: Between the two.
    """

    target: str
    predicted: str
    interval: str
    reference: str
    change: str


@dataclass(frozen=True)
class Mean:
    """The mean loss of the large run over the targets that count.

    Args:
        value: On the recommended mixture, nats per token.
        ends: Its interval; None without replicates.
        weighted: Whether targets count differently.
    """

    value: float
    ends: Ends | None
    weighted: bool

    @property
    def name(self) -> str:
        """What it is called."""
        return said("predicted weighted mean loss") if self.weighted else said("predicted mean loss")

    def more(self, *, rough: bool = False) -> str:
        """Return what to know of it.

        Args:
            rough: Whether the level is extrapolated over model sizes.
        """
        if self.ends is None:
            known = said("no interval: no replicates")
        else:
            low, high = map(nats, self.ends)
            known = said("{level:.0f} % interval {low} to {high}", level=100 * LEVEL, low=low, high=high)
        return joined([said("rough"), known], ": ") if rough else known


def forecasts(fit: LawFit, rec: Recommendation, replicates: Replicates | None) -> tuple[Forecast, ...]:
    """Return the predicted value of each target with its interval, in the order of the fit.

    Args:
        fit: The fit, of the size whose losses it predicts.
        rec: The recommendation and its reference.
        replicates: Of the fit; None: there are no intervals.
    """
    low, high = (None, None) if replicates is None else replicates.interval(rec.mixture, rec.volume)
    found = []
    for target, value in rec.predicted.items():
        if target not in fit.targets or not math.isfinite(value):
            continue
        link, before = fit.link(target), rec.reference_predicted[target]
        ends = [MISSING, MISSING]
        if low is not None and high is not None:
            ends = [link.shown(float(end[target].iloc[0])) for end in (low, high)]
        found.append(
            Forecast(
                printable(target),
                link.shown(value),
                MISSING if MISSING in ends else said("{low} to {high}", low=ends[0].removesuffix(" %"), high=ends[1]),
                link.shown(before),
                link.shown_change(value - before),
            )
        )
    return tuple(found)


def mean(fit: LawFit, rec: Recommendation, replicates: Replicates | None) -> Mean | None:
    """Return the mean loss over the targets that count; None where they are no losses in nats per token.

    Args:
        fit: As in `forecasts`, like the two that follow.
        rec: The recommendation.
        replicates: Of the fit.
    """
    if str(rec.unit) != "nats per token":
        return None
    counted = {t: w for t, w in rec.weights.items() if w > 0 and math.isfinite(rec.predicted.get(t, math.nan))}
    total = sum(counted.values())
    if not counted or any(target not in fit.targets for target in counted):
        return None
    value = sum(weight * rec.predicted[target] for target, weight in counted.items()) / total
    ends = None if replicates is None else _ends(replicates, {t: w / total for t, w in counted.items()}, rec, value)
    return Mean(value, ends, len(set(counted.values())) > 1)


def _ends(replicates: Replicates, weights: dict[str, float], rec: Recommendation, value: float) -> Ends | None:
    """Return the interval of a weighted sum, as `Replicates.interval` has that of one target."""
    weight = np.array([weights.get(target, 0.0) for target in replicates.fit.targets])
    use = weight > 0
    drawn = replicates.losses(rec.mixture, rec.volume)[:, 0, use] @ weight[use]
    form = replicates.form(weights)
    losses = replicates.fit.losses(rec.mixture, rec.volume).iloc[0]
    variance = float(replicates.beyond(weights, rec.volume)) + (0.0 if form is None else form.each)
    variance += replicates.of_level(weights, {str(target): float(loss) for target, loss in losses.items()})
    low, high = replicates.sides(np.log(drawn) - math.log(value), weights, variance / value**2, LEVEL)
    ends = value * math.exp(float(low)), value * math.exp(float(high))
    return ends if all(map(math.isfinite, ends)) else None


def headline(found: Mean, subject: str, took: str, *, rough: bool = False) -> str:
    """Return the forecast in a sentence.

    Args:
        found: Of `mean`.
        subject: Which model, after how many tokens.
        took: What the sweep took beside the same runs at that size; empty where it isn't known.
        rough: Whether the level is extrapolated over model sizes.
    """
    known = {"subject": subject, "name": found.name, "value": nats(found.value), "more": found.more(rough=rough)}
    return joined([said("{subject}: {name} {value}, {more}.", **known), took])
