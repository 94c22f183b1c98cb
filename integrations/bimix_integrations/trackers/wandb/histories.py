"""Histories of a run at W&B's server, whole: never the sampled ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wandb.apis.public.runs import Run

from bimix_integrations.trackers.wandb.rows import leaves, own_rows
from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import number

PAGE = 2000
"""Steps of a page."""


def scanned(run: Run, wanted: Callable[[str], bool], *, fresh: bool = False) -> list[dict[str, float]]:
    """Return the numbers of some metrics, row by row as they were logged.

    Without keys: asked for some, W&B leaves out each row that hasn't got all of them, and an evaluation without tokens
    of one domain is such a row.

    Args:
        run: As the public API gives it.
        wanted: Whether a metric of that name is wanted.
        fresh: Whether W&B's own cache of histories is passed by.
    """
    rows = []
    for row in run.scan_history(page_size=PAGE, use_cache=not fresh):
        numbers: dict[str, float] = {}
        for name, value in row.items():
            if isinstance(value, Mapping):
                numbers |= {inner: number(below) for inner, below in leaves(name, value) if wanted(inner)}
            elif wanted(name):
                numbers[name] = number(value)
        if numbers:
            rows.append(numbers)
    return rows


def evaluations(rows: Iterable[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Return the rows of `own_rows` that have an evaluation."""
    return [row for row in own_rows(rows)[0] if metric_names.has_evaluation(row)]


def misses(rows: Iterable[Mapping[str, float]], summary: Mapping[str, Any]) -> list[str]:
    """Return the evaluations whose latest value, as the run's summary says, is not among the rows.

    >>> misses([{"bimix_eval_loss/web": 3.0}], {"bimix_eval_loss/web": 2.5, "loss": 1.0})
    ['bimix_eval_loss/web']
    """
    latest = {name: number(value) for name, value in summary.items() if metric_names.is_evaluation(name)}
    open_ = dict(latest)
    for row in rows:
        for name in [name for name in open_ if name in row and _same(row[name], open_[name])]:
            del open_[name]
    return list(open_)


def ends_with(rows: Iterable[Mapping[str, float]], summary: Mapping[str, Any]) -> bool:
    """Return whether the last evaluation of the rows is the run's last, as its summary says."""
    last: dict[str, float] = {}
    for row in rows:
        last.update({name: value for name, value in row.items() if metric_names.is_evaluation(name)})
    latest = {name: number(value) for name, value in summary.items() if metric_names.is_evaluation(name)}
    return last.keys() == latest.keys() and all(_same(last[name], latest[name]) for name in last)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
