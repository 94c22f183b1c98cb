"""The figures of the decision: the proportions, what they change by domain, and what moving one of them costs."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import pandas as pd

from bimix_tracking.data.weights import objective_weights
from bimix_tracking.display.proportions import ProportionRow
from bimix_tracking.display.texts import printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import said
from bimix_tracking.quantities import about, nats
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.report import svg
from bimix_tracking.report.figures import along, heads
from bimix_tracking.report.language import Language

MOST_MOVED = 24
"""Panels of what moving a proportion costs: of more domains the ones with the largest recommended proportions."""

_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 320.0, 214.0, 52.0, 308.0, 30.0, 172.0
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


def changes(fit: LawFit, rec: Recommendation, replicates: Replicates | None, say: Language) -> str:
    """Return the plot of what the recommended mixture changes: a row a domain, L − L on the reference, its interval.

    Args:
        fit: Its fit.
        rec: The recommendation and its reference.
        replicates: For intervals; None: there are none.
        say: The page's language.
    """
    off = {target: rec.predicted[target] - rec.reference_predicted[target] for target in fit.targets}
    ends = None if replicates is None else replicates.change(rec.mixture, rec.reference, rec.volume)
    known = [*off.values(), *([] if ends is None else [*ends[0][list(off)], *ends[1][list(off)]])]
    x = svg.linear([0.0, *known], 0.0, 100.0, most=4, show=nats_tick)
    ticks = "".join(f'<span style="left:{x.at(tick):.2f}%">{x.show(tick)}</span>' for tick in x.ticks)
    lines = [f'<div class="bx-row" aria-hidden="true"><span></span><div class="bx-scale">{ticks}</div></div>']
    grid = "".join(f'<i class="bx-grid" style="left:{x.at(tick):.2f}%"></i>' for tick in (*x.ticks, 0.0))
    for target, change in off.items():
        name, marks, span = escape(printable(target)), [grid, '<i class="bx-line"></i>'], ""
        shown = nats(change) if math.isfinite(change) else say(said("unknown"))
        if ends is not None and np.isfinite([ends[0][target], ends[1][target]]).all():
            low, high = float(ends[0][target]), float(ends[1][target])
            wide = x.at(high) - x.at(low)
            marks.append(f'<i class="bx-sure" style="left:{x.at(low):.2f}%;width:{wide:.2f}%"></i>')
            span = say(said("({low} to {high})", low=nats(low), high=nats(high)))
        if math.isfinite(change):
            marks.append(f'<i class="bx-rec" style="left:{x.at(change):.2f}%"></i>')
        told = said("{name}: {value}", name=printable(target), value=f"{shown} {span}".strip())
        alternative = escape(say(told))
        lines.append(
            f'<div class="bx-row" role="listitem"><span class="bx-name" title="{name}"><bdi>{name}</bdi></span>'
            f'<div class="bx-track" role="img" aria-label="{alternative}">{"".join(marks)}</div>'
            f'<span class="bx-num"><b>{escape(shown)}</b> <span class="bx-wide">{escape(span)}</span></span></div>'
        )
    title = escape(say(said("Change of each predicted loss, nats per token")))
    return f'<figure class="bx-mix bx-changes" aria-label="{title}"><div role="list">{"".join(lines)}</div></figure>'


def percent_tick(value: float, places: int) -> str:
    """Return a proportion on an axis.

    >>> percent_tick(0.25, 2)
    '25 %'
    """
    return f"{100 * value:.{max(0, places - 2)}f} %"


def nats_tick(value: float, places: int) -> str:
    """Return a difference of losses on an axis.

    >>> nats_tick(-0.25, 2)
    '−0.25'
    """
    text = f"{value:.{places}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


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
    panels = []
    for domain in chosen:
        low, high = fit.tried(domain)
        extent = None if rec.near_optimal is None else between(rec.near_optimal.extent, domain)
        ends = [low, high, rec.mixture[domain], *(extent or ())]
        grid = np.linspace(max(min(ends), fit.floor), min(max(ends), 1 - fit.floor), _STEPS)
        above = _sum(along(fit, rec, grid, domain, rec.volume), weights) - best
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
    tolerance = None if rec.near_optimal is None else rec.near_optimal.tolerance
    most = float(np.nanmax(above, initial=0.0))
    # A curve that leaves the panel says as much as one that ends in it, and the band stays visible.
    top = most if tolerance is None else min(most, 6 * tolerance) if most > tolerance else 1.2 * tolerance
    x = svg.linear([*grid], _LEFT, _RIGHT, inside=(0, 1), show=lambda share, places: say(percent_tick(share, places)))
    y = svg.linear([0.0, top or 1e-3], _BOTTOM, _TOP, most=4)
    parts = heads(domain)
    if tolerance is not None:
        band = min(tolerance, y.high)
        parts.append(svg.rectangle(x.start, y.at(band), x.end, y.at(max(0.0, y.low)), "band"))
    titles = say(said("proportion")), say(said("nats"))
    parts += svg.frame(x, y, *titles)
    if extent is not None:
        parts.append(
            svg.line(x.at(max(extent[0], x.low)), _BOTTOM - 3, x.at(min(extent[1], x.high)), _BOTTOM - 3, "near")
        )
    inside = np.where(above <= y.high, above, np.nan)
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
