"""Points → rows: the newest value of a step, infinities mended, all of it counted."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import INFINITE, REPEATED, Point, number, rows_of

values = st.one_of(st.floats(-10, 10), st.sampled_from([math.nan, math.inf, 1.797e308, -1.797e308]))
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), values), max_size=12)


@given(st.dictionaries(st.sampled_from(["a/x", "a/y", "b"]), points))
def test_rows_are_the_newest_value_of_each_step(history: dict[str, list[Point]]) -> None:
    rows, counts = rows_of(history)

    assert [row[metric_names.STEP] for row in rows] == sorted({p[0] for found in history.values() for p in found})
    again = infinite = 0
    for metric, found in history.items():
        for step in {point[0] for point in found}:
            ordered = [value for at, _, value in sorted(found) if at == step]
            newest = ordered[-1]
            (row,) = [row for row in rows if row[metric_names.STEP] == step]
            if abs(newest) > 1e300:
                infinite += 1
                newest = math.copysign(math.inf, newest)
            assert row[metric] == newest or (math.isnan(row[metric]) and math.isnan(newest))
            again += sum(value != ordered[-1] for value in ordered) if len(found) > len({p[0] for p in found}) else 0
    assert counts.get(INFINITE, 0) == infinite
    assert counts.get(REPEATED, 0) == again


def test_a_point_sent_twice_is_no_repetition() -> None:
    assert rows_of({"a": [(1, 5.0, 2.0), (1, 5.0, 2.0)]}) == ([{metric_names.STEP: 1.0, "a": 2.0}], {})


def test_what_a_tracker_calls_a_number() -> None:
    assert number("-Infinity") == -math.inf
    assert number("1e3") == 1000
    assert math.isnan(number(None))
    assert math.isnan(number([1]))
