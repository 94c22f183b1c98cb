"""W&B's history rows, from its server or from its files → the rows of a record, or histories by metric."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import INFINITE, LARGEST, REPEATED, Point
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.patterns import STEP_METRICS

STEP, TIME = "_step", "_timestamp"
"""W&B's own step, which counts calls and not optimizer steps, and when a row was made, seconds since 1970."""
MANIFEST = "bimix"
"""Key of a run's config that holds its manifest, the map slug → name, and what follows."""
KEY, HOST, FAILED = "key", "host", "failed"
"""In there: the training's key, the host's run beside which it is, and whether it failed in a run of the host's."""
_PREFIX = "bimix"
_DEEPEST, _MOST = 10, 10_000
_AGGREGATES = frozenset({"min", "max", "mean", "best", "last", "first"})
_STEPLESS = f"a row has no finite {metric_names.STEP!r}"


def leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Return what a metric's value holds, by name: of nested dictionaries, dotted names as W&B shows them.

    SDKs before 0.19 write a dictionary whole. Pictures, tables and histograms are dictionaries too, and no numbers.

    >>> list(leaves("eval", {"code": {"loss": 2.5}, "n": 3, "chart": {"_type": "table-file", "size": 9}}))
    [('eval.code.loss', 2.5), ('eval.n', 3)]
    """
    return itertools.islice(_leaves(name, value, 1), _MOST)


def _leaves(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield name, value
    elif "_type" not in value and depth < _DEEPEST:
        for inner, below in value.items():
            yield from _leaves(f"{name}.{inner}", below, depth + 1)


def summary_values(summary: Mapping[str, Any]) -> dict[str, object]:
    """Return the last values of a run's metrics by name, nested ones too, and without W&B's own.

    A metric that is summed up by its least, largest or mean value is there by its name; its last value may not be.

    >>> summary_values({"loss": {"min": 1.0, "last": 2.0}, "acc": {"max": 1.0}, "eval": {"web": 3.0}, "_step": 9})
    {'loss': 2.0, 'acc': None, 'eval.web': 3.0}
    """
    found: dict[str, object] = {}
    for name, value in summary.items():
        if name[:1] == "_":
            continue
        if isinstance(value, Mapping) and value and _AGGREGATES.issuperset(value):
            found[name] = value.get("last")
        else:
            found.update(leaves(name, value))
    return found


def is_ours(metric: str) -> bool:
    """Return whether `own_rows` has a use for a metric.

    >>> is_ours("bimix_eval_loss/web"), is_ours("train/loss")
    (True, False)
    """
    return metric.startswith(_PREFIX) or metric == TIME


def manifest_of(fields: Mapping[str, Any]) -> RunManifest:
    """Read a manifest from a run's config; W&B keeps no order of a mapping's names, so the domains' is taken.

    Raises:
        BimixError: It is none.

    >>> fields = {"domains": ["web", "code"], "mixture": {"code": 0.25, "web": 0.75}}
    >>> manifest_of(fields).mixture.domains
    ('web', 'code')
    """
    manifest = RunManifest.from_dict(fields)
    if manifest.mixture is None:
        return manifest
    mixture = manifest.mixture
    ordered = Mixture({domain: mixture[domain] for domain in manifest.domains if domain in mixture})
    return dataclasses.replace(manifest, mixture=ordered)


def has_failed(fields: object) -> bool:
    """Return whether a run's config says that its training failed, however its owner has ended the run.

    >>> has_failed({"domains": ["web"], "failed": True}), has_failed({"domains": ["web"]}), has_failed(None)
    (True, False, False)
    """
    return isinstance(fields, Mapping) and fields.get(FAILED) is True


def own_rows(rows: Iterable[Mapping[str, float]]) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Return one row a `bimix/step`, in order, of what our tracker logged, and what was mended: reason → count.

    Of two values of a step the one counts that was made later, by `bimix/time`, else by W&B's own clock; of one time,
    the one that comes later.

    >>> own_rows([{"bimix/step": 1, "bimix/time": 9, "x": 3}, {"bimix/step": 1, "bimix/time": 5, "x": 2, "y": 4}])
    ([{'bimix/step': 1, 'bimix/time': 9, 'x': 3, 'y': 4}], {'a value of a step that was logged again, by a resumed run
    or a replay: the newest counts': 1})
    """
    counts: dict[str, int] = {}
    found = []
    for row in rows:
        if math.isfinite(row.get(metric_names.STEP, math.nan)):
            found.append(row)
        elif any(metric.startswith(_PREFIX) for metric in row):
            counts[_STEPLESS] = counts.get(_STEPLESS, 0) + 1
    found.sort(key=_made)
    by_step: dict[float, dict[str, float]] = {}
    for row in found:
        known = by_step.get(row[metric_names.STEP])
        if known is None:
            by_step[row[metric_names.STEP]] = dict(row)
        else:
            again = sum(
                _differ(known[m], row[m]) for m in row if m in known and m not in (metric_names.TIME, TIME, STEP)
            )
            if again:
                counts[REPEATED] = counts.get(REPEATED, 0) + again
            known.update(row)
    for row in by_step.values():
        row.pop(TIME, None)
        row.pop(STEP, None)
        if not math.isfinite(sum(row.values())):
            infinite = sum(map(math.isinf, row.values()))
            counts[INFINITE] = counts.get(INFINITE, 0) + infinite
    if not counts.get(INFINITE, 1):
        del counts[INFINITE]
    return [by_step[step] for step in sorted(by_step)], counts


def histories(parts: Iterable[Sequence[Mapping[str, float]]], metrics: Iterable[str]) -> dict[str, list[Point]]:
    """Return the points of some metrics of a run, of which each process that logged into it wrote a part.

    A process that goes on with a run offline counts W&B's steps from 0 again. Where the run logs a step of its own,
    that is what counts, and the parts are put after one another; else what was made later counts, see `rows_of`.

    Args:
        parts: Rows in the order of the processes, each row in the order in which it was logged.
        metrics: Names.

    >>> histories([[{"_step": 0, "_timestamp": 5.0, "eval/web_loss": 3.0}]], ["eval/web_loss"])
    {'eval/web_loss': [(0.0, 5.0, 3.0)]}
    """
    points: dict[str, list[Point]] = {metric: [] for metric in metrics}
    own_step = any(metric in STEP_METRICS for metric in points)
    first = 0.0
    for rows in parts:
        last = first
        for place, row in enumerate(rows):
            step = row.get(STEP, float(place)) + first
            last = max(last, step + 1)
            for metric in points.keys() & row.keys():
                points[metric].append((step, row.get(TIME, 0.0), row[metric]))
        if own_step:
            first = last
    return {metric: series for metric, series in points.items() if series}


def _made(row: Mapping[str, float]) -> float:
    made = row.get(metric_names.TIME, row.get(TIME, 0.0))
    return made if math.isfinite(made) else 0.0


def _differ(one: float, other: float) -> bool:
    return one != other and not (math.isnan(one) and math.isnan(other)) and abs(one) < LARGEST
