"""Metric histories over HTTP, many runs a request: the endpoint of MLflow's own UI, in windows that it cannot cut.

`get-history-bulk` returns 25,000 points at most, in the order of run ids, and says nothing of the rest. So a window
that came back full is halved; a run that fills one alone is left to be read page by page. The caller checks each run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.rest_utils import http_request

from bimix_integrations.trackers.mlflow.stores.reading import Histories
from bimix_tracking.data.histories import Point, number

_ENDPOINT = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_MOST_POINTS = 25_000
_MOST_RUNS = 100
_THREADS = 4


class NoBulkError(Exception):
    """The server has no such endpoint, or answers it in another form."""


def read(client: MlflowClient, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
    """Return the points of some metrics of some runs; a run whose metric isn't there has to be read another way.

    Raises:
        NoBulkError: The server is one of those that lack the endpoint.
    """
    windows = [
        (list(run_ids[first : first + _MOST_RUNS]), metric)
        for metric in metrics
        for first in range(0, len(run_ids), _MOST_RUNS)
    ]
    found: Histories = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for window, points in zip(windows, pool.map(lambda w: dict(_window(client, *w)), windows), strict=True):
            for run_id, history in points.items():
                found.setdefault(run_id, {})[window[1]] = history
    return found


def _window(client: MlflowClient, run_ids: list[str], metric: str) -> Iterator[tuple[str, list[Point]]]:
    rows = _ask(client, run_ids, metric)
    if len(rows) < _MOST_POINTS:
        found: dict[str, list[Point]] = {run_id: [] for run_id in run_ids}
        for run_id, point in rows:
            found.setdefault(run_id, []).append(point)
        yield from found.items()
    elif len(run_ids) > 1:
        half = len(run_ids) // 2
        yield from _window(client, run_ids[:half], metric)
        yield from _window(client, run_ids[half:], metric)


def _ask(client: MlflowClient, run_ids: list[str], metric: str) -> list[tuple[str, Point]]:
    # MLflow's own way to its server, with whatever tokens the environment has: it has no public one.
    credentials = client._tracking_client.store.get_host_creds()  # noqa: SLF001
    asked = {"run_id": run_ids, "metric_key": metric, "max_results": _MOST_POINTS}
    try:
        answer = http_request(credentials, _ENDPOINT, "GET", params=asked)
        if answer.status_code != 200:
            raise NoBulkError(f"HTTP {answer.status_code}")
        return [
            (str(m["run_id"]), (int(m["step"]), int(m["timestamp"]), number(m["value"])))
            for m in answer.json()["metrics"]
        ]
    except (MlflowException, ValueError, KeyError, TypeError) as error:
        raise NoBulkError(str(error)) from None
