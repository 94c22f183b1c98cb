"""What was observed against what is predicted: along training, and by proportion; SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.display import svg
from bimix_tracking.display.texts import printable, shorten, width
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about, percent, tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.language import Language
from bimix_tracking.report.panels.marks import MOST_TIPS, Marks
from bimix_tracking.report.value_axes import (
    BOTTOM,
    HIGH,
    LEFT,
    RIGHT,
    TOP,
    WIDE,
    measured,
    value_axis,
    value_title,
)

Array = npt.NDArray[np.float64]

SHADES = 6
"""How many shades the proportions of a domain are told apart by: the classes `s0` to `s5` of the page."""
MOST_CURVES = 60
"""How many fitted curves a panel bears; of more mixtures so many are picked, evenly in the proportion."""

_GRID = 24


@dataclass(frozen=True)
class Curves:
    """Fitted losses of every mixture tried, along training; from `predict_curves`.

    Args:
        tokens: Shape (grid,).
        losses: Target → its values, in its own unit, shape (mixtures, grid).
        mixtures: One a row.
    """

    tokens: Array
    losses: Mapping[str, Array]
    mixtures: pd.DataFrame


def predict_curves(obs: Observations, fit: LawFit) -> Curves:
    """Return the fitted curves of every distinct mixture, over the token counts observed.

    Args:
        obs: The sweep.
        fit: Its fit.
    """
    mixtures = obs.mixtures.loc[~obs.mixtures.round(6).duplicated()]
    grid = np.geomspace(fit.tokens[0], fit.tokens[1], _GRID)
    predicted = fit.surface(mixtures.to_numpy(float), grid[None])
    predicted = np.where(fit.known_at(grid).T[:, None, :], predicted, np.nan)
    return Curves(
        tokens=grid,
        losses={
            target: fit.link(target).value(of_target) for target, of_target in zip(fit.targets, predicted, strict=True)
        },
        mixtures=mixtures,
    )


def movers(fit: LawFit, rec: Recommendation | None) -> dict[str, str]:
    """Return by target the domain that its panels are by: its own, else the one whose proportion moves it most.

    Args:
        fit: The fit.
        rec: The recommendation, about which proportions are moved; None: equal parts.
    """
    found = {target: target for target in fit.targets if target in fit.domains}
    outside = [target for target in fit.targets if target not in found]
    if outside:
        middle = Mixture.uniform(fit.domains) if rec is None else rec.mixture
        volume = fit.tokens[1] if rec is None else rec.volume
        extent = {}
        for domain in fit.domains:
            low, high = fit.tried(domain)
            grid = np.linspace(max(low, fit.floor), max(high, fit.floor), 5)
            extent[domain] = np.log(along(fit, middle, grid, domain, volume)).std()
        for target in outside:
            found[target] = max(fit.domains, key=lambda domain: np.nan_to_num(extent[domain][target]))
    return found


def training(obs: Observations, fit: LawFit, curves: Curves, target: str, domain: str, say: Language) -> str:
    """Return a panel of a target: its values along training, the fitted curves of the mixtures over them.

    Args:
        obs: The sweep.
        fit: Its fit.
        curves: Of `predict_curves`.
        target: The target.
        domain: By whose proportion curves and dots are shaded.
        say: The page's language.
    """
    table = measured(obs, target)
    observed = table["loss"].to_numpy(float)
    link = fit.link(target)
    shares, fitted = _one_a_share(curves.mixtures[domain].to_numpy(float), curves.losses[target])
    fitted = sane(fitted, observed)
    x = svg.logarithmic([*table["tokens"], *fit.tokens], LEFT, RIGHT, lambda at: say(tokens(at)))
    y = value_axis(link, [*observed, *fitted.ravel()])
    own = obs.mixtures[domain]
    low, high = float(own.min()), float(own.max())

    def shade(share: float) -> str:
        return f"s{_shade(share, low, high, fit.floor)}"

    titles = say(said("tokens")), value_title(obs, target, say)
    parts = [*heads(target), *svg.frame(x, y, *titles)]
    for share, losses in zip(shares, fitted, strict=True):
        at = [(x.at(t), y.at(v)) for t, v in zip(curves.tokens, losses, strict=True)]
        parts.append(svg.polyline(at, f"curve {shade(share)}"))
    single, marks = len(obs.losses) <= MOST_TIPS, Marks(obs)
    for run, of_run in table.groupby("run", sort=False):
        share = float(own[run])
        at = [(x.at(t), y.at(v)) for t, v in zip(of_run["tokens"], of_run["loss"], strict=True)]
        name = shorten(printable(str(run)), 60)
        tip = say(said("{run}, proportion {share}", run=name, share=percent(share)))
        if single:
            points = zip(of_run.tokens, of_run.loss, strict=True)
            tips = [
                say(said("{what}: {loss} at {tokens} tokens", what=tip, loss=link.shown(v), tokens=tokens(t)))
                for t, v in points
            ]
            dot = f"dot {shade(share)}"
            parts += [marks.one(*xy, 2.4, dot, t, run) for xy, t in zip(at, tips, strict=True)]
        else:
            parts.append(marks.many(at, f"dots {shade(share)}", tip, run))
    title = said(
        "Values of {domain} against training tokens, {points} points, with the fitted curves",
        domain=target,
        points=len(table),
    )
    return svg.picture(WIDE, HIGH, say(title), parts)


def response(obs: Observations, fit: LawFit, rec: Recommendation, target: str, domain: str, say: Language) -> str:
    """Return a panel of a target: its value at the last checkpoint of each run against a domain's proportion there.

    The curve is the fit at the last of these token counts; runs that ended earlier are hollow. Its other domains are
    in the ratios of the recommended mixture. On log axes a power law in the proportion is a straight line. A proportion
    of 0 stands at the law's floor.

    Args:
        obs: The sweep.
        fit: Its fit.
        rec: The recommendation, whose proportion is marked.
        target: The target.
        domain: Whose proportion.
        say: The page's language.
    """
    table = measured(obs, target).drop_duplicates("run", keep="last")  # in order of tokens
    link = fit.link(target)
    own = np.maximum(obs.mixtures[domain].reindex(table["run"]).to_numpy(float), fit.floor)
    observed = table["loss"].to_numpy(float)
    last = float(table["tokens"].max())
    at_last = np.isclose(table["tokens"].to_numpy(float), last, rtol=1e-3)
    chosen = max(rec.mixture[domain], fit.floor)
    grid = np.geomspace(min(own.min(), chosen), max(own.max(), chosen), 2 * _GRID).clip(max=1.0)
    fitted = sane(link.value(along(fit, rec.mixture, grid, domain, last)[target].to_numpy(float)), observed)
    x = svg.logarithmic([*own, chosen], LEFT, RIGHT, lambda share: say(about(share)))
    y = value_axis(link, [*observed, *fitted])
    mark = x.at(chosen)
    # The mark's words stand above the frame, away from the points, and keep clear of both edges.
    words = say(about(rec.mixture[domain]))
    half = 0.55 * width(words) * svg.DIGIT  # half of it, and bold is wider
    parts = [
        *heads(target),
        *svg.frame(x, y, say(_proportion_of(target, domain)), value_title(obs, target, say)),
        svg.line(mark, TOP - 4, mark, BOTTOM, "chosen-line"),
        svg.label(min(max(mark, half + 4), WIDE - half - 4), TOP - 9, words, cls="chosen-text", anchor="middle"),
        svg.polyline([(x.at(r), y.at(v)) for r, v in zip(grid, fitted, strict=True)], "curve fit"),
    ]
    room, marks = room_for_tips(obs, fit), Marks(obs)
    rows = zip(table["run"], own, observed, table["tokens"], at_last, strict=True)
    for run, share, loss, seen, full in rows:
        tip = said(
            "{run}: {loss} at proportion {share}, {tokens} tokens",
            run=shorten(printable(str(run)), 60),
            loss=link.shown(loss),
            share=percent(share),
            tokens=tokens(seen),
        )
        dot = "dot own" if full else "dot hollow"
        parts.append(marks.one(x.at(share), y.at(loss), 3, dot, say(tip) if room else "", run))
    title = said(
        "{target} against the proportion of {domain} at {tokens} tokens, {runs} runs; recommended {share}",
        target=target,
        domain=domain,
        tokens=tokens(last),
        runs=len(table),
        share=percent(rec.mixture[domain]),
    )
    return svg.picture(WIDE, HIGH, say(title), parts)


def heads(target: str) -> list[str]:
    """Return a panel's heading."""
    return [svg.label(LEFT, 15, target, cls="head", most=27)]


