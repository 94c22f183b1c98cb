"""Pictures of two model sizes: the same mixtures' mean losses, and the rank correlation of each target."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bimix_tracking.display import svg
from bimix_tracking.display.texts import printable, shorten
from bimix_tracking.messages import said
from bimix_tracking.quantities import nats, parameters, signed
from bimix_tracking.report.language import Language
from bimix_tracking.selection.rank_transfer import RankTransfer
from bimix_tracking.selection.size_ranks import Rank, SizePair

MOST_TARGETS = 24
"""Rows of the strip: of more targets those with the lowest correlations."""
_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 380.0, 270.0, 54.0, 368.0, 40.0, 226.0
_ROW, _NAMES, _NUMBERS = 19.0, 118.0, 56.0


def pictures(ranks: RankTransfer, say: Language) -> list[str]:
    """Return the pictures of the two sizes that decide: the same mixtures' mean losses, every target's correlation.

    Args:
        ranks: How ranks carry over between model sizes.
        say: The page's language.
    """
    pair = ranks.decisive
    return [] if pair is None else [_scatter(pair, say, losses=ranks.losses), _strip(pair, say)]


def _scatter(pair: SizePair, say: Language, *, losses: bool) -> str:
    small, large = pair.sums
    x, y = svg.linear(small.tolist(), _LEFT, _RIGHT), svg.linear(large.tolist(), _BOTTOM, _TOP)
    sizes = {"small": parameters(pair.small), "large": parameters(pair.large)}
    titles = said("weighted sum at {small}", **sizes), said("weighted sum at {large}", **sizes)
    if not losses:
        titles = said("objective at {small}", **sizes), said("objective at {large}", **sizes)
    parts = [
        svg.label(_LEFT, 16, say(said("Same mixtures: ρ = {rank}", rank=_in_words(pair.mean))), cls="head", most=40),
        *svg.frame(x, y, *map(say, titles)),
    ]
    crossing = _crossing(small, large)
    for place, (runs, at_small, at_large) in enumerate(zip(pair.runs, small, large, strict=True)):
        tip = said(
            "{run}: {low} at {small}, {high} at {large}",
            run=shorten(printable(runs[0]), 60),
            low=nats(float(at_small)),
            high=nats(float(at_large)),
            **sizes,
        )
        cls = "dot hollow" if place in crossing else "dot own"
        parts.append(svg.circle(x.at(float(at_small)), y.at(float(at_large)), 3.6, cls, say(tip)))
    title = said(
        "{mixtures} mixtures at {small} and {large}: rank correlation {rank}",
        mixtures=pair.mixtures,
        rank=_in_words(pair.mean),
        **sizes,
    )
    return svg.picture(_WIDE, _HIGH, say(title), parts)


def _crossing(small: np.ndarray, large: np.ndarray) -> set[int]:
    """Return the mixtures whose place in the order differs by more than a quarter of all between the sizes."""
    places = [pd.Series(values).rank().to_numpy(float) for values in (small, large)]
    return set(map(int, np.flatnonzero(abs(places[0] - places[1]) > max(len(small) / 4, 1))))


def _strip(pair: SizePair, say: Language) -> str:
    order = sorted(pair.targets, key=lambda target: _sortable(pair.targets[target]))[:MOST_TARGETS]
    rows = [(target, pair.targets[target]) for target in order]
    low = min([one.low if math.isfinite(one.low) else one.correlation for _, one in rows] + [pair.mean.low, 0.9])
    x = svg.linear([max(low, -1.0), 1.0], _NAMES, _WIDE - _NUMBERS, inside=(-1, 1), most=4)
    bottom = _TOP + _ROW * (len(rows) + 1)
    head = said(
        "Rank correlation by target, {small} to {large}", small=parameters(pair.small), large=parameters(pair.large)
    )
    parts = [svg.label(8, 16, say(head), cls="head", most=40)]
    for tick in x.ticks:
        at = x.at(tick)
        parts += [svg.line(at, _TOP - 6, at, bottom, "grid"), svg.label(at, bottom + 15, x.show(tick), anchor="middle")]
    means = [(say(said("mean")), pair.mean, False)]
    for place, (name, rank, breaks) in enumerate([*means, *((t, one, t in pair.breaking) for t, one in rows)]):
        y = _TOP + _ROW * (place + 0.5)
        parts.append(svg.label(_NAMES - 8, y + 4, name, cls="name", anchor="end", most=13))
        if not math.isfinite(rank.correlation):
            parts.append(svg.label(_WIDE - _NUMBERS + 8, y + 4, say(said("unknown")), cls="value"))
            continue
        if math.isfinite(rank.low) and math.isfinite(rank.high):
            parts.append(svg.line(x.at(max(rank.low, x.low)), y, x.at(min(rank.high, x.high)), y, "error"))
        tip = said("{target}: {rank}", target=printable(name), rank=_in_words(rank))
        parts.append(svg.circle(x.at(max(rank.correlation, x.low)), y, 4, "hollow" if breaks else "dot own", say(tip)))
        number = signed(rank.correlation) + (" ✕" if breaks else "")
        parts.append(svg.label(_WIDE - _NUMBERS + 8, y + 4, number, cls="value"))
    title = said(
        "Rank correlation of each target between {small} and {large}, with 90 % intervals; {count} break rank",
        small=parameters(pair.small),
        large=parameters(pair.large),
        count=len(pair.breaking),
    )
    return svg.picture(_WIDE, bottom + 24, say(title), parts)


def _sortable(rank: Rank) -> float:
    return rank.correlation if math.isfinite(rank.correlation) else -2.0


def _in_words(rank: Rank) -> str:
    return said("{rank} ({ends})", rank=signed(rank.correlation), ends=rank.interval)
