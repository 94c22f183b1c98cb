"""Predicted against observed values of held-out mixtures, a panel a target; SVG in the page's colours."""

from __future__ import annotations

import pandas as pd

from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.observations import Observations
from bimix_tracking.display import svg
from bimix_tracking.display.texts import printable, shorten
from bimix_tracking.messages import said
from bimix_tracking.quantities import percent
from bimix_tracking.report.language import Language
from bimix_tracking.report.panels.marks import MOST_TIPS, Marks, dots
from bimix_tracking.report.value_axes import BOTTOM, HIGH, LEFT, RIGHT, TOP, WIDE, value_ticks
from bimix_tracking.selection.cross_validation import Validation


def held_out_panels(found: Validation, obs: Observations, say: Language) -> list[str]:
    """Return a panel of the weighted sum that is minimised, then one a domain: a dot a run, at its last checkpoint.

    Args:
        found: The held-out predictions.
        obs: The sweep, for the units of its targets and the model sizes of its runs.
        say: The page's language.
    """
    sums, marks = found.last_sums(), Marks(obs)
    result = []
    if len(sums) > 1:
        name = said("Objective, lower is better") if obs.links else said("Weighted sum")
        result.append(_held_out(say(name), sums, IDENTITY, marks, say, tips=True))
    last = found.predictions[
        found.predictions["tokens"] == found.predictions.groupby(["run", "domain"])["tokens"].transform("max")
    ]
    tips = len(last) <= MOST_TIPS
    for domain, table in last.groupby("domain", sort=False):
        values = table.set_index("run")[["observed", "predicted"]]
        link = obs.link(str(domain))
        result.append(_held_out(str(domain), values.apply(link.value), link, marks, say, tips=tips))
    return result


def _held_out(name: str, table: pd.DataFrame, link: Link, marks: Marks, say: Language, *, tips: bool) -> str:
    observed, predicted = (table[column].to_numpy(float) for column in ("observed", "predicted"))
    values = [*observed, *predicted]
    show = value_ticks(link)
    x, y = svg.linear(values, LEFT, RIGHT, show=show), svg.linear(values, BOTTOM, TOP, show=show)
    # Of an accuracy, or a score, which may be 0, only a difference says how far a prediction is off.
    off = percent(float((abs(predicted / observed - 1)).mean()))
    if not link.identity:
        off = link.shown_change(float(abs(predicted - observed).mean())).removeprefix("+")
    parts = [
        svg.label(LEFT, 15, name, cls="head", most=27),
        *svg.frame(x, y, say(said("observed")), say(said("predicted"))),
        # Where a prediction would be right.
        svg.line(
            x.at(max(x.low, y.low)),
            y.at(max(x.low, y.low)),
            x.at(min(x.high, y.high)),
            y.at(min(x.high, y.high)),
            "axis",
        ),
    ]
    at = [(x.at(o), y.at(p)) for o, p in zip(observed, predicted, strict=True)]
    if tips:
        for place, run, o, p in zip(at, table.index, observed, predicted, strict=True):
            tip = said(
                "{run}: observed {observed}, predicted {predicted}",
                run=shorten(printable(str(run)), 60),
                observed=link.shown(o),
                predicted=link.shown(p),
            )
            parts.append(marks.one(*place, 3, "dot own", say(tip), run))
    else:
        parts.append(dots(at, "dots s3", ""))
    title = said(
        "Held out: predicted against observed {name}, {runs} runs, error {error}",
        name=name,
        runs=len(table),
        error=off,
    )
    return svg.picture(WIDE, HIGH, say(title), parts)