def _proportion_of(target: str, domain: str) -> str:
    if domain == target:
        return said("proportion")
    return said("proportion of {domain}", domain=shorten(printable(domain), 24))


def room_for_tips(obs: Observations, fit: LawFit) -> bool:
    """Return whether each dot may have a tooltip."""
    return len(obs.runs) * len(fit.targets) <= MOST_TIPS


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


def sane(predicted: Array, observed: Array) -> Array:
    """Return predictions without those far off the points: a failed fit must not squeeze what was observed."""
    low, high = float(observed.min()), float(observed.max())
    far = 0.5 * max(abs(low), abs(high))
    with np.errstate(invalid="ignore"):
        inside = (predicted > low - far) & (predicted < high + far)
    return np.where(inside, predicted, np.nan)


def along(fit: LawFit, mixture: Mixture, grid: Array, domain: str, volume: float) -> pd.DataFrame:
    """Return the predicted losses along a domain's proportion, the others in the ratios of a mixture.

    Args:
        fit: The fit.
        mixture: The mixture.
        grid: Proportions of the domain.
        domain: Which.
        volume: Data volume s.
    """
    shares = np.tile(mixture.array(fit.domains), (len(grid), 1))
    column = fit.domains.index(domain)
    rest = 1 - shares[:, column]
    shares *= np.where(rest > 0, (1 - grid) / np.where(rest > 0, rest, 1), 0)[:, None]
    shares[:, column] = grid
    predicted: pd.DataFrame = fit.losses(shares, volume)
    return predicted
