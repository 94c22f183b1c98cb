"""MLflow's database, read by SQL of our own: no MLflow gets to see it, so none can upgrade it.

The schema is MLflow's own business and has had some thirty versions: which tables and columns there are is looked at
first, and what an older or newer one lacks is done without. Tested on those of MLflow 2.13 and 3.17.
"""

# ruff: noqa: S608  # what is put into a query are names of ours; what others named is a parameter

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from mlflow.entities import DatasetInput, Metric, Run

from bimix_integrations.trackers.mlflow.stores import schema
from bimix_integrations.trackers.mlflow.stores.experiments import Choice, deleted_experiment, no_experiment
from bimix_integrations.trackers.mlflow.stores.reading import (
    ACTIVE,
    Experiment,
    Found,
    Histories,
    RunFields,
    add_input_tag,
    dataset_input,
    matching,
    newest_first,
    of_datasets,
    oldest_first,
)
from bimix_tracking.data.histories import Point, number
from bimix_tracking.errors import SourceError

T = TypeVar("T")
_NEEDED: Mapping[str, frozenset[str]] = {
    "experiments": frozenset({"experiment_id", "name"}),
    "runs": frozenset({"run_uuid", "experiment_id", "status"}),
    "params": frozenset({"run_uuid", "key", "value"}),
    "tags": frozenset({"run_uuid", "key", "value"}),
    "metrics": frozenset({"run_uuid", "key", "value"}),
}
"""What every schema has; without it, it isn't MLflow's, or one that nobody knows yet."""
_OF_A_RUN = ("name", "user_id", "status", "start_time", "end_time", "artifact_uri")
_DATASETS = """
SELECT i.destination_id, i.input_uuid, d.name, d.digest, d.dataset_source_type, d.dataset_source, t.name, t.value
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid
WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND d.experiment_id = ?
"""


