"""How runs are read, whatever the store: a `Reader` gives an experiment, its runs, and their histories.

There are three: `database` (SQL, opened read-only), `files` (a folder `mlruns/`), `server` (MLflow's own client).
None of them creates, upgrades or writes anything; MLflow's client never gets to see a database that is only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunData, RunInfo, RunInputs, RunTag
from mlflow.utils.search_utils import SearchUtils

from bimix_integrations.trackers.mlflow.stores.experiments import Choice
from bimix_tracking.data.histories import Point
from bimix_tracking.data.manifest import RunRecord

Histories = dict[str, dict[str, list[Point]]]
"""Points by run id and metric."""
ACTIVE = "active"
RUN_NAME = "mlflow.runName"


class Experiment(NamedTuple):
    """An experiment that is not deleted."""

    id: str
    name: str
    tags: Mapping[str, str]


class Found(NamedTuple):
    """Runs in the order they were started, and those of which not even that much can be read, with the reason."""

    runs: Sequence[Run]
    broken: Sequence[RunRecord] = ()


class Reader(Protocol):
    """Reads one store."""

    whole: bool
    """Whether `histories` are complete; else each run is to be compared with its latest values, and read by `history`.

    Where they are, they come faster than files of the runs would."""

    def experiment(self, wanted: Choice) -> Experiment:
        """Return the experiment that is meant.

        Raises:
            SourceError: There is none, or it is deleted; or there is no such store.
        """

    def runs(self, experiment: Experiment, condition: str | None = None) -> Found:
        """Return the runs that are not deleted, and that meet a condition in MLflow's own language."""

    def tagged(self, experiment: Experiment, key: str, value: str) -> Sequence[Run]:
        """Return the runs with a tag, the newest first."""

    def run(self, run_id: str) -> Run | None:
        """Return the run of an id, None where there is none or it is deleted."""

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return the points of some metrics of some runs, with few requests."""

    def history(self, run_id: str, metrics: Sequence[str]) -> Mapping[str, Sequence[Point]]:
        """Return the points of some metrics of a run, all of them."""

    def mended(self, run_id: str) -> Mapping[str, int]:
        """Return what of a run's histories could not be read: reason → count."""


@dataclass
class RunFields:
    """What any store says of a run, before it is one of MLflow's."""

    run_id: str
    experiment_id: str
    name: str | None = None
    user: str | None = None
    status: str | None = None
    started: int | None = None
    ended: int | None = None
    artifact_uri: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    latest: dict[str, Metric] = field(default_factory=dict)
    inputs: list[DatasetInput] = field(default_factory=list)

    def run(self) -> Run:
        """Return it as MLflow's own, which MLflow's own filters take."""
        info = RunInfo(
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            user_id=self.user or "",
            status=self.status or "RUNNING",  # as MLflow takes it where nothing is said
            start_time=self.started or 0,
            end_time=self.ended,
            lifecycle_stage=ACTIVE,
            artifact_uri=self.artifact_uri,
            run_name=self.name or self.tags.get(RUN_NAME),
        )
        data = RunData(
            metrics=list(self.latest.values()),
            params=[Param(name, value) for name, value in self.params.items()],
            tags=[RunTag(name, value) for name, value in self.tags.items()],
        )
        return Run(info, data, RunInputs(self.inputs))


def dataset_input(name: str, digest: str, kind: str, source: str) -> DatasetInput:
    """Return a dataset that a run has used."""
    return DatasetInput(Dataset(name=name, digest=digest, source_type=kind, source=source), tags=[])


def add_input_tag(used: DatasetInput, name: str, value: str) -> None:
    """Say of a dataset how it was used."""
    used.tags.append(InputTag(name, value))


def of_datasets(condition: str | None) -> bool:
    """Return whether a condition asks for datasets.

    Raises:
        MlflowException: It is none.
    """
    return any(clause["type"] == "dataset" for clause in SearchUtils.parse_search_filter(condition))


def matching(runs: Sequence[Run], condition: str | None) -> list[Run]:
    """Return the runs that meet a condition in MLflow's own language, by MLflow's own code.

    Raises:
        MlflowException: It is none.
    """
    return list(SearchUtils.filter(runs, condition))


def newest_first(runs: Iterable[Run]) -> list[Run]:
    """Return runs as MLflow orders what it finds."""
    return sorted(runs, key=lambda run: (-run.info.start_time, run.info.run_id))


def oldest_first(runs: Iterable[Run]) -> list[Run]:
    """Return runs in the order they were started."""
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))
