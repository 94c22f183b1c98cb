"""A training run's numbers into MLflow: adopted or opened, and written by id."""

from __future__ import annotations

import json
from collections.abc import Sequence

import mlflow
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from bimix_integrations.trackers.mlflow.store import MANIFEST, MAX_TAG, TAG, Store, manifest_tags
from bimix_tracking import keys
from bimix_tracking.errors import BimixError
from bimix_tracking.manifest import CURVES, RunManifest
from bimix_tracking.tracking import Row


class MlflowTracker:
    """Write one run into MLflow: the run in progress if there is one, else a new one.

    Args:
        uri: See the package; `mlflow:` alone is the active run, or the default experiment.
        run_name: Of a new run.
    """

    remote = True
    certain = True

    def __init__(self, uri: str = "mlflow:", *, run_name: str | None = None) -> None:
        self._store = Store(uri)
        self._run_name = run_name
        self._continued = False
        self._whole = False
        self._resumed: str | None = None
        self._adopted: str | None = None
        self.owned = False
        self.run_id: str | None = None

    @property
    def uri(self) -> str:
        """Where it writes, without credentials."""
        return self._store.uri

    def adopt(self, run_id: str, tracking_uri: str) -> None:
        """Write into a run that a host's logger has open, if it is in this store; to end it is the host's."""
        if tracking_uri == self._store.tracking_uri:
            self._adopted = run_id

    def adopt_active(self) -> None:
        """Note the run that this thread has open: MLflow's active run is another one in each thread."""
        self._store.settle()
        active = mlflow.active_run()
        if active is not None:
            self.adopt(active.info.run_id, mlflow.get_tracking_uri())

    def resume(self, run_id: str, rows: int) -> list[dict[str, float]]:
        """Go on with that run: where a step is then logged twice, the newest counts when it is read back.

        Returns its evaluations: MLflow forgets nothing, and doesn't tell which came last.
        """
        self._resumed, self._whole = run_id, True
        found: dict[int, dict[str, float]] = {}
        for name in self._client.get_run(run_id).data.metrics:
            if name == keys.TOKENS or name.partition("/")[0] in (keys.EVAL_LOSS, keys.EVAL_TOKENS, keys.EVAL_BPB):
                for point in self._client.get_metric_history(run_id, name):
                    found.setdefault(point.step, {keys.STEP: float(point.step)})[name] = point.value
        return list(found.values())

    def start(self, manifest: RunManifest) -> None:
        """Adopt or create the run and write the manifest as tags."""
        if self.run_id is None:
            self._open()
        tags = manifest_tags(manifest)
        long = [name for name, value in tags.items() if len(value) > MAX_TAG]
        if long:
            # MLflow would cut them off; the file holds them whole.
            self.write_artifact(MANIFEST, json.dumps(manifest.to_dict(), indent=1))
        self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in tags.items() if name not in long])

    def log(self, rows: Sequence[Row]) -> None:
        """Write rows as one batch, each value with the time it was made: sent twice, it is one point."""
        points = [
            Metric(name, value, int(row.time * 1000), row.step) for row in rows for name, value in row.metrics.items()
        ]
        self._client.log_batch(self._id, metrics=points)

    def write_artifact(self, path: str, text: str) -> None:
        """Write a text artifact, over an earlier one of that path."""
        if path == CURVES and self._continued and not self._whole:
            return  # it would hold only what came after the interruption; the histories hold all of it
        self._client.log_text(self._id, text, path)

    def finish(self, *, ended: bool = True) -> None:
        """End the run if it was opened here: a run in progress is its owner's to end."""
        if self.owned and ended:
            self._client.set_terminated(self._id, "FINISHED")
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
        if self._adopted is not None:
            # Held by id from here on: HF's own callback ends the run before ours sees the end of training.
            self._continued = f"{TAG}schema" in self._client.get_run(self._adopted).data.tags
            self.run_id = self._adopted
        elif self._resumed is not None:
            self._client.update_run(self._resumed, status="RUNNING")
            self.run_id, self.owned = self._resumed, True
        else:
            experiment = self._store.experiment_id(create=True)
            self.run_id = self._client.create_run(experiment, run_name=self._run_name).info.run_id
            self.owned = True