class Answers(Protocol):
    """A database that is open, and stays in one state."""

    def rows(self, query: str, asked: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds."""

    def tables(self) -> set[str]:
        """Return the names of the tables."""

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns."""

    def histories(self, point: Sequence[str], run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return points of some metrics of some runs."""


class Database:
    """Read an MLflow database.

    Args:
        database: The file or the server.
        shown: Its tracking URI without credentials.
    """

    whole = True

    def __init__(self, database: schema.Asked, shown: str) -> None:
        self._database = database
        self._shown = shown
        self._checked = False

    def experiment(self, wanted: Choice) -> Experiment:
        """Return the experiment that is meant."""
        return self._ask(lambda answers: self._experiment(answers, wanted))

    def runs(self, experiment: Experiment, condition: str | None = None) -> Found:
        """Return the runs that are not deleted, and that meet a condition."""
        datasets = of_datasets(condition)
        where = "r.experiment_id = ?"
        found = self._ask(lambda answers: _runs(answers, where, int(experiment.id), datasets=datasets))
        return Found(matching(oldest_first(found), condition))

    def tagged(self, experiment: Experiment, key: str, value: str) -> Sequence[Run]:
        """Return the runs with a tag, the newest first."""
        where = "r.experiment_id = ? AND r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
        return newest_first(self._ask(lambda answers: _runs(answers, where, int(experiment.id), key, value)))

    def run(self, run_id: str) -> Run | None:
        """Return the run of an id."""
        found = self._ask(lambda answers: _runs(answers, "r.run_uuid = ?", run_id))
        return found[0] if found else None

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return the points of some metrics of some runs: one query for all, whatever their number."""
        return self._ask(lambda answers: answers.histories(_point(answers.columns("metrics")), run_ids, metrics))

    def history(self, run_id: str, metrics: Sequence[str]) -> Mapping[str, Sequence[Point]]:
        """Return the points of some metrics of a run."""
        return self.histories([run_id], metrics).get(run_id, {})

    def mended(self, run_id: str) -> Mapping[str, int]:  # a database has its points whole
        """Return nothing: a database has its points whole."""
        return {}

    def _ask(self, question: Callable[[Answers], T]) -> T:
        def asked(answers: Answers) -> T:
            if not self._checked:
                self._check(answers)
                self._checked = True
            return question(answers)

        return self._database.ask(asked)

    def _check(self, answers: Answers) -> None:
        tables = answers.tables()
        if not tables & _NEEDED.keys():
            has = f"it has the tables {', '.join(sorted(tables)[:10])}" if tables else "it has no tables"
            raise SourceError(f"{self._shown} is a database, but not MLflow's: {has}")
        for table, needed in _NEEDED.items():
            missing = sorted(needed - answers.columns(table))
            if missing:
                raise SourceError(
                    f"{self._shown} cannot be read: its table {table!r} has no {', '.join(map(repr, missing))}. "
                    f"{schema.described(schema.of(answers))}. {schema.SERVER}"
                )

    def _experiment(self, answers: Answers, wanted: Choice) -> Experiment:
        columns = answers.columns("experiments")
        stage = "lifecycle_stage" if "lifecycle_stage" in columns else f"'{ACTIVE}'"
        workspace = "workspace" if "workspace" in columns else "NULL"
        by, value = ("name", wanted.name) if wanted.name is not None else ("experiment_id", _number(wanted.id))
        found = answers.rows(
            f"SELECT experiment_id, {stage}, {workspace}, name FROM experiments WHERE {by} = ?", (value,)
        )
        if not found:
            raise no_experiment(wanted, self._shown, self._names(answers, stage))
        active = [row for row in found if row[1] in (ACTIVE, None)]
        if not active:
            raise deleted_experiment(wanted, self._shown)
        if len(active) > 1:
            here = os.environ.get("MLFLOW_WORKSPACE") or "default"
            chosen = [row for row in active if row[2] == here]
            if len(chosen) != 1:
                there = ", ".join(repr(row[2]) for row in active)
                raise SourceError(
                    f"{wanted} at {self._shown} is in the workspaces {there}: say which by MLFLOW_WORKSPACE"
                )
            active = chosen
        number_, name = active[0][0], str(active[0][3])
        tags = {}
        if answers.columns("experiment_tags") >= {"key", "value", "experiment_id"}:
            tags = dict(answers.rows("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", (number_,)))
        return Experiment(str(number_), name, tags)

    @staticmethod
    def _names(answers: Answers, stage: str) -> list[str]:
        named = answers.rows(f"SELECT name FROM experiments WHERE {stage} = '{ACTIVE}' ORDER BY experiment_id")
        return [str(row[0]) for row in named]


def _runs(answers: Answers, where: str, *asked: object, datasets: bool = False) -> list[Run]:
    columns = answers.columns("runs")
    if "lifecycle_stage" in columns:
        where += f" AND (r.lifecycle_stage = '{ACTIVE}' OR r.lifecycle_stage IS NULL)"
    fields = ", ".join(f"r.{name}" if name in columns else "NULL" for name in _OF_A_RUN)
    found = {}
    for run_id, experiment, *values in answers.rows(
        f"SELECT r.run_uuid, r.experiment_id, {fields} FROM runs r WHERE {where}", asked
    ):
        name, user, status, started, ended, artifacts = values
        found[str(run_id)] = RunFields(
            str(run_id),
            str(experiment),
            _text(name),
            _text(user),
            _text(status),
            _whole(started),
            _whole(ended),
            _text(artifacts),
        )
    of_runs = f"JOIN runs r ON r.run_uuid = t.run_uuid WHERE {where}"
    for run_id, key, value in answers.rows(f"SELECT t.run_uuid, t.key, t.value FROM tags t {of_runs}", asked):
        if value is not None:
            found[run_id].tags[str(key)] = _text(value) or ""
    for run_id, key, value in answers.rows(f"SELECT t.run_uuid, t.key, t.value FROM params t {of_runs}", asked):
        found[run_id].params[str(key)] = _text(value) or ""
    _add_latest(answers, of_runs, asked, found)
    if datasets and {"inputs", "datasets", "input_tags"} <= answers.tables():
        _add_datasets(answers, asked[0], found)
    return [run.run() for run in found.values()]


def _add_latest(answers: Answers, of_runs: str, asked: Sequence[object], found: Mapping[str, RunFields]) -> None:
    columns = answers.columns("latest_metrics")
    table = "latest_metrics" if columns else "metrics"  # MLflow before 1.4 has to look for the newest each time
    step, time, value, is_nan = _point(columns or answers.columns("metrics"), "t.")
    points = f"SELECT t.run_uuid, t.key, {step}, {time}, {value}, {is_nan} FROM {table} t {of_runs}"
    for run_id, key, at, then, what, no_number in answers.rows(points, asked):
        latest = found[run_id].latest
        new = Metric(str(key), float("nan") if no_number else number(what), _whole(then) or 0, _whole(at) or 0)
        old = latest.get(new.key)
        if old is None or (old.step, old.timestamp) <= (new.step, new.timestamp):
            latest[new.key] = new


def _add_datasets(answers: Answers, experiment: object, found: Mapping[str, RunFields]) -> None:
    used: dict[str, DatasetInput] = {}
    for run_id, input_id, name, digest, kind, source, tag, value in answers.rows(_DATASETS, (experiment,)):
        if run_id in found and input_id not in used:
            used[input_id] = dataset_input(name, digest, kind, source)
            found[run_id].inputs.append(used[input_id])
        if input_id in used and tag is not None:
            add_input_tag(used[input_id], tag, value)


def _point(columns: set[str], of: str = "") -> tuple[str, str, str, str]:
    """Return SQL of a point's step, time, value and whether it is not a number; older schemas lack some."""
    step = f"{of}step" if "step" in columns else "0"
    time = f"{of}timestamp" if "timestamp" in columns else "0"
    return step, time, f"{of}value", f"{of}is_nan" if "is_nan" in columns else "(1 = 0)"


def _number(experiment: str | None) -> int:
    """Return an experiment's id as databases have it; of one that is not a number, one that none has."""
    return int(experiment) if experiment is not None and experiment.isdecimal() and len(experiment) < 19 else -1


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and abs(value) < 2**63 else None
