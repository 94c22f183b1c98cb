"""The figures of the decision: the proportions, what they change by domain, and what moving one of them costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import said
from bimix_tracking.quantities import about, nats, percent
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.report import svg
from bimix_tracking.report.figures import along, heads, room_for_tips
from bimix_tracking.report.language import Language
from bimix_tracking.report.texts import printable, shorten

MOST_MOVED = 24
"""Panels of what moving a proportion costs: of more domains the ones with the largest recommended proportions."""

_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 320.0, 214.0, 52.0, 308.0, 30.0, 172.0
_STEPS = 49


def mixtures(obs: Observations, fit: LawFit, rec: Recommendation, say: Language) -> str:
    """Return the strip plot: a row a domain, the proportions tried, the reference and the recommended one.

    Args:
        obs: The sweep.
        fit: Its fit, for the domains.
        rec: The recommendation and its reference.
        say: The page's language.
    """
    wide, left, right, row, top = 940.0, 210.0, 740.0, 26.0, 54.0
    bottom = top + row * len(fit.domains)
    tried = obs.mixtures[list(fit.domains)].to_numpy(float)
    spans = [(table, cls) for table, cls in ((_extent(rec), "near"), (rec.interval, "sure")) if table is not None]
    values = [*tried.ravel(), *rec.mixture.values(), *rec.reference.values(), 0.0]
    values += [end for table, _ in spans for end in table.to_numpy(float).ravel()]
    x = svg.linear(values, left, right, most=8, inside=(0, 1), show=percent_tick)
    ours_word, reference_word = say(said("recommended")), say(said("reference"))
    parts = [
        svg.circle(left + 6, 14, 3.5, "tried"),
        svg.label(left + 16, 18, say(said("tried ({runs} runs)", runs=len(tried)))),
        svg.circle(left + 156, 14, 7, "reference"),
        svg.label(left + 170, 18, reference_word),
        svg.circle(left + 266, 14, 5, "chosen"),
        svg.label(left + 278, 18, ours_word),
        *_span_keys(left + 376, spans, say),
        svg.label(830, top - 12, ours_word, cls="unit", anchor="end"),
        svg.label(932, top - 12, reference_word, cls="unit", anchor="end"),
    ]
    for tick in x.ticks:
        parts.append(svg.line(x.at(tick), top - 6, x.at(tick), bottom, "grid"))
        parts.append(svg.label(x.at(tick), bottom + 16, x.show(tick), anchor="middle"))
    runs, room = obs.runs, room_for_tips(obs, fit)
    for index, domain in enumerate(fit.domains):
        y = top + row * (index + 0.5)
        parts.append(svg.line(left, y, right, y, "strip"))
        parts.append(svg.label(left - 14, y + 4, domain, cls="name", anchor="end", most=23))
        for table, cls in spans:
            low, high = between(table, domain)
            parts.append(svg.line(x.at(low), y, x.at(high), y, cls))
        for run, share in zip(runs, tried[:, index], strict=True):
            tip = f"{shorten(printable(run), 60)}: {percent(share)}" if room else ""
            parts.append(svg.circle(x.at(share), y, 3.5, "tried", tip))
        ours, theirs = rec.mixture[domain], rec.reference[domain]
        parts.append(svg.circle(x.at(theirs), y, 7, "reference", f"{reference_word}: {percent(theirs)}"))
        parts.append(svg.circle(x.at(ours), y, 5, "chosen", f"{ours_word}: {percent(ours)}"))
        parts.append(svg.label(830, y + 4, percent(ours), cls="value strong", anchor="end"))
        parts.append(svg.label(932, y + 4, percent(theirs), cls="value", anchor="end"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    parts.append(
        svg.label((left + right) / 2, bottom + 34, say(said("proportion of the mixture")), cls="unit", anchor="middle")
    )
    each = ", ".join(f"{shorten(printable(domain), 40)} {percent(share)}" for domain, share in rec.mixture.items())
    name = said("Recommended proportions beside the reference and the proportions tried: {shares}", shares=each)
    return svg.picture(wide, bottom + 44, say(name), parts)


def _extent(rec: Recommendation) -> pd.DataFrame | None:
    return None if rec.near_optimal is None else rec.near_optimal.extent


def _span_keys(at: float, spans: Sequence[tuple[pd.DataFrame, str]], say: Language) -> list[str]:
    names = {"sure": said("interval"), "near": said("nearly as good")}
    parts = []
    for _, cls in reversed(spans):
        parts += [svg.line(at, 14, at + 22, 14, cls), svg.label(at + 28, 18, say(names[cls]))]
        at += 100
    return parts


def changes(fit: LawFit, rec: Recommendation, replicates: Replicates | None, say: Language) -> str:
    """Return the plot of what the recommended mixture changes: a row a domain, L − L on the reference, its interval.

    Args:
        fit: Its fit.
        rec: The recommendation and its reference.
        replicates: For intervals; None: there are none.
        say: The page's language.
    """
    targets = list(fit.targets)
    off = {target: rec.predicted[target] - rec.reference_predicted[target] for target in targets}
    ends = None if replicates is None else replicates.change(rec.mixture, rec.reference, rec.volume)
    wide, left, right, row, top = 940.0, 210.0, 740.0, 24.0, 26.0
    bottom = top + row * len(targets)
    known = [*off.values(), *([] if ends is None else [*ends[0][targets], *ends[1][targets]])]
    x = svg.linear([0.0, *known], left, right, most=8, show=nats_tick)
    parts = [svg.label(932, top - 10, say(said("change, and 90 % interval")), cls="unit", anchor="end")]
    for tick in x.ticks:
        parts.append(svg.line(x.at(tick), top - 4, x.at(tick), bottom, "grid"))
        parts.append(svg.label(x.at(tick), bottom + 16, x.show(tick), anchor="middle"))
    parts.append(svg.line(x.at(0.0), top - 4, x.at(0.0), bottom, "axis"))
    for index, target in enumerate(targets):
        y = top + row * (index + 0.5)
        parts.append(svg.label(left - 14, y + 4, target, cls="name", anchor="end", most=23))
        if not np.isfinite(off[target]):
            parts.append(svg.label(932, y + 4, say(said("unknown")), cls="value", anchor="end"))
            continue
        text = nats(off[target])
        if ends is not None and np.isfinite([ends[0][target], ends[1][target]]).all():
            low, high = float(ends[0][target]), float(ends[1][target])
            parts.append(svg.line(x.at(low), y, x.at(high), y, "sure"))
            text = say(said("{change} ({low} to {high})", change=text, low=nats(low), high=nats(high)))
        parts.append(svg.circle(x.at(off[target]), y, 4.5, "chosen"))
        parts.append(svg.label(932, y + 4, text, cls="value", anchor="end"))
    title = say(
        said("predicted loss on the recommended mixture minus on the reference, nats per token: below 0 is better")
    )
    parts.append(svg.label((left + right) / 2, bottom + 34, title, cls="unit", anchor="middle"))
    each = ", ".join(f"{shorten(printable(target), 40)} {nats(value)}" for target, value in off.items())
    name = said("What the recommended mixture changes in each domain's predicted loss: {changes}", changes=each)
    return svg.picture(wide, bottom + 44, say(name), parts)


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
    weights = np.array([rec.weights[target] for target in fit.targets])
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
    x = svg.linear([*grid], _LEFT, _RIGHT, inside=(0, 1), show=percent_tick)
    y = svg.linear([0.0, top or 1e-3], _BOTTOM, _TOP, most=4)
    parts = heads(domain, "")
    if tolerance is not None:
        band = min(tolerance, y.high)
        parts.append(svg.rectangle(x.start, y.at(band), x.end, y.at(max(0.0, y.low)), "band"))
    titles = say(said("proportion, the others in the same ratios")), say(said("nats above the best"))
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
