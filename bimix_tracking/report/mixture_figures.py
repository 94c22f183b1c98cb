"""The figures of the decision: the proportions, what moving one of them costs, and the smallest change."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bimix_tracking.data.weights import objective_weights
from bimix_tracking.display import svg
from bimix_tracking.display.proportions import ProportionRow
from bimix_tracking.display.texts import listing, printable, shorten, width
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.messages import said
from bimix_tracking.quantities import about, count
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.smallest_change import MOST_OF_IT, SmallestChange
from bimix_tracking.recommendation.trade_offs.pareto import Pareto
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.report.figures import along, heads
from bimix_tracking.report.language import Language

MOST_MOVED = 24
"""Panels of what moving a proportion costs: of more domains the ones with the largest recommended proportions."""

_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 320.0, 214.0, 52.0, 308.0, 30.0, 172.0
_ACROSS = 560.0
"""Width of a picture that stands alone."""
_STEPS = 49


def rows(fit: LawFit, rec: Recommendation) -> list[ProportionRow]:
    """Return the rows of the picture of the mixture.

    Args:
        fit: Its fit, for the domains and the range tried.
        rec: The recommendation and its reference.
    """
    near = None if rec.near_optimal is None else rec.near_optimal.extent
    return [
        ProportionRow(
            printable(domain),
            rec.mixture[domain],
            rec.reference[domain],
            *((math.nan, math.nan) if near is None else between(near, domain)),
            *fit.tried(domain),
        )
        for domain in fit.domains
    ]


def percent_tick(value: float, places: int) -> str:
    """Return a proportion on an axis.

    >>> percent_tick(0.25, 2)
    '25 %'
    """
    return f"{100 * value:.{max(0, places - 2)}f} %"


def moved(fit: LawFit, rec: Recommendation, say: Language) -> list[str]:
    """Return a panel a domain: what the weighted sum loses when its proportion moves and the others keep their ratios.

    The band is one run's standard deviation, the bar below the extent of the near-optimal set (whose other domains
    make the best of it, so it is at least as wide as where the curve leaves the band).

    Args:
        fit: Its fit.
        rec: The recommendation.
        say: The page's language.
    """
    working = objective_weights(rec.weights, fit.links)
    weights = np.array([working[target] for target in fit.targets])
    chosen = sorted(fit.domains, key=lambda domain: -rec.mixture[domain])[:MOST_MOVED]
    best = _sum(fit.losses(rec.mixture, rec.volume), weights)[0]
    scale = _scale(rec.unit)
    panels = []
    for domain in chosen:
        low, high = fit.tried(domain)
        extent = None if rec.near_optimal is None else between(rec.near_optimal.extent, domain)
        ends = [low, high, rec.mixture[domain], *(extent or ())]
        grid = np.linspace(max(min(ends), fit.floor), min(max(ends), 1 - fit.floor), _STEPS)
        above = _sum(along(fit, rec.mixture, grid, domain, rec.volume), weights) - best
        above *= scale
        panels.append(_moved(rec, domain, grid, above, extent, say))
    return panels


def _moved(
    rec: Recommendation,
    domain: str,
    grid: np.ndarray,
    above: np.ndarray,
    extent: tuple[float, float] | None,
    say: Language,
) -> str:
    tolerance = None if rec.near_optimal is None else _scale(rec.unit) * rec.near_optimal.tolerance
    most = float(np.nanmax(above, initial=0.0))
    # A curve that leaves the panel says as much as one that ends in it, and the band stays visible.
    top = most if tolerance is None else min(most, 6 * tolerance) if most > tolerance else 1.2 * tolerance
    x = svg.linear([*grid], _LEFT, _RIGHT, inside=(0, 1), show=lambda share, places: say(percent_tick(share, places)))
    # Within guards the optimum is not the least: the curve goes on below it where a guard is broken.
    least = max(float(np.nanmin(above, initial=0.0)), -(top or 1e-3))
    y = svg.linear([0.0, top or 1e-3, *([least] if least < -1e-9 else [])], _BOTTOM, _TOP, most=4)
    parts = heads(domain)
    if tolerance is not None:
        band = min(tolerance, y.high)
        parts.append(svg.rectangle(x.start, y.at(band), x.end, y.at(max(0.0, y.low)), "band"))
    titles = say(said("proportion")), say(_unit(rec.unit))
    parts += svg.frame(x, y, *titles)
    if extent is not None:
        parts.append(
            svg.line(x.at(max(extent[0], x.low)), _BOTTOM - 3, x.at(min(extent[1], x.high)), _BOTTOM - 3, "near")
        )
    inside = np.where((above <= y.high) & (above >= y.low), above, np.nan)
    parts.append(svg.polyline([(x.at(r), y.at(v)) for r, v in zip(grid, inside, strict=True)], "curve fit"))
    mark = x.at(rec.mixture[domain])
    parts.append(svg.line(mark, _TOP, mark, _BOTTOM, "chosen-line"))
    title = said(
        "What moving the proportion of {domain} from {share} costs in the weighted sum",
        domain=domain,
        share=about(rec.mixture[domain]),
    )
    return svg.picture(_WIDE, _HIGH, say(title), parts)


def _sum(predicted: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    counted = weights > 0
    total: np.ndarray = predicted.to_numpy(float)[:, counted] @ weights[counted]
    return total


def _scale(unit: str) -> float:
    """Return what differences of the objective are multiplied by on an axis: an accuracy is in points."""
    return 100.0 if str(unit) == "accuracy" else 1.0


def _unit(unit: str) -> str:
    """Return the unit of such an axis."""
    if str(unit) == "accuracy":
        return said("percentage points")
    return said("nats") if str(unit) == "nats per token" else unit


def path(rec: Recommendation, found: SmallestChange, say: Language) -> str:
    """Return the picture of the smallest change: the gain against how far the mixture is moved, with its interval.

    Args:
        rec: The recommendation.
        found: Its path.
        say: The page's language.
    """
    scale, right = _scale(rec.unit), _ACROSS - 12
    moved = [100 * step.moved for step in found.steps]
    gain = [scale * step.gain for step in found.steps]
    spans = [(math.nan, math.nan) if step.interval is None else step.interval for step in found.steps]
    low, high = ([scale * ends[side] for ends in spans] for side in (0, 1))
    x = svg.linear([0.0, *moved], _LEFT, right, inside=(0, math.inf))
    y = svg.linear([0.0, *gain, *low, *high], _BOTTOM, _TOP, most=4)
    band = [(x.at(m), y.at(v)) for m, v in zip(moved, low, strict=True)]
    band += [(x.at(m), y.at(v)) for m, v in zip(reversed(moved), reversed(high), strict=True)]
    parts = [svg.polygon(band, "band"), *svg.frame(x, y, say(said("points of share moved")), say(_unit(rec.unit)))]
    if y.low < 0:
        parts.append(svg.line(x.start, y.at(0.0), x.end, y.at(0.0), "axis"))
    parts.append(svg.polyline([(x.at(m), y.at(v)) for m, v in zip(moved, gain, strict=True)], "curve fit"))
    for at, value, step in zip(moved, gain, found.steps, strict=True):
        ends = (
            ""
            if step.interval is None
            else say(said(" ({low} to {high})", low=rec.amount(step.interval[0]), high=rec.amount(step.interval[1])))
        )
        tip = said("{points} points moved: gain {gain}{ends}", points=count(at), gain=rec.amount(step.gain), ends=ends)
        parts.append(svg.circle(x.at(at), y.at(value), 3, "dot own", say(tip)))
    if found.gain > 0:
        most = 100 * found.moved_for(MOST_OF_IT)
        mark = x.at(most)
        words = say(said("{part} of the gain", part=about(MOST_OF_IT)))
        half = svg.DIGIT * 0.6 * len(words)
        parts.append(svg.line(mark, _TOP - 4, mark, _BOTTOM, "chosen-line"))
        at = min(max(mark, _LEFT + half), right - half)
        parts.append(svg.label(at, _TOP - 9, words, cls="chosen-text", anchor="middle"))
    title = said("Gain against points of share moved: {sentence}", sentence=found.sentence)
    return svg.picture(_ACROSS, _HIGH, say(title), parts)


def trade(found: Pareto, say: Language) -> str:
    """Return the picture of the optima between two groups of targets: one's gain against the other's.

    Args:
        found: The optima.
        say: The page's language.
    """
    scales = [_scale(unit) for unit in found.units]
    line = [(scales[0] * one.first, scales[1] * one.second) for one in found.points]
    ours = (scales[0] * found.recommended[0], scales[1] * found.recommended[1])
    marks = [*line, ours, (0.0, 0.0)]
    x = svg.linear([at for at, _ in marks], _LEFT, _ACROSS - 12)
    y = svg.linear([at for _, at in marks], _BOTTOM, _TOP, most=4)
    units = [said("pp") if scale > 1 else _unit(unit) for scale, unit in zip(scales, found.units, strict=True)]
    names = [
        said("{group}, {unit}", group=shorten(printable(name), 14), unit=unit)
        for name, unit in zip(found.names, units, strict=True)
    ]
    parts = svg.frame(x, y, *map(say, names))
    parts.append(svg.polyline([(x.at(one), y.at(other)) for one, other in line], "curve fit"))
    for point, (one, other) in zip(found.points, line, strict=True):
        tip = said(
            "weight {weight} on {group}: {mixture}",
            weight=about(point.weight),
            group=printable(found.names[1]),
            mixture=listing(point.mixture),
        )
        parts.append(svg.circle(x.at(one), y.at(other), 3, "dot own", say(tip)))
    for (one, other), cls, text in (((0.0, 0.0), "hollow", said("reference")), (ours, "chosen", said("recommended"))):
        words = say(text)
        right = x.at(one) + 9 + 1.3 * svg.DIGIT * width(words) > _ACROSS
        parts.append(svg.circle(x.at(one), y.at(other), 5.5, cls, words))
        # Above and to the right of an optimum there is nothing: a mark there would beat it.
        at = x.at(one) + (6 if right else 8)
        parts.append(svg.label(at, y.at(other) - 10, words, cls="value", anchor="end" if right else "start"))
    title = said(
        "Optima between {one} and {other}, with the recommended mixture and the reference",
        one=printable(found.names[0]),
        other=printable(found.names[1]),
    )
    return svg.picture(_ACROSS, _HIGH, say(title), parts)
