"""Metric histories as a tracker keeps them → rows: one value a step, the newest; what was mended is counted.

A history is what every tracker has: points (step, time, value) by metric. After a resume a step is there twice; SQL
stores have no infinity, and JSON no number that is none. What is made of it is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bimix_tracking.data import metric_names

Point = tuple[float, float, float]
"""A metric's (step, time, value); the time is of any unit, and orders values of a step."""

LARGEST = 1e300
"""SQL stores keep ±infinity as ±1.797e308."""
REPEATED = "a value of a step that was logged again, by a resumed run or a replay: the newest counts"
INFINITE = "a value was infinite"


def rows_of(history: Mapping[str, Iterable[Point]]) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Return one row a step, in order, and what was mended: reason → count.

    >>> rows_of({"loss": [(1, 0.0, 3.0), (2, 5.0, 2.0), (2, 9.0, 2.5)]})[0]
    [{'bimix/step': 1.0, 'loss': 3.0}, {'bimix/step': 2.0, 'loss': 2.5}]
    """
    counts: dict[str, int] = {}
    values_of: dict[str, tuple[float, ...]] = {}
    # Metrics of one row have the same steps as a rule: then whole rows are made at once, not value by value.
    alike: dict[tuple[float, ...], list[str]] = {}
    for metric, points in history.items():
        steps, values = _columns(points, counts)
        values_of[metric] = values
        alike.setdefault(steps, []).append(metric)
    rows: dict[float, dict[str, float]] = {}
    for steps, metrics in alike.items():
        for step, values in zip(steps, zip(*(values_of[metric] for metric in metrics), strict=True), strict=True):
            row = rows.get(step)
            if row is None:
                row = rows[step] = {metric_names.STEP: float(step)}
            row.update(zip(metrics, values, strict=True))
    return [rows[step] for step in sorted(rows)], counts


def _columns(points: Iterable[Point], counts: dict[str, int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the steps, each once, and their newest values."""
    ordered = sorted(points)  # by step, then time: of a step, the newest comes last
    if not ordered:
        return (), ()
    steps, _, values = zip(*ordered, strict=True)
    newest = dict(zip(steps, values, strict=True))
    if len(newest) < len(steps):
        again = sum(value != newest[step] for step, value in zip(steps, values, strict=True))
        if again:
            counts[REPEATED] = counts.get(REPEATED, 0) + again
        steps, values = tuple(newest), tuple(newest.values())
    if not all(map(LARGEST.__gt__, map(abs, values))):  # something is infinite, or no number
        infinite = [abs(value) > LARGEST for value in values]
        if any(infinite):
            counts[INFINITE] = counts.get(INFINITE, 0) + sum(infinite)
        values = tuple(math.copysign(math.inf, v) if large else v for v, large in zip(values, infinite, strict=True))
    return steps, values


def number(value: object) -> float:
    """Return a tracker's JSON value as a number; what is none, is NaN.

    >>> number("Infinity"), number(3), number("NaN"), number({"a": 1})
    (inf, 3.0, nan, nan)
    """
    try:
        return float(value)  # type: ignore[arg-type]  # that is the question
    except (TypeError, ValueError, OverflowError):
        return math.nan
