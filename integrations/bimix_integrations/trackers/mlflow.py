"""MLflow: runs written by id, read back whole, and the analysis beside them.

URIs: `mlflow:EXPERIMENT` (tracking URI as MLflow finds it, by default SQLite in the working directory),
`mlflow+sqlite:///FILE#EXPERIMENT`, `mlflow+http://HOST:PORT#EXPERIMENT`. Without an experiment, MLflow's own choice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from bimix_tracking import keys
from bimix_tracking.errors import BimixError, MissingDependencyError, SourceError
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import CURVES, Progress, RunManifest, RunRecord, WriteBack, parse_curves

try:
    import mlflow
except ModuleNotFoundError as error:
    if error.name != "mlflow":  # mlflow is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("mlflow", extra="mlflow") from error

import requests
from mlflow.entities import Metric, Run, RunTag
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

TAG = "bimix."
_MANIFEST = "bimix/manifest.json"
_MAX_TAG = 8000
_MAX_NOTE = 8000
_THREADS = 8
_PAGE = 1000
_PROBE_SECONDS = 5


class _Store:
    """One experiment of one MLflow store."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        scheme, _, rest = uri.partition(":")
        flavour = scheme.partition("+")[2]
        location, hash_, experiment = rest.partition("#")
        self.explicit = bool(flavour)
        self.experiment = experiment if flavour or hash_ else location
        self._found = f"{flavour}:{location}" if flavour else None
        self._client: MlflowClient | None = None

    @property
    def tracking_uri(self) -> str:
        """Where the store is; without one in our URI, where MLflow's is when it is first used, and from then on."""
        return self._found or str(mlflow.get_tracking_uri())

    @property
    def client(self) -> MlflowClient:
        """The client; made when first used, if the store is there."""
        if self._client is None:
            self._found = self.tracking_uri
            self.check()
            if self.explicit and self.tracking_uri.startswith("sqlite:"):
                self.database.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.tracking_uri)
        return self._client

    def check(self) -> None:
        """Say in seconds that a server is dead: MLflow's own retries take minutes to.

        Raises:
            SourceError: No answer.
        """
        if self.tracking_uri.startswith(("http://", "https://")):
            try:
                requests.get(f"{self.tracking_uri}/health", timeout=_PROBE_SECONDS)
            except requests.RequestException as error:
                raise SourceError(
                    f"no MLflow server answers at {self.shown} ({type(error).__name__}). "
                    "Is it running, and is the address right?"
                ) from None

    @property
    def database(self) -> Path:
        """The file of an SQLite store."""
        return Path(self.tracking_uri.removeprefix("sqlite:///"))

    @property
    def shown(self) -> str:
        """The tracking URI without user and password."""
        parts = urlsplit(self.tracking_uri)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host).geturl() if parts.username or parts.password else self.tracking_uri

    def redacted(self, error: MlflowException) -> str:
        """Return what MLflow says, without the password that its texts may repeat."""
        return str(error.message).replace(self.tracking_uri, self.shown)

    def experiment_id(self, *, create: bool) -> str:
        """Return the experiment's id, made if it may be."""
        name = self.experiment or "Default"
        found = self.client.get_experiment_by_name(name)
        if found is None and create:
            # An embedded store would put artifacts into whatever folder the process runs in.
            beside = self.explicit and self.tracking_uri.startswith("sqlite:")
            where = (self.database.resolve().parent / "mlartifacts").as_uri() if beside else None
            try:
                return str(self.client.create_experiment(name, artifact_location=where))
            except MlflowException:  # another run of the sweep made it between the two calls
                found = self.client.get_experiment_by_name(name)
        if found is None:
            known = [experiment.name for experiment in self.client.search_experiments(max_results=20)]
            raise SourceError(
                f"there is no experiment {name!r} at {self.shown}; there are {', '.join(map(repr, known)) or 'none'}"
            )
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise SourceError(f"experiment {name!r} at {self.shown} is deleted: restore it, or use another name")
        return str(found.experiment_id)


