"""The four numbers that a meeting is about, in agreement with the verdict above them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bimix_tracking.messages import said
from bimix_tracking.quantities import about, nats, percent, signed
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.savings import Worth
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.report import investment
from bimix_tracking.report.decision import probability
from bimix_tracking.selection.cross_validation import Validation


@dataclass(frozen=True)
class KeyFigure:
    """What it is, the number, what to know of it."""

    name: str
    value: str
    more: str


def key_figures(
    rec: Recommendation, verdict: Verdict, worth: Worth | None, validation: Validation | None
) -> Iterator[KeyFigure]:
    """Return gain, probability, investment and held-out error; of an unusable law only the last has a number.

    Args:
        rec: The optimum and its reference.
        verdict: Whether to act on it.
        worth: What it saves.
        validation: What the law predicts of held-out mixtures.
    """
    figures = [_gain(rec), _probability(rec), *([] if worth is None else [KeyFigure(*investment.tile(worth))])]
    if not verdict.usable:
        figures = [KeyFigure(one.name, said("not reliable"), said("the law fails its check")) for one in figures]
    yield from figures
    yield _held_out(validation)


def _gain(rec: Recommendation) -> KeyFigure:
    sure = rec.uncertainty
    if sure is None:
        more = said("no interval: no replicates")
    else:
        low, high = (nats(end) for end in sure.gain)
        more = said("{level:.0f} % interval {low} to {high}", level=100 * sure.level, low=low, high=high)
    return KeyFigure(said("predicted gain"), said("{gain} nats", gain=nats(rec.gain)), more)


def _probability(rec: Recommendation) -> KeyFigure:
    sure, name = rec.uncertainty, said("probability of a gain")
    if sure is None:
        return KeyFigure(name, said("unknown"), said("no replicates"))
    included = said("expected loss below the reference's")
    excluded = said("excludes model misspecification")
    return KeyFigure(name, probability(sure.probability), included if sure.form_error is not None else excluded)


def _held_out(found: Validation | None) -> KeyFigure:
    name = said("held-out error")
    if found is None:
        return KeyFigure(name, said("unknown"), said("too few mixtures to hold one out"))
    without, rank = about(found.mean_baseline_error), found.rank_correlation
    if math.isnan(rank):
        return KeyFigure(name, percent(found.mean_error), said("no law {error}; rank unknown", error=without))
    more = said("rank correlation {rank}; no law {error}", rank=signed(rank), error=without)
    return KeyFigure(name, percent(found.mean_error), more)
