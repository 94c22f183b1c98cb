"""A training run's numbers into MLflow: adopted or opened, and written by id."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence

import mlflow
from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags

from bimix_integrations.trackers.mlflow.adopting import ADOPTED, Training, found, of_key
from bimix_integrations.trackers.mlflow.artifacts import write_text
from bimix_integrations.trackers.mlflow.params import log_params
from bimix_integrations.trackers.mlflow.refusals import RefusedForGoodError, refusals, values
from bimix_integrations.trackers.mlflow.stores.server import Server
from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_integrations.trackers.mlflow.tags import KEY, of_manifest, requests
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import BimixError, RefusedError
from bimix_tracking.tracking.params import params
from bimix_tracking.tracking.ports import Row

_PARENT = "mlflow.parentRunId"
_LONGEST_NAME = 250
_ATTEMPTS = 3
"""How often an artifact is tried while the server is there: it is optional, for the histories hold all of it."""
_logger = logging.getLogger(__name__)


class MlflowTracker:
    """Write one run into MLflow: the host's open run if it is free, else a run of its own, nested under that.

    A host's run is free if it is in the experiment that the URI names (without a name: whichever it is in), holds no
    other training of this package, and is called as ours is to be called, if anybody has said. Its status is its
    owner's to set.

    Args:
        uri: See the package; `mlflow:` alone is MLflow's own choice of store and experiment.
        run_name: Of the run; without one, a run that is opened here is called `run-` and the beginning of its key.
    """

    remote = True
    certain = True

    def __init__(self, uri: str = "mlflow:", *, run_name: str | None = None) -> None:
        self._uri = uri
        self._store = Store(uri)
        self._adopted: str | None = None
        self._active: str | None = None
        self._resumed: str | None = None
        self._training = self._may_be_there = False
        self._failures = 0
        self._params: dict[str, str] = {}
        self.run_name = run_name
        self.key: str | None = None
        self.owned = False
        self.run_id: str | None = None

    @property
    def uri(self) -> str:
        """Where it writes, complete and without credentials; an experiment whose name isn't known yet, by its id."""
        return self._store.uri

    def another(self) -> MlflowTracker:
        """Return a tracker of the same store and experiment, for another training's run."""
        other = MlflowTracker(self._uri, run_name=self.run_name)
        other._store, other._adopted = self._store.again(), self._adopted
        return other

    def adopt(self, run_id: str, tracking_uri: str) -> None:
        """Note a run that a host's logger has open, if it is in this store; to end it is the host's."""
        if self._store.is_at(tracking_uri):
            self._adopted = run_id

    def adopt_active(self) -> None:
        """Note the run that this thread has open: MLflow's active run is another one in each thread."""
        self._training = True
        self._store.settle()
        active = mlflow.active_run()
        if active is not None and self._store.is_at(str(mlflow.get_tracking_uri())):
            self._active = str(active.info.run_id)
            if not self._store.named and self._adopted is None:
                self._store.stay_in(str(active.info.experiment_id))

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        """Go on with that run: where a step is then logged twice, the newest counts when it is read back.

        Returns its evaluations, with the time of each: MLflow forgets nothing.

        Raises:
            RefusedError: The run is deleted, or is in another experiment: `start` then opens one of its own.
        """
        self._resumed, self._may_be_there = run_id, True
        with refusals(self._store, f"run {run_id}"):
            run = self._to_go_on_with()
            if run is None:
                if run_id is None:
                    return []
                self._resumed = None
                raise RefusedForGoodError(
                    f"run {run_id} is not in {self._store.wanted} at {self._store.shown} (any more): it was deleted, "
                    "or is elsewhere",
                    whole=True,
                )
            self._resumed = str(run.info.run_id)
            return self._evaluations(run)

    def start(self, manifest: RunManifest) -> None:
        """Adopt or create the run and write the manifest as tags, the proportions that it begins with as params."""
        tags = of_manifest(manifest)
        with refusals(self._store, f"run {self.run_id or self.run_name or 'of a training'}"):
            if self.run_id is None:
                self._open()
            for some in requests(tags):
                self._client.log_batch(self._id, tags=some)
            if (wanted := params(manifest)) != self._params:
                log_params(self._client, self._id, wanted)
                self._params = wanted

    def log(self, rows: Sequence[Row]) -> None:
        """Write rows as one batch, each value with the time it was made: sent twice, it is one point.

        MLflow has the step of each point: as a metric it would be a chart that says nothing.
        """
        what = f"a row of run {self.run_id}"
        with refusals(self._store, what), values(what):
            points = [
                Metric(name, value, int(row.time * 1000), row.step)
                for row in rows
                for name, value in row.metrics.items()
                if name != metric_names.STEP
            ]
            self._client.log_batch(self._id, metrics=points)

    def write_artifact(self, path: str, text: str) -> None:
        """Write a text artifact, over an earlier one of that path.

        Raises:
            RefusedError: The run's artifacts cannot be written from here, or couldn't be, several times.
        """
        with refusals(self._store, f"the artifacts of run {self.run_id}"):
            run = self._client.get_run(self._id)
        try:
            write_text(self._store, run, path, text)
        except RefusedError:
            raise
        except Exception as error:  # each store of artifacts has errors of its own
            self._store.check()  # where the server is down, that is no failure of the artifacts
            self._failures += 1
            if self._failures < _ATTEMPTS:
                raise
            raise RefusedForGoodError(f"{error} ({self._failures} attempts)") from error
        self._failures = 0

    def finish(self, *, ended: bool = True) -> None:
        """End the run if it was opened here: a run in progress is its owner's to end."""
        if self.owned:
            with refusals(self._store, f"the end of run {self.run_id}"):
                self._client.set_terminated(self._id, "FINISHED" if ended else "FAILED")
            self.owned = False

    @property
    def _client(self) -> MlflowClient:
        self._store.check()  # for every batch: a server may die in mid-run
        return self._store.client

    @property
    def _id(self) -> str:
        if self.run_id is None:
            raise BimixError("the tracker has no run yet: call start first")
        return self.run_id

    def _open(self) -> None:
        self.key = self.key or uuid.uuid4().hex
        before = self._to_go_on_with() if self._may_be_there else None
        if before is None and self._resumed is not None:  # `resume` couldn't ask
            _logger.warning("run %s is gone: training continues in a new run", self._resumed)
        resumed = None if before is None else str(before.info.run_id)
        offered = [run_id for run_id in (self._adopted, self._active) if run_id is not None]
        parent: str | None = None
        if before is None or resumed in offered or ADOPTED in before.data.tags:
            # Held by id from here on: HF's own callback ends the run before ours sees the end of training.
            run, parent = Training(self.key, self.run_name, resumed).adopted(self._store, offered)
            if run is not None:
                self.run_id = str(run.info.run_id)
                return
        if before is not None:
            self._go_on_with(before)
            return
        experiment = self._store.experiment_id(create=True)
        tags = resolve_tags({KEY: self.key} | ({} if parent is None else {_PARENT: parent}))
        name = "".join(filter(str.isprintable, self.run_name or ""))  # PostgreSQL takes no zero, UTF-8 no surrogate
        name = name[:_LONGEST_NAME] or f"run-{self.key[:8]}"
        self._may_be_there = True  # from here on, whether or not an answer comes
        self.run_id = str(self._client.create_run(experiment, run_name=name, tags=tags).info.run_id)
        self.owned = True

    def _go_on_with(self, run: Run) -> None:
        # A host's run that is replayed after its end stays as its owner has ended it.
        if ADOPTED not in run.data.tags or self._training or run.info.end_time is None:
            self._client.update_run(run.info.run_id, status="RUNNING")
            self.owned = True
        self.run_id = str(run.info.run_id)

    def _to_go_on_with(self) -> Run | None:
        """Return the run that this training was in before, if it is there and where we are asked to write."""
        if self._resumed is not None:
            run = found(self._client, self._resumed)
            return run if run is not None and self._store.holds(str(run.info.experiment_id)) else None
        if self.key is None:
            return None
        try:
            return of_key(self._client, self._store.experiment_id(create=False), self.key)
        except RefusedError:  # there is no such experiment
            return None

    def _evaluations(self, run: Run) -> list[dict[str, float]]:
        run_id = str(run.info.run_id)
        logged = [name for name in run.data.metrics if metric_names.belongs_to_evaluation(name)]
        names = [name for name in logged if name != metric_names.STEP]  # MLflow has it of each point
        server = Server(lambda: self._client, self._store.shown, http=self._store.http)
        quickly = server.histories([run_id], names).get(run_id, {})
        histories = quickly | dict(server.history(run_id, [name for name in names if not quickly.get(name)]))
        found_: dict[float, dict[str, float]] = {}
        for name, points in histories.items():
            for step, time, value in sorted(points):  # of a step, the newest comes last
                row = found_.setdefault(step, {metric_names.STEP: float(step), metric_names.TIME: 0.0})
                row[name] = value
                row[metric_names.TIME] = max(row[metric_names.TIME], time / 1000)
        return [found_[step] for step in sorted(found_)]
