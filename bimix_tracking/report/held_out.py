"""Predicted against observed, on held-out mixtures."""

from __future__ import annotations

import pandas as pd

from bimix_tracking.messages import said
from bimix_tracking.quantities import nats, percent
from bimix_tracking.report import svg
from bimix_tracking.report.figures import dots
from bimix_tracking.report.language import Language
from bimix_tracking.report.texts import printable, shorten
from bimix_tracking.selection.cross_validation import Validation

_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 320.0, 246.0, 52.0, 308.0, 44.0, 204.0
_MOST_TIPS = 4000


def panels(found: Validation, say: Language) -> list[str]:
    """Return a panel of the weighted sum that is minimised, then one a domain: a dot a run, at its last checkpoint.

    Args:
        found: The held-out predictions.
        say: The page's language.
    """
    sums = found.last_sums()
    result = []
    if len(sums) > 1:
        result.append(_panel(say(said("Weighted sum")), sums, say, tips=True))
    last = found.predictions[
        found.predictions["tokens"] == found.predictions.groupby(["run", "domain"])["tokens"].transform("max")
    ]
    tips = len(last) <= _MOST_TIPS
    for domain, table in last.groupby("domain", sort=False):
        result.append(_panel(str(domain), table.set_index("run")[["observed", "predicted"]], say, tips=tips))
    return result


def _panel(name: str, table: pd.DataFrame, say: Language, *, tips: bool) -> str:
    observed, predicted = (table[column].to_numpy(float) for column in ("observed", "predicted"))
    values = [*observed, *predicted]
    x, y = svg.linear(values, _LEFT, _RIGHT), svg.linear(values, _BOTTOM, _TOP)
    off = float((abs(predicted / observed - 1)).mean())
    parts = [
        svg.label(_LEFT, 15, name, cls="head", most=27),
        svg.label(_LEFT, 31, say(said("error {error}", error=percent(off))), cls="unit"),
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
                observed=nats(o),
                predicted=nats(p),
            )
            parts.append(svg.circle(*place, 3, "dot own", say(tip)))
    else:
        parts.append(dots(at, "dots s3", ""))
    title = said(
        "Held out: predicted against observed loss of {name}, {runs} runs, error {error}",
        name=name,
        runs=len(table),
        error=percent(off),
    )
    return svg.picture(_WIDE, _HIGH, say(title), parts)