class MlflowTracker:
    """Write one run into MLflow: the run in progress if there is one, else a new one.

    Args:
        uri: See the module; `mlflow:` alone is the active run, or the default experiment.
        run_name: Of a new run.
    """

    def __init__(self, uri: str = "mlflow:", *, run_name: str | None = None) -> None:
        self._store = _Store(uri)
        self._run_name = run_name
        self._owned = False
        self._continued = False
        self._whole = False
        self._resumed: str | None = None
        self._adopted: str | None = None
        self.run_id: str | None = None

    def adopt(self, run_id: str, tracking_uri: str) -> None:
        """Write into a run that a host's logger has open, if it is in this store; to end it is the host's."""
        if tracking_uri == self._store.tracking_uri:
            self._adopted = run_id

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
        long = [name for name, value in tags.items() if len(value) > _MAX_TAG]
        if long:
            # MLflow would cut them off; the file holds them whole.
            self.write_artifact(_MANIFEST, json.dumps(manifest.to_dict(), indent=1))
        self._client.log_batch(self._id, tags=[RunTag(name, value) for name, value in tags.items() if name not in long])

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write one row as one batch."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def write_artifact(self, path: str, text: str) -> None:
        """Write a text artifact, over an earlier one of that path."""
        if path == CURVES and self._continued and not self._whole:
            return  # it would hold only what came after the interruption; the histories hold all of it
        self._client.log_text(self._id, text, path)

    def finish(self) -> None:
        """End the run if it was opened here: a run in progress is its owner's to end."""
        if self._owned:
            self._client.set_terminated(self._id, "FINISHED")
            self._owned = False

    @property
    def _client(self) -> MlflowClient:
        self._store.check()  # for every row: a server may die in mid-run, and training must not wait for it
        return self._store.client

    @property
    def _id(self) -> str:
        if self.run_id is None:
            raise BimixError("the tracker has no run yet: call start first")
        return self.run_id

    def _open(self) -> None:
        active = mlflow.active_run()
        if active is not None:
            self.adopt(active.info.run_id, mlflow.get_tracking_uri())
        if self._adopted is not None:
            # Held by id from here on: HF's own callback ends the run before ours sees the end of training.
            self.run_id = self._adopted
            self._continued = f"{TAG}schema" in self._client.get_run(self._id).data.tags
            return
        if self._resumed is not None:
            self._client.update_run(self._resumed, status="RUNNING")
            self.run_id, self._owned = self._resumed, True
            return
        experiment = self._store.experiment_id(create=True)
        self.run_id = self._client.create_run(experiment, run_name=self._run_name).info.run_id
        self._owned = True


