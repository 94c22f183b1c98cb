"""MLflow's runs, read back whole: the fastest way that there is, and every run checked against its latest values.

From a database: one query. From a server: each run's `bimix/curves.json`, then the bulk endpoint for runs without,
then page after page for whatever that may have cut off.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from mlflow.entities import Run
from mlflow.entities.view_type import ViewType
from mlflow.exceptions import MlflowException

from bimix_integrations.trackers.mlflow import analyses, bulk, sql
from bimix_integrations.trackers.mlflow.artifacts import read_text
from bimix_integrations.trackers.mlflow.store import MANIFEST, TAG, Store
from bimix_tracking import keys
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.foreign import ForeignRuns
from bimix_tracking.histories import LARGEST, Point, rows_of
from bimix_tracking.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_json
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import Progress, RunState, Wanted, WriteBack, without_credentials

_THREADS = 8
_PAGE = 1000
_EVALUATION = (keys.EVAL_LOSS, keys.EVAL_TOKENS)
_QUANTITIES = (*_EVALUATION, keys.SHARE)
_STATUS: Mapping[str, Literal["finished", "failed"]] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "failed"}


class MlflowSource:
    """Read the training runs of an experiment, and write analyses beside them.

    Args:
        uri: See the package.
        wanted: Which runs count, and how runs of other tools are read.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = without_credentials(uri)
        self.wanted = wanted or Wanted()
        self._foreign = self.wanted.foreign or ForeignRuns()
        self._store = Store(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the runs that are wanted."""
        return Observations.from_records(self.records(progress), source=self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read every finished run of role `train`, and those of other tools whose names for losses are known."""
        with self._errors():
            runs = [run for run in self._runs() if self._metrics(run)]
            read = [run for run in runs if run.info.status == "FINISHED" or self.wanted.unfinished]
            if not read:
                raise self._nothing(runs)
            found = self._at_once(read)
            records = []
            with ThreadPoolExecutor(_THREADS) as pool:
                for record in pool.map(lambda run: found.get(run.info.run_id) or self._paged(run), runs):
                    records.append(record)
                    if progress:
                        progress("reading runs", len(records), len(runs))
            return records

    def states(self) -> list[RunState]:
        """Say how far each training run is."""
        with self._errors():
            return [_state(run) for run in self._runs() if _role(run) == "train" or self._metrics(run)]

    def write_back(self, analysis: WriteBack) -> str:
        """Write a run of role `analysis` with the artifacts and the note; see `analyses`."""
        return analyses.write(self._store, analysis)

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        return analyses.find(self._store, key)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            raise SourceError(f"{self._store.shown}: MLflow says: {self._store.redacted(error)}") from None

    def _runs(self) -> list[Run]:
        """Return the experiment's runs that are no analyses, in the order they were started; deleted ones never are."""
        experiment = self._store.experiment_id(create=False)
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self._store.client.search_runs(
                [experiment],
                self.wanted.filter or "",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=_PAGE,
                page_token=token,
                order_by=["attributes.start_time"],
            )
            runs += page
            token = page.token
            if not token:
                return [run for run in runs if _role(run) in (None, "train")]

    def _metrics(self, run: Run) -> list[str]:
        """Return the metrics to be read of a run; of a parent that only holds others, none."""
        if _role(run) is None:
            try:
                with _named(run):
                    return self._foreign.wanted(run.data.metrics)
            except SourceError:  # ambiguous
                if self.wanted.foreign is not None:
                    raise
                return []  # nobody has asked for it
        return [m for m in run.data.metrics if m == keys.TOKENS or m.partition("/")[0] in _QUANTITIES] or [keys.TOKENS]

    def _nothing(self, runs: Sequence[Run]) -> SourceError:
        ours = sum(_role(run) is not None for run in runs)
        everything = len(self._store.client.search_runs([self._store.experiment_id(create=False)], max_results=_PAGE))
        chosen = f" that match {self.wanted.filter!r}" if self.wanted.filter else ""
        return SourceError(
            f"experiment {self._store.experiment or 'Default'!r} at {self._store.shown} has no finished training run"
            f"{chosen} ({ours} unfinished, {everything - ours} others). Train with DomainLossCallback or "
            "DomainLossRecorder first, read those that are going with --unfinished; of other tools' runs, losses whose "
            "names `bimix_tracking.foreign_patterns` lists are read"
        )

    def _at_once(self, runs: Sequence[Run]) -> dict[str, RunRecord]:
        """Return the records of those runs that could be read with few requests, and whole."""
        found: dict[str, RunRecord] = {}
        names = {name for run in runs for name in self._metrics(run)}
        # Of 300 runs (tests/benchmarks/reading.py) the query takes a fraction of what their files take.
        histories = sql.read(self._store.tracking_uri, [run.info.run_id for run in runs], sorted(names))
        certain = histories is not None
        if histories is None:
            with ThreadPoolExecutor(_THREADS) as pool:
                records = [record for record in pool.map(self._from_curves, runs) if record is not None]
            found = {record.run_id: record for record in records}
            runs = [run for run in runs if run.info.run_id not in found]
            names = {name for run in runs for name in self._metrics(run)}
            if runs and self._store.tracking_uri.startswith("http"):
                with contextlib.suppress(bulk.NoBulkError):
                    histories = bulk.read(self._store.client, [run.info.run_id for run in runs], sorted(names))
        for run in runs:
            history = (histories or {}).get(run.info.run_id, {})
            if certain or all(_ends(history.get(name, ()), run.data.metrics.get(name)) for name in self._metrics(run)):
                found[run.info.run_id] = self._record(run, history)
        return found

    def _paged(self, run: Run) -> RunRecord:
        """Read a run's histories page by page: slow, and complete whatever the server."""
        if run.info.status != "FINISHED" and not self.wanted.unfinished:
            reason = f"the run is not finished (it is {run.info.status})"
            return RunRecord.excluded(run.info.run_id, _name(run), reason)
        client = self._store.client
        history: dict[str, list[Point]] = {
            name: [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run.info.run_id, name)]
            for name in self._metrics(run)
        }
        return self._record(run, history)

    def _record(self, run: Run, history: Mapping[str, Sequence[Point]]) -> RunRecord:
        with _named(run):
            if _role(run) is None:
                told = dict(run.data.params) | dict(run.data.tags)
                return self._foreign.record(run.info.run_id, _name(run), history, told)
            wanted = {name: history[name] for name in self._metrics(run) if name in history}
            rows, mended = rows_of(wanted)
            rows = [row for row in rows if any(name.partition("/")[0] in _EVALUATION for name in row)]
            return RunRecord(run.info.run_id, _name(run), self._manifest(run), rows, mended)

    def _from_curves(self, run: Run) -> RunRecord | None:
        """Return what `bimix/curves.json` holds, if it is there and of the run's last state."""
        if _role(run) is None or run.info.status != "FINISHED":
            return None
        with _named(run):
            text = read_text(self._store, run, CURVES)
            if text is None:
                return None
            manifest, rows = parse_curves(text)
            return RunRecord(run.info.run_id, _name(run), manifest, rows) if _agrees(rows, run.data.metrics) else None

    def _manifest(self, run: Run) -> RunManifest:
        tags = {n.removeprefix(TAG): value for n, value in run.data.tags.items() if n.startswith(TAG)}
        if "domains" not in tags or "mixture" not in tags:
            text = read_text(self._store, run, MANIFEST)
            if text is not None:
                return RunManifest.from_dict(parse_json(text))
        fields: dict[str, Any] = dict(tags)
        for name in ("schema", "domains", "mixture", "schedule"):
            if name in fields:
                fields[name] = parse_json(fields[name])
        if isinstance(fields.get("domains"), dict):
            fields["domains"] = list(fields["domains"].values())
        return RunManifest.from_dict(fields)


