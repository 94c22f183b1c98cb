"""Metric histories as a tracker keeps them → rows: one value a step, the newest; what was mended is counted.

A history is what every tracker has: points (step, time, value) by metric. After a resume a step is there twice; SQL
stores have no infinity, and JSON no number that is none. What is made of it is the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from bimix_tracking import keys

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
    rows: dict[float, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for metric, points in history.items():
        ordered = sorted(points)  # by step, then time: of a step, the newest comes last
        for step, _, value in ordered:
            row = rows.get(step)
            if row is None:
                row = rows[step] = {keys.STEP: float(step)}
            if metric in row and metric != keys.STEP and row[metric] != value:
                counts[REPEATED] = counts.get(REPEATED, 0) + 1
            if abs(value) > LARGEST:
                counts[INFINITE] = counts.get(INFINITE, 0) + 1
                row[metric] = math.copysign(math.inf, value)
            else:
                row[metric] = value
    return [rows[step] for step in sorted(rows)], counts


def number(value: object) -> float:
    """Return a tracker's JSON value as a number; what is none, is NaN.

    >>> number("Infinity"), number(3), number("NaN"), number({"a": 1})
    (inf, 3.0, nan, nan)
    """
    try:
        return float(value)  # type: ignore[arg-type]  # that is the question
    except (TypeError, ValueError, OverflowError):
        return math.nan


def as_of(points: Sequence[Point], step: float) -> float | None:
    """Return the newest value at or before a step; None where there is none."""
    known = [point for point in points if point[0] <= step]
    return max(known)[2] if known else None
