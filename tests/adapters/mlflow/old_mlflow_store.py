"""Run by the Python of an older MLflow: makes stores as that MLflow does, and says whether it can still open them.

Reads one JSON object a line, answers with one. See `old_mlflow`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient


def make(uri: str, artifacts: str | None, runs: list[dict[str, Any]], tags: dict[str, str]) -> dict[str, str]:
    """Make an experiment `s` with these runs, and return their ids by name; `{run}` in its tags is the id of one."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("s", artifact_location=artifacts)
    ids = {}
    for run in runs:
        made = client.create_run(experiment, run_name=run["name"], tags=run["tags"]).info.run_id
        for name, value in run["params"].items():
            client.log_param(made, name, value)
        points = [Metric(name, value, 1000 + step, step) for name, step, value in run["points"]]
        client.log_batch(made, metrics=points)
        for path, text in run["artifacts"].items():
            client.log_text(made, text, path)
        client.set_terminated(made, run["status"])
        ids[run["name"]] = made
    for name, value in tags.items():
        client.set_experiment_tag(experiment, name, value.format(**ids))
    return ids


def opens(uri: str, artifacts: str) -> list[str]:
    """Open a database anew, and return the names of its experiments."""
    return sorted(experiment.name for experiment in SqlAlchemyStore(uri, artifacts).search_experiments())


def tell(answer: object) -> None:
    """Write a line for whoever asks."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Answer until nobody asks any more."""
    known: dict[str, Callable[..., object]] = {"make": make, "opens": opens}
    tell(mlflow.__version__)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer: dict[str, object] = {"answer": known[asked.pop("what")](**asked)}
        except Exception as error:  # noqa: BLE001  # whoever asked wants to hear it
            answer = {"error": f"{type(error).__name__}: {error}"}
        tell(answer)


if __name__ == "__main__":
    main()
