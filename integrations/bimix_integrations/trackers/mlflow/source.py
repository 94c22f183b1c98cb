"""MLflow's runs, read back whole: the fastest way that there is, and every run checked against its latest values.

From a database: one query. From files: as they are. From a server: each run's `bimix/curves.json`, then the bulk
endpoint for runs without, then page after page for whatever that may have cut off. One broken run is one run: it is
excluded with the reason, and the others are read.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from bimix_integrations.trackers.mlflow import analyses
from bimix_integrations.trackers.mlflow.artifacts import ArtifactError, read_text
from bimix_integrations.trackers.mlflow.stores.reading import Found, Histories, Reader
from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_integrations.trackers.mlflow.tags import ARTIFACT, PREFIX, fields_of, is_complete
from bimix_tracking.credentials import without_credentials
from bimix_tracking.data import metric_names
from bimix_tracking.data.histories import LARGEST, Point, rows_of
from bimix_tracking.data.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_json
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import BimixError, RunError, SourceError, listed
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.sizes import with_sizes
from bimix_tracking.tracking.ports import RunState, Wanted, WriteBack
from bimix_tracking.tracking.reading import read_each, why

_THREADS = 8
_STATUS: Mapping[str, Literal["finished", "failed"]] = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "failed"}
_BROKEN = (BimixError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What reading a run raises that isn't as it should be; a server that is down raises something else."""
_UNREADABLE = "the run cannot be read: "
_OF_ONE_RUN = ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
_FEW = 8


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
        return self.wanted.pooled(self.records(progress), self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read every finished run of role `train`, and those of other tools whose names for losses are known."""
        with self._errors():
            reader = self._store.reader()
            found = self._runs(reader)
            runs, excluded = self._with_metrics(found)
            read = [run for run in runs if run.info.status == "FINISHED" or self.wanted.unfinished]
            if not read and not excluded:
                raise self._nothing(reader, found)
            kept, histories = self._at_once(reader, read)

        def record(run: Run) -> RunRecord:
            with self._errors():
                found = kept.get(run.info.run_id) or self._record(reader, run, histories.get(run.info.run_id))
            return found if _role(run) is None else with_sizes(found, self._foreign.given, _logged(run))

        records = [*excluded, *read_each(runs, record, _named, progress=progress, threads=_THREADS)]
        if all(_broken(one) for one in records):
            raise self._none_readable(records)
        return records

    def states(self) -> list[RunState]:
        """Say how far each training run is."""
        with self._errors():
            found = self._runs(self._store.reader())
            broken = {record.run_id: record for record in self._with_metrics(found)[1]}
            training = [
                run for run in found.runs if _role(run) == "train" or run.info.run_id in broken or self._metrics(run)
            ]
            return [_state(run, broken.get(run.info.run_id)) for run in training]

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

    def _runs(self, reader: Reader) -> Found:
        """Return the experiment's runs that are no analyses, in the order they were started; deleted ones never are."""
        found = reader.runs(self._store.experiment(reader), self.wanted.filter)
        return Found([run for run in found.runs if _role(run) in (None, "train")], found.broken)

    def _with_metrics(self, found: Found) -> tuple[list[Run], list[RunRecord]]:
        """Return the runs that have metrics to be read, and those of which that is unknown."""
        runs, excluded = [], list(found.broken)
        for run in found.runs:
            try:
                if self._metrics(run):
                    runs.append(run)
            except _BROKEN as error:
                excluded.append(_excluded(run, error))
        return runs, excluded

    def _metrics(self, run: Run) -> list[str]:
        """Return the metrics to be read of a run; of a parent that only holds others, none."""
        if _role(run) is None:
            try:
                return self._foreign.wanted(run.data.metrics)
            except SourceError:  # ambiguous
                if self.wanted.foreign is not None:
                    raise
                return []  # nobody has asked for it
        return [m for m in run.data.metrics if _is_used(m)] or [metric_names.TOKENS]

    def _nothing(self, reader: Reader, found: Found) -> SourceError:
        ours = sum(_role(run) is not None for run in found.runs)
        everything = reader.runs(self._store.experiment(reader)).runs
        chosen = f" that match {self.wanted.filter!r}" if self.wanted.filter else ""
        seen = sorted({name for run in found.runs if _role(run) is None for name in run.data.metrics})
        pattern = (
            f". Metrics seen: {listed(seen, _FEW)}; if losses of domains are among them, say which by `pattern` in "
            "--mixtures FILE"
        )
        return SourceError(
            f"{self._store.wanted} at {self._store.shown} has no finished training run"
            f"{chosen} ({ours} unfinished, {len(everything) - ours} others). Train with DomainLossCallback or "
            "DomainLossRecorder first, read those that are going with --unfinished; of other tools' runs, losses whose "
            f"names `bimix_tracking.tracking.other_tools.patterns` lists are read{pattern if seen else ''}"
        )

    def _none_readable(self, records: Sequence[RunRecord]) -> SourceError:
        broken = [record for record in records if _broken(record)]
        reasons = "; ".join(f"run {r.name!r} ({r.run_id}): {', '.join(r.exclusions)}" for r in broken[:_FEW])
        more = f"; and {len(broken) - _FEW} more" if len(broken) > _FEW else ""
        return SourceError(f"{self._store.wanted} at {self._store.shown} has no run to read: {reasons}{more}")

    def _at_once(self, reader: Reader, runs: Sequence[Run]) -> tuple[dict[str, RunRecord], Histories]:
        """Return the records, and the histories, of those runs that could be read with few requests, and whole."""
        kept: dict[str, RunRecord] = {}
        # Of 300 runs (tests/benchmarks/reading.py) the query takes a fraction of what their files take.
        if not reader.whole:
            unreadable: set[str] = set()
            with ThreadPoolExecutor(_THREADS) as pool:
                found = pool.map(lambda run: self._from_curves(run, unreadable), runs)
                kept = {record.run_id: record for record in found if record is not None}
            runs = [run for run in runs if run.info.run_id not in kept]
        names = sorted({name for run in runs for name in self._metrics(run)})
        histories: Histories = reader.histories([run.info.run_id for run in runs], names) if runs else {}
        whole: Histories = {}
        for run in runs:
            history, latest = histories.get(run.info.run_id, {}), run.data.metrics
            if reader.whole or all(_ends(history.get(name, ()), latest.get(name)) for name in self._metrics(run)):
                whole[run.info.run_id] = history
        return kept, whole

    def _record(self, reader: Reader, run: Run, history: Mapping[str, Sequence[Point]] | None) -> RunRecord:
        """Return a run's record.

        Args:
            reader: Of the store.
            run: The run.
            history: Its metrics, where they were read with those of others; None: they are read by themselves.

        Raises:
            BimixError: The run cannot be read.
        """
        if run.info.status != "FINISHED" and not self.wanted.unfinished:
            return RunRecord.excluded(*_named(run), f"the run is not finished (it is {run.info.status})")
        if history is None:
            try:
                history = reader.history(run.info.run_id, self._metrics(run))
            except MlflowException as error:
                if error.error_code not in _OF_ONE_RUN:
                    raise
                raise RunError(self._store.redacted(error)) from None
        unread = reader.mended(run.info.run_id)
        if _role(run) is None:
            try:
                return _with(self._foreign.record(*_named(run), history, _logged(run)), unread)
            except SourceError as error:
                raise RunError(str(error)) from error
        manifest, notes = self._manifest(run)
        rows, mended = rows_of({name: history[name] for name in self._metrics(run) if name in history})
        rows = [row for row in rows if metric_names.has_evaluation(row)]
        return RunRecord(*_named(run), manifest, rows, {**mended, **unread}, notes)

    def _from_curves(self, run: Run, unreadable: set[str]) -> RunRecord | None:
        """Return what `bimix/curves.json` holds, if it is there, and says what the run itself says.

        Args:
            run: The run.
            unreadable: Stores of artifacts that cannot be read from here: to be added to, and not to be asked again.
        """
        place = (run.info.artifact_uri or "").partition("://")
        root = place[0] + place[2].partition("/")[0]
        if _role(run) is None or run.info.status != "FINISHED" or root in unreadable:
            return None
        try:
            text = read_text(self._store, run, CURVES)
            if text is None:
                return None
            manifest, rows = parse_curves(text)
            if is_complete(run.data.tags) and manifest != _manifest_of(run):
                return None
        except ArtifactError:
            self._store.check()  # a store of artifacts may be missing; where the server is, nothing can be read
            unreadable.add(root)
            return None
        except _BROKEN:  # the histories hold all of it
            return None
        return RunRecord(*_named(run), manifest, rows) if _agrees(rows, run.data.metrics) else None

    def _manifest(self, run: Run) -> tuple[RunManifest, Mapping[str, int]]:
        """Return a run's manifest, and what is to be said of it."""
        if not is_complete(run.data.tags):  # an earlier version's, which puts what is long into an artifact
            try:
                text = read_text(self._store, run, ARTIFACT)
            except ArtifactError as error:
                self._store.check()
                if f"{PREFIX}domains" not in run.data.tags:
                    raise RunError(str(error)) from error
                return _manifest_of(run), {f"{ARTIFACT} cannot be read, which may say its mixture: {error}": 1}
            if text is not None:
                return RunManifest.from_dict(parse_json(text)), {}
        return _manifest_of(run), {}


def _is_used(metric: str) -> bool:
    """Return whether a metric of a training run says something of its curve."""
    if metric == metric_names.STEP:  # MLflow has it of each point
        return False
    return metric_names.belongs_to_evaluation(metric) or metric.startswith(f"{metric_names.SHARE}/")


def _manifest_of(run: Run) -> RunManifest:
    return RunManifest.from_dict(fields_of(run.data.tags))


def _logged(run: Run) -> dict[str, object]:
    """Return what a run says of itself beside its manifest."""
    return {**run.data.metrics, **run.data.params, **run.data.tags}


def _role(run: Run) -> str | None:
    role: str | None = run.data.tags.get(f"{PREFIX}role")
    return role


def _named(run: Run) -> tuple[str, str]:
    return run.info.run_id, str(run.info.run_name or run.info.run_id)


def _excluded(run: Run, error: Exception) -> RunRecord:
    return RunRecord.excluded(*_named(run), f"{_UNREADABLE}{why(error)}")


def _broken(record: RunRecord) -> bool:
    return any(reason.startswith(_UNREADABLE) for reason in record.exclusions)


def _with(record: RunRecord, unread: Mapping[str, int]) -> RunRecord:
    return replace(record, exclusions={**record.exclusions, **unread}) if unread else record


def _state(run: Run, broken: RunRecord | None) -> RunState:
    ended = None if run.info.end_time is None else run.info.end_time / 1000
    status: Literal["running", "finished", "failed"] = _STATUS.get(run.info.status, "running")
    trouble = None if broken is None else "; ".join(broken.exclusions).removeprefix(_UNREADABLE)
    return RunState(*_named(run), run.data.tags.get(f"{PREFIX}sweep"), status, ended, trouble, _names(run))


def _names(run: Run) -> tuple[str, ...]:
    """Return a run's domains and targets where its tags have them; some are in its artifact alone."""
    try:
        return RunManifest.from_dict(fields_of(run.data.tags)).names
    except _BROKEN:
        return ()


def _ends(points: Sequence[Point], latest: float | None) -> bool:
    """Return whether the newest point is the one that the run itself calls its latest: nothing was cut off."""
    if latest is None:
        return not points
    return bool(points) and _same(max(points)[2], latest)


def _same(one: float, other: float) -> bool:
    if math.isnan(one) or math.isnan(other) or abs(other) > LARGEST:
        return abs(one) > LARGEST or math.isnan(one)
    return one == other


def _agrees(rows: Sequence[Mapping[str, float]], latest: Mapping[str, float]) -> bool:
    """Return whether an artifact's rows end as the run itself does."""
    last: dict[str, float] = {}
    for row in rows:
        last.update({m: v for m, v in row.items() if metric_names.is_evaluation(m)})
    steps = [row[metric_names.STEP] for row in rows]
    return (
        last == {m: v for m, v in latest.items() if metric_names.is_evaluation(m)}
        and all(one < next_ for one, next_ in itertools.pairwise(steps))
        and all(row.get(metric_names.TOKENS, 0.0) <= latest.get(metric_names.TOKENS, math.inf) for row in rows)
    )
