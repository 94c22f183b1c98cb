"""A foreign run's metrics as series under our names, each point with the step and the tokens that it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import Point
from bimix_tracking.tracking.other_tools.patterns import STEP_METRICS
from bimix_tracking.tracking.other_tools.tasks import Tasks
from bimix_tracking.tracking.other_tools.volume import EARLIER, AsOf, Volume, last_points


def with_tasks(
    keys: Mapping[str, str], history: Mapping[str, Sequence[Point]], tasks: Tasks
) -> tuple[dict[str, str], dict[str, Sequence[Point]]]:
    """Return metric → our name, of losses and of tasks, and the history with the tasks' values and questions in it."""
    ours, points = dict(keys), dict(history)
    for metric, one in tasks.metrics.items():
        ours[metric] = metric_names.key(metric_names.TARGET, one.target.name)
        points[metric] = [(place, time, one.value(value)) for place, time, value in history[metric]]
        counts = one.counts(history, metric)
        if counts:
            ours[f"{metric} questions"] = metric_names.key(metric_names.QUESTIONS, one.target.name)
            points[f"{metric} questions"] = counts
    return ours, points


def series_of(
    keys: Mapping[str, str], history: Mapping[str, Sequence[Point]], volume: Volume
) -> tuple[dict[str, list[Point]], dict[str, int], int]:
    """Return points by our names, what is excluded, and how many token counts are older than their evaluation."""
    step_metric = next((metric for metric in STEP_METRICS if metric in history), None)
    steps = None if step_metric is None else AsOf(history[step_metric])
    whole, tokens = volume.whole, None if volume.metric is None else AsOf(history[volume.metric])
    last = {} if whole is None else last_points(history, keys)
    series: dict[str, list[Point]] = {metric_names.TOKENS: []}
    stepless = late = earlier = 0
    for metric, key in keys.items():
        of_key = series.setdefault(key, [])
        counts = metric_names.is_value(key)
        for place, time, value in history[metric]:
            at = (place, place) if steps is None else steps.at(place)
            if whole is not None and (place, time, value) != last.get(metric):
                earlier += counts
                continue
            if at is None and whole is None:
                stepless += counts
                continue
            step = place if at is None else at[1]
            of_key.append((step, time, value))
            if whole is not None:
                series[metric_names.TOKENS].append((step, time, whole))
            elif volume.per_step is not None:
                series[metric_names.TOKENS].append((step, time, step * volume.per_step))
            elif tokens is not None and (seen := tokens.at(place)) is not None:
                series[metric_names.TOKENS].append((step, time, seen[1]))
                counted_at = (seen[0], seen[0]) if steps is None else steps.at(seen[0])
                late += counts and (counted_at is None or counted_at[1] < step)
    excluded = {f"a loss before the first {step_metric!r}, at an unknown step": stepless} if stepless else {}
    return series, excluded | ({EARLIER: earlier} if earlier else {}), late
