"""MLflow's runs, read back whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from bimix_integrations.trackers.mlflow import analyses
from bimix_integrations.trackers.mlflow.artifacts import read_text
from bimix_integrations.trackers.mlflow.store import MANIFEST, TAG, Store
from bimix_tracking import keys
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.manifest import CURVES, RunManifest, RunRecord, parse_curves
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import Progress, RunState, Wanted, WriteBack

_THREADS = 8
_PAGE = 1000


class MlflowSource:
    """Read the finished training runs of an experiment, and write the analysis beside them.

    Args:
        uri: See the module.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = wanted or Wanted()
        self._store = Store(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool every finished run of role `train`."""
        return Observations.from_records(self.records(progress), source=self._shown_uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read every finished run of role `train`, from its `bimix/curves.json`, else from its metric histories."""
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
        return records

    def states(self) -> list[RunState]:
        """Say how far each training run is."""
        raise NotImplementedError

    def write_back(self, analysis: WriteBack) -> str:
        """Write a run of role `analysis` with the artifacts and the note; see `analyses`."""
        return analyses.write(self._store, analysis)

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        return analyses.find(self._store, key)

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
            text = read_text(self._store, run, CURVES)
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
            text = read_text(self._store, run, MANIFEST)
            if text is not None:
                return RunManifest.from_dict(json.loads(text))
        fields: dict[str, Any] = dict(tags)
        for name in ("schema", "domains", "mixture", "schedule"):
            if name in fields:
                fields[name] = json.loads(fields[name])
        if isinstance(fields.get("domains"), dict):
            fields["domains"] = list(fields["domains"].values())
        return RunManifest.from_dict(fields)

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


def _is_evaluation(metric: str, short_to_name: Mapping[str, str]) -> bool:
    found = keys.parse(metric, short_to_name)
    return found is not None and found[0] in (keys.EVAL_LOSS, keys.EVAL_TOKENS)


def _agrees(rows: Iterable[Mapping[str, float]], latest: Mapping[str, float]) -> bool:
    """Return whether the last evaluation in the artifact is the last one of the run."""
    last: dict[str, float] = {}
    for row in rows:
        last.update({m: v for m, v in row.items() if m.startswith(f"{keys.EVAL_LOSS}/")})
    return last == {m: v for m, v in latest.items() if m.startswith(f"{keys.EVAL_LOSS}/")}