class MlflowSource:
    """Read the finished training runs of an experiment, and write the analysis beside them.

    Args:
        uri: See the module.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._store = _Store(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool every finished run of role `train`, from its `bimix/curves.json`, else from its metric histories."""
        try:
            runs = self._runs()
            with ThreadPoolExecutor(_THREADS) as pool:
                records = []
                for done, record in enumerate(pool.map(self._record, runs), 1):
                    records.append(record)
                    if progress:
                        progress("reading runs", done, len(runs))
        except MlflowException as error:
            raise SourceError(f"{self._store.shown}: MLflow says: {self._store.redacted(error)}") from None
        return Observations.from_records(records, source=self._shown_uri)

    def write_back(self, analysis: WriteBack) -> str:
        """Write a run of role `analysis` with the artifacts and the note; tag each source run with its id."""
        client = self._store.client
        try:
            experiment = self._store.experiment_id(create=False)
            tags = manifest_tags(analysis.manifest)
            tags[f"{TAG}source_runs"] = str(len(analysis.source_runs))
            tags["mlflow.note.content"] = analysis.note[:_MAX_NOTE]
            fitting = {name: value for name, value in tags.items() if len(value) <= _MAX_TAG}
            run_id = client.create_run(experiment, run_name=analysis.name, tags=fitting).info.run_id
            now = int(time.time() * 1000)
            client.log_batch(run_id, metrics=[Metric(name, v, now, 0) for name, v in analysis.metrics.items()])
            client.log_artifacts(run_id, str(analysis.directory), "bimix")
            for source in analysis.source_runs:
                client.set_tag(source, f"{TAG}analysis_run_id", run_id)
            client.set_terminated(run_id, "FINISHED")
        except MlflowException as error:
            raise SourceError(
                f"{self._store.shown}: the analysis was not written: {self._store.redacted(error)}"
            ) from None
        if self._store.tracking_uri.startswith("http"):
            return f"{self._store.shown}/#/experiments/{experiment}/runs/{run_id}"
        return f"run {run_id} (mlflow ui --backend-store-uri {self._store.shown})"

    @property
    def _shown_uri(self) -> str:
        return self.uri.replace(self._store.tracking_uri, self._store.shown)

    def _runs(self) -> list[Run]:
        client, experiment = self._store.client, self._store.experiment_id(create=False)
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = client.search_runs(
                [experiment],
                f"tags.`{TAG}role` = 'train'",
                max_results=_PAGE,
                page_token=token,
                order_by=["start_time"],
            )
            runs += page
            token = page.token
            if not token:
                break
        if not any(run.info.status == "FINISHED" for run in runs):
            others = len(client.search_runs([experiment], max_results=_PAGE)) - len(runs)
            raise SourceError(
                f"experiment {self._store.experiment or 'Default'!r} at {self._store.shown} has no finished training "
                f"run logged by this package ({len(runs)} unfinished, {others} others). "
                "Train with DomainLossCallback or DomainLossRecorder first"
            )
        return runs

    def _record(self, run: Run) -> RunRecord:
        run_id, name = run.info.run_id, run.info.run_name or run.info.run_id
        if run.info.status != "FINISHED":
            manifest = RunManifest(domains=("unread",))
            left_out = {f"the run is not finished (it is {run.info.status})": 1}
            return RunRecord(run_id=run_id, name=name, manifest=manifest, rows=[], set_aside=left_out)
        try:
            text = self._artifact(run, CURVES)
            if text is not None:
                manifest, rows = parse_curves(text)
                if _agrees(rows, run.data.metrics):
                    return RunRecord(run_id=run_id, name=name, manifest=manifest, rows=rows)
            manifest = self._manifest(run)
        except (ValueError, BimixError) as error:
            raise SourceError(f"run {name!r} ({run_id}) cannot be read: {error}") from error
        return RunRecord(run_id=run_id, name=name, manifest=manifest, rows=self._histories(run, manifest))

    def _manifest(self, run: Run) -> RunManifest:
        tags = {n.removeprefix(TAG): value for n, value in run.data.tags.items() if n.startswith(TAG)}
        if "domains" not in tags or "mixture" not in tags:
            text = self._artifact(run, _MANIFEST)
            if text is not None:
                return RunManifest.from_dict(json.loads(text))
        fields: dict[str, Any] = dict(tags)
        for name in ("schema", "domains", "mixture", "schedule"):
            if name in fields:
                fields[name] = json.loads(fields[name])
        if isinstance(fields.get("domains"), dict):
            fields["domains"] = list(fields["domains"].values())
        return RunManifest.from_dict(fields)

    def _artifact(self, run: Run, path: str) -> str | None:
        """Return a text artifact of a run, or None where there is none."""
        client, folder = self._store.client, path.rpartition("/")[0]
        if path not in {file.path for file in client.list_artifacts(run.info.run_id, folder)}:
            return None
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._store.tracking_uri)
        with TemporaryDirectory() as folder:
            target = Path(folder) / "artifact"
            # MLflow's public way draws a progress bar for each file of each run.
            repository._download_file(path, str(target))  # noqa: SLF001
            return target.read_text(encoding="utf-8")

    def _histories(self, run: Run, manifest: RunManifest) -> list[dict[str, float]]:
        short_to_name = keys.slugs(manifest.domains)
        rows: dict[int, dict[str, float]] = {}
        wanted = [m for m in run.data.metrics if m == keys.TOKENS or _is_evaluation(m, short_to_name)]
        for metric in wanted:
            # Logged twice after a resume, both are kept: the newest is the one that counts.
            history = sorted(self._store.client.get_metric_history(run.info.run_id, metric), key=lambda p: p.timestamp)
            for point in history:
                rows.setdefault(point.step, {keys.STEP: float(point.step)})[metric] = point.value
        evaluated = [row for row in rows.values() if any(_is_evaluation(m, short_to_name) for m in row)]
        return sorted(evaluated, key=lambda row: row[keys.STEP])


def manifest_tags(manifest: RunManifest) -> dict[str, str]:
    """Return a manifest as MLflow tags; `domains` becomes the map slug → name, readable beside the metric's names."""
    fields = manifest.to_dict() | {"domains": keys.slugs(manifest.domains)}
    return {
        f"{TAG}{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }


def _is_evaluation(metric: str, short_to_name: Mapping[str, str]) -> bool:
    found = keys.parse(metric, short_to_name)
    return found is not None and found[0] in (keys.EVAL_LOSS, keys.EVAL_TOKENS)


def _agrees(rows: Iterable[Mapping[str, float]], latest: Mapping[str, float]) -> bool:
    """Return whether the last evaluation in the artifact is the last one of the run."""
    last: dict[str, float] = {}
    for row in rows:
        last.update({m: v for m, v in row.items() if m.startswith(f"{keys.EVAL_LOSS}/")})
    return last == {m: v for m, v in latest.items() if m.startswith(f"{keys.EVAL_LOSS}/")}
