"""The three figures, as inline SVG that takes its colours from the page: light, dark and print alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.decision import between
from bimix_tracking.law_fit import LawFit
from bimix_tracking.observations import Observations
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.report import svg
from bimix_tracking.report.numbers import about, nats, percent, printable, shorten, tokens, width

Array = npt.NDArray[np.float64]

SHADES = 6
"""How many shades the proportions of a domain are told apart by: the classes `s0` to `s5` of the page."""
MOST_CURVES = 60
"""How many fitted curves a panel bears; of more mixtures so many are picked, evenly in the proportion."""

_WIDE, _HIGH = 320.0, 236.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 308.0, 44.0, 194.0
_GRID = 24
_MOST_TIPS = 4000
"""A tooltip a point is most of the file; beyond this many points they are for a run, or left out."""


@dataclass(frozen=True)
class Curves:
    """Fitted losses of every mixture tried, along training; from `predict_curves`.

    Args:
        tokens: Shape (grid,).
        losses: Target → shape (mixtures, grid).
        shares: Target → its proportion in each of these mixtures.
    """

    tokens: Array
    losses: Mapping[str, Array]
    shares: Mapping[str, Array]


def predict_curves(obs: Observations, fit: LawFit) -> Curves:
    """Return the fitted curves of every distinct mixture, over the token counts observed.

    Args:
        obs: The sweep.
        fit: Its fit.
    """
    mixtures = obs.mixtures.loc[~obs.mixtures.round(6).duplicated()]
    grid = np.geomspace(fit.tokens[0], fit.tokens[1], _GRID)
    predicted = fit.predict(np.repeat(mixtures.to_numpy(float), _GRID, axis=0), np.tile(grid, len(mixtures)))
    return Curves(
        tokens=grid,
        losses={
            target: predicted[target].to_numpy(float).reshape(len(mixtures), _GRID)
            for target in fit.targets
            if target in fit.domains
        },
        shares={target: mixtures[target].to_numpy(float) for target in fit.targets if target in fit.domains},
    )


def training(obs: Observations, fit: LawFit, curves: Curves, target: str) -> str:
    """Return a panel of a domain: observed losses along training, the fitted curves of the mixtures over them.

    Args:
        obs: The sweep.
        fit: Its fit.
        curves: Of `predict_curves`.
        target: The domain.
    """
    table = obs.losses[obs.losses["domain"] == target]
    observed = table["loss"].to_numpy(float)
    shares, fitted = _one_a_share(curves.shares[target], curves.losses[target])
    fitted = _sane(fitted, observed)
    x = svg.logarithmic([*table["tokens"], *fit.tokens], _LEFT, _RIGHT, tokens)
    y = svg.linear([*observed, *fitted.ravel()], _BOTTOM, _TOP)
    own = obs.mixtures[target]
    low, high = float(own.min()), float(own.max())

    def shade(share: float) -> str:
        return f"s{_shade(share, low, high, fit.floor)}"

    said = f"proportion {about(low)}" + (f" to {about(high)}" if about(low) != about(high) else "")
    parts = [*_heads(target, said), *svg.frame(x, y, "training tokens, log scale", "loss, nats per token")]
    for share, losses in zip(shares, fitted, strict=True):
        at = [(x.at(t), y.at(v)) for t, v in zip(curves.tokens, losses, strict=True)]
        parts.append(svg.polyline(at, f"curve {shade(share)}"))
    single = len(obs.losses) <= _MOST_TIPS
    for run, of_run in table.groupby("run", sort=False):
        share = float(own[run])
        at = [(x.at(t), y.at(v)) for t, v in zip(of_run["tokens"], of_run["loss"], strict=True)]
        tip = f"{shorten(printable(str(run)), 60)}, proportion {percent(share)}"
        if single:
            tips = [f"{tip}: {nats(v)} at {tokens(t)} tokens" for t, v in zip(of_run.tokens, of_run.loss, strict=True)]
            parts += [svg.circle(*xy, 2.4, f"dot {shade(share)}", t) for xy, t in zip(at, tips, strict=True)]
        else:
            parts.append(_dots(at, f"dots {shade(share)}", tip))
    name = f"Loss of {target} against training tokens, {len(table)} points, with the fitted curves"
    return svg.picture(_WIDE, _HIGH, name, parts)


def response(obs: Observations, fit: LawFit, rec: Recommendation, target: str) -> str:
    """Return a panel of a domain: its loss at the last checkpoint of each run against its proportion there.

    The curve is the fit at the last of these token counts; runs that ended earlier are hollow. Its other domains are
    in the ratios of the recommended mixture.

    Args:
        obs: The sweep.
        fit: Its fit.
        rec: The recommendation, whose proportion is marked.
        target: The domain.
    """
    table = obs.losses[obs.losses["domain"] == target].drop_duplicates("run", keep="last")  # in order of tokens
    own = obs.mixtures[target].reindex(table["run"]).to_numpy(float)
    observed = table["loss"].to_numpy(float)
    last = float(table["tokens"].max())
    at_last = np.isclose(table["tokens"].to_numpy(float), last, rtol=1e-3)
    chosen = rec.mixture[target]
    grid = np.linspace(min(own.min(), chosen), max(own.max(), chosen), 2 * _GRID)
    fitted = _sane(_along(fit, rec, target, grid, last), observed)
    x = svg.linear([*own, chosen], _LEFT, _RIGHT, inside=(0, 1), show=_percent_tick)
    y = svg.linear([*observed, *fitted], _BOTTOM, _TOP)
    mark = x.at(chosen)
    # The mark's words stand above the frame, away from the points, and keep clear of both edges.
    words = f"recommended {about(chosen)}"
    half = 0.55 * width(words) * svg.DIGIT  # half of it, and bold is wider
    parts = [
        *_heads(target, ""),
        *svg.frame(x, y, "proportion of the domain", "loss, nats per token"),
        svg.line(mark, _TOP - 4, mark, _BOTTOM, "chosen-line"),
        svg.label(min(max(mark, half + 4), _WIDE - half - 4), _TOP - 9, words, cls="chosen-text", anchor="middle"),
        svg.polyline([(x.at(r), y.at(v)) for r, v in zip(grid, fitted, strict=True)], "curve fit"),
    ]
    room = _room_for_tips(obs, fit)
    rows = zip(table["run"], own, observed, table["tokens"], at_last, strict=True)
    for run, share, loss, seen, full in rows:
        tip = f"{shorten(printable(str(run)), 60)}: {nats(loss)} at proportion {percent(share)}, {tokens(seen)} tokens"
        parts.append(svg.circle(x.at(share), y.at(loss), 3, "dot own" if full else "dot hollow", tip if room else ""))
    name = (
        f"Loss of {target} against its proportion at {tokens(last)} tokens, {len(table)} runs; "
        f"recommended {percent(chosen)}"
    )
    return svg.picture(_WIDE, _HIGH, name, parts)


_SPANS = {"sure": "interval", "near": "nearly as good"}


def mixtures(obs: Observations, fit: LawFit, rec: Recommendation) -> str:
    """Return the strip plot: a row a domain, the proportions tried, the reference and the recommended one.

    Args:
        obs: The sweep.
        fit: Its fit, for the domains.
        rec: The recommendation and its reference.
    """
    wide, left, right, row, top = 940.0, 210.0, 740.0, 26.0, 54.0
    bottom = top + row * len(fit.domains)
    tried = obs.mixtures[list(fit.domains)].to_numpy(float)
    spans = [(table, cls) for table, cls in ((_extent(rec), "near"), (rec.interval, "sure")) if table is not None]
    values = [*tried.ravel(), *rec.mixture.values(), *rec.reference.values(), 0.0]
    values += [end for table, _ in spans for end in table.to_numpy(float).ravel()]
    x = svg.linear(values, left, right, most=8, inside=(0, 1), show=_percent_tick)
    parts = [
        svg.circle(left + 6, 14, 3.5, "tried"),
        svg.label(left + 16, 18, f"tried ({len(tried)} runs)"),
        svg.circle(left + 156, 14, 7, "reference"),
        svg.label(left + 170, 18, "reference"),
        svg.circle(left + 266, 14, 5, "chosen"),
        svg.label(left + 278, 18, "recommended"),
        *_span_keys(left + 376, spans),
        svg.label(830, top - 12, "recommended", cls="unit", anchor="end"),
        svg.label(932, top - 12, "reference", cls="unit", anchor="end"),
    ]
    for tick in x.ticks:
        parts.append(svg.line(x.at(tick), top - 6, x.at(tick), bottom, "grid"))
        parts.append(svg.label(x.at(tick), bottom + 16, x.show(tick), anchor="middle"))
    runs, room = obs.runs, _room_for_tips(obs, fit)
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
        parts.append(svg.circle(x.at(theirs), y, 7, "reference", f"reference: {percent(theirs)}"))
        parts.append(svg.circle(x.at(ours), y, 5, "chosen", f"recommended: {percent(ours)}"))
        parts.append(svg.label(830, y + 4, percent(ours), cls="value strong", anchor="end"))
        parts.append(svg.label(932, y + 4, percent(theirs), cls="value", anchor="end"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    parts.append(svg.label((left + right) / 2, bottom + 34, "proportion of the mixture", cls="unit", anchor="middle"))
    name = "Recommended proportions beside the reference and the proportions tried: " + ", ".join(
        f"{shorten(printable(domain), 40)} {percent(share)}" for domain, share in rec.mixture.items()
    )
    return svg.picture(wide, bottom + 44, name, parts)


def _extent(rec: Recommendation) -> pd.DataFrame | None:
    return None if rec.near_optimal is None else rec.near_optimal.extent


def _span_keys(at: float, spans: Sequence[tuple[pd.DataFrame, str]]) -> list[str]:
    parts = []
    for _, cls in reversed(spans):
        parts += [svg.line(at, 14, at + 22, 14, cls), svg.label(at + 28, 18, _SPANS[cls])]
        at += 100
    return parts


def _heads(target: str, said: str) -> list[str]:
    return [
        svg.label(_LEFT, 15, target, cls="head", most=27),
        *([svg.label(_LEFT, 31, said, cls="unit")] if said else []),
    ]


def _room_for_tips(obs: Observations, fit: LawFit) -> bool:
    return len(obs.runs) * len(fit.domains) <= _MOST_TIPS


def _percent_tick(value: float, decimals: int) -> str:
    return f"{100 * value:.{max(0, decimals - 2)}f} %"


def _dots(points: Sequence[tuple[float, float]], cls: str, tip: str) -> str:
    # Strokes of no length with round ends are dots: a tenth of the bytes of as many circles.
    path = "".join(f"M{svg.number(x)} {svg.number(y)}h0" for x, y in points)
    return f'<path class="{cls}" d="{path}"><title>{escape(tip)}</title></path>'


def _shade(share: float, low: float, high: float, floor: float) -> int:
    """Return the shade of a proportion: equal factors are equal steps, as they are in the law."""
    low, high, share = (math.log(max(value, floor)) for value in (low, high, share))
    if high - low < 1e-9:
        return SHADES - 1
    return min(SHADES - 1, int(SHADES * (share - low) / (high - low)))


def _one_a_share(shares: Array, losses: Array) -> tuple[Array, Array]:
    """Return one curve for each distinct proportion, at most so many, evenly picked."""
    _, first = np.unique(shares.round(6), return_index=True)
    if len(first) > MOST_CURVES:
        first = first[np.linspace(0, len(first) - 1, MOST_CURVES).round().astype(int)]
    return shares[first], losses[first]


def _sane(predicted: Array, observed: Array) -> Array:
    """Return predictions without those far off the points: a failed fit must not squeeze what was observed."""
    with np.errstate(invalid="ignore"):
        inside = (predicted > observed.min() / 1.5) & (predicted < observed.max() * 1.5)
    return np.where(inside, predicted, np.nan)


def _along(fit: LawFit, rec: Recommendation, target: str, grid: Array, volume: float) -> Array:
    """Return the predicted losses of a domain along its own proportion, the others in the recommended ratios."""
    shares = np.tile(rec.mixture.array(fit.domains), (len(grid), 1))
    column = fit.domains.index(target)
    rest = 1 - shares[:, column]
    shares *= np.where(rest > 0, (1 - grid) / np.where(rest > 0, rest, 1), 0)[:, None]
    shares[:, column] = grid
    predicted: pd.DataFrame = fit.predict(shares, volume)
    return predicted[target].to_numpy(float)
