"""The report's section on model sizes, as sentences and numbers already printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bimix_tracking.data.observations import Observations
from bimix_tracking.design.anchor_worth import anchor_worth
from bimix_tracking.display.texts import printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import MISSING, nats, parameters, signed, tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.scale import levels
from bimix_tracking.report.scale.compute import beside
from bimix_tracking.report.scale.forecast import Forecast, Mean, forecasts, headline, mean
from bimix_tracking.report.scale.levels import AnchorRow, LevelRow, SizeRow
from bimix_tracking.selection.rank_transfer import RankTransfer
from bimix_tracking.selection.size_ranks import SizePair


class Sized(Protocol):
    """The part of `Analysis` that this section reads."""

    @property
    def observations(self) -> Observations:
        """The runs of all sizes, as read."""

    @property
    def fit(self) -> LawFit:
        """The fitted law."""

    @property
    def recommendation(self) -> Recommendation:
        """The optimum and its reference."""

    @property
    def replicates(self) -> Replicates | None:
        """The fit's replicates, of a run-level bootstrap."""

    @property
    def ranks(self) -> RankTransfer | None:
        """How ranks carry over between the sizes; None with one size."""


@dataclass(frozen=True)
class Scale:
    """What a report says of model sizes.

    Args:
        size: Whose losses the figures are; MISSING where no size is known.
        subject: The same, after how many tokens.
        headline: Its mean loss, and what that took; empty where there is no such number.
        tile: The key figure of that: name, value, what to know; None where there is no such number.
        whose: Whose losses the figures are, and what they rest on.
        weak: Whether that is to be doubted: it then stands in an alert.
        doubts: What makes the levels weak.
        forecasts: By target.
        compute: FLOPs, beside the same runs at the target size.
        ranks: Whether ranks carry over, in a sentence.
        pairs: Rank correlations of all pairs of sizes.
        sizes: The model sizes.
        changes: Heads of the columns of `levels`.
        levels: What the reference size gains, by target.
        anchors: The anchor runs.
        notes: How sizes are lined up, and what was noted on the way.
    """

    size: str
    subject: str
    headline: str
    tile: tuple[str, str, str] | None
    whose: str
    weak: bool
    doubts: tuple[str, ...]
    forecasts: tuple[Forecast, ...]
    compute: str
    ranks: str
    pairs: tuple[tuple[str, ...], ...]
    sizes: tuple[SizeRow, ...]
    changes: tuple[str, ...]
    levels: tuple[LevelRow, ...]
    anchors: tuple[AnchorRow, ...]
    notes: tuple[str, ...]


def scale_of(result: Sized) -> Scale | None:
    """Return what a report says of model sizes; None where one size is all there is and none was asked for.

    Args:
        result: An `Analysis`.
    """
    fit, rec, bridge = result.fit, result.recommendation, result.fit.bridge
    if rec.model_size is None and (bridge is None or len(bridge.sizes) < 2):
        return None
    size = fit.model_size or rec.model_size
    subject = of_model(size, rec.volume)
    found = mean(fit, rec, result.replicates)
    asked = size if bridge is None or bridge.asked is None else bridge.asked
    took = beside(result.observations, asked, rec.tokens)
    ranks, obs = result.ranks, result.observations
    return Scale(
        size=MISSING if size is None else parameters(size),
        subject=subject,
        headline=_headline(bridge, found, subject, took.short() if took else ""),
        tile=None if found is None else _tile(found, bridge),
        whose="" if bridge is None else levels.whose(bridge),
        weak=bridge is not None and (bridge.rough or not bridge.known),
        doubts=() if bridge is None else (*levels.doubts(bridge), *_worth(result, bridge)),
        forecasts=forecasts(fit, rec, result.replicates),
        compute="" if took is None else took.sentence(),
        ranks="" if ranks is None else joined([ranks.sentence, *ranks.notes]),
        pairs=() if ranks is None else tuple(map(_pair, ranks.pairs)),
        sizes=() if bridge is None else tuple(levels.size_rows(bridge)),
        changes=() if bridge is None else tuple(levels.changes(bridge)),
        levels=() if bridge is None else tuple(levels.level_rows(bridge, result.replicates, _losses(result))),
        anchors=() if bridge is None else tuple(levels.anchor_rows(bridge)),
        notes=() if bridge is None else levels.notes(bridge, schedules=set(obs.runs) <= set(obs.schedules)),
    )


def _losses(result: Sized) -> dict[str, float]:
    """Return the law's own losses of the recommended mixture, by target."""
    rec = result.recommendation
    return {str(target): float(loss) for target, loss in result.fit.losses(rec.mixture, rec.volume).iloc[0].items()}


def _worth(result: Sized, bridge: Bridge) -> Iterator[str]:
    """Return what anchor runs would buy where there are none."""
    if bridge.asked is None or (bridge.known and not bridge.rough):
        return
    fit, weights = result.fit, result.recommendation.weights
    found = anchor_worth(fit, model_size=bridge.asked, weights=weights, replicates=result.replicates)
    if found:
        yield found


def _headline(bridge: Bridge | None, found: Mean | None, subject: str, took: str) -> str:
    """Return the first page's sentence: the loss, and what it took; of an unknown level that it is."""
    if bridge is not None and not bridge.known:
        return levels.unknown(bridge)
    if found is None:
        return took
    return headline(found, subject, took, rough=bridge is not None and bridge.rough)


def _tile(found: Mean, bridge: Bridge | None) -> tuple[str, str, str]:
    """Return the key figure; of a level that is unknown no number."""
    if bridge is None or bridge.known:
        return found.name, nats(found.value), found.more(rough=bridge is not None and bridge.rough)
    asked = bridge.reference if bridge.asked is None else bridge.asked
    return found.name, said("unknown"), said("no anchor run at {size}", size=parameters(asked))


def of_model(size: float | None, volume: float) -> str:
    """Return which model after how many tokens, as a heading has it."""
    if size is None:
        return said("After {tokens} tokens", tokens=tokens(volume))
    return said("{size} model after {tokens} tokens", size=parameters(size), tokens=tokens(volume))


def _pair(one: SizePair) -> tuple[str, ...]:
    """Return a row of the table of ranks: both sizes, mixtures, the mean's correlation and interval, what breaks."""
    return (
        said("{small} → {large}", small=parameters(one.small), large=parameters(one.large)),
        str(one.mixtures),
        signed(one.mean.correlation),
        one.mean.interval,
        few(map(printable, one.breaking)) if one.breaking else said("none"),
    )