def _role(run: Run) -> str | None:
    role: str | None = run.data.tags.get(f"{TAG}role")
    return role


def _name(run: Run) -> str:
    return str(run.info.run_name or run.info.run_id)


@contextlib.contextmanager
def _named(run: Run) -> Iterator[None]:
    """Say which run it is that cannot be read."""
    try:
        yield
    except (ValueError, BimixError) as error:
        raise SourceError(f"run {_name(run)!r} ({run.info.run_id}) cannot be read: {error}") from error


def _state(run: Run) -> RunState:
    ended = None if run.info.end_time is None else run.info.end_time / 1000
    status: Literal["running", "finished", "failed"] = _STATUS.get(run.info.status, "running")
    return RunState(run.info.run_id, _name(run), run.data.tags.get(f"{TAG}sweep"), status, ended)


def _ends(points: Sequence[Point], latest: float | None) -> bool:
    """Return whether the newest point is the one that the run itself calls its latest: nothing was cut off."""
    if latest is None:
        return not points
    return bool(points) and _same(max(points)[2], latest)


def _same(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other) or abs(other) > LARGEST:
        return abs(one) > LARGEST or math.isnan(one)
    return one == other


def _agrees(rows: Iterable[Mapping[str, float]], latest: Mapping[str, float]) -> bool:
    """Return whether the last evaluation in the artifact is the last one of the run."""
    last: dict[str, float] = {}
    for row in rows:
        last.update({m: v for m, v in row.items() if m.startswith(f"{keys.EVAL_LOSS}/")})
    return last == {m: v for m, v in latest.items() if m.startswith(f"{keys.EVAL_LOSS}/")}
