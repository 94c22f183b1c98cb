"""W&B's runs, read back whole."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Literal

from wandb.apis.public.runs import Run

from bimix_integrations.trackers.wandb import analyses, artifacts, cache, histories
from bimix_integrations.trackers.wandb.project import Project, as_source_error, server
from bimix_integrations.trackers.wandb.rows import (
    HOST,
    MANIFEST,
    STEP,
    TIME,
    has_failed,
    is_ours,
    manifest_of,
    own_rows,
    summary_values,
)
from bimix_integrations.trackers.wandb.rows import histories as points_of
from bimix_tracking.data.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_json
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import RunError, SourceError, did_you_mean
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.other_tools.patterns import unrecognised
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.sizes import with_sizes
from bimix_tracking.tracking.ports import RunState, Wanted, WriteBack
from bimix_tracking.tracking.reading import read_each, reasons, why

_THREADS = 8
_PER_PAGE = 200
_SHORT = 3
"""Pages of a history that cost no more than an artifact."""
_GOING = {"running", "pending", "preempting", "preempted"}


class WandbSource:
    """Read the finished training runs of a project, a sweep or a group, and write the analysis beside them.

    A short history is read whole: three requests. Of a long one, `bimix/curves.json` takes five in all, and is believed
    where it ends as the run's summary does. What was read of a finished run is kept in a cache on the local disk.

    Args:
        uri: `wandb:ENTITY/PROJECT[/sweeps/ID][/groups/NAME]`.
        wanted: Which runs count; its filter is a JSON of W&B's (MongoDB's) language.

    Raises:
        SourceError: No such URI, or the filter is none.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.wanted = wanted or Wanted()
        self._project = Project(uri)
        self.uri = self._project.uri
        self._filter = self._filters()

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the training runs."""
        return self.wanted.pooled(self.records(progress), self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read the training runs, in the order in which they began; those not finished are excluded, unless wanted."""
        runs = self._runs()
        records = read_each(runs, self._record, _named, progress=progress, threads=_THREADS)
        cache.trim()
        if not any(record.rows for record in records):
            because = reasons(records)
            raise SourceError(
                f"{self.uri} has no finished training run with rows ({because}{'; ' if because else ''}"
                f"{len(runs) - len(records)} runs of another kind). Train with a wandb: tracker, ask for unfinished "
                "runs, or say with a mixtures file how other tools' runs are read."
                f"{self._unrecognised(runs, records)}"
            )
        return records

    def states(self) -> list[RunState]:
        """Say how far each training run is."""
        states = [self._state(run) for run in self._runs()]
        return [state for state in states if state is not None]

    def write_back(self, analysis: WriteBack) -> str:
        """Write a run of role `analysis` with the artifacts and the note; see `analyses`."""
        return analyses.write(self._project, analysis)

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        return analyses.find(self._project, key)

    def _filters(self) -> dict[str, Any]:
        conditions: list[dict[str, Any]] = []
        if self.wanted.filter is not None:
            try:
                asked = parse_json(self.wanted.filter)
            except ValueError:
                asked = None
            if not isinstance(asked, dict):
                raise SourceError(
                    f"{self.wanted.filter!r} is not a W&B filter: write JSON such as "
                    '{"config.bimix.sweep": "pilot"} or {"tags": {"$in": ["pilot"]}}'
                )
            conditions.append(asked)
        if self._project.sweep is not None:
            # Ours beside a sweep's run isn't the sweep's. W&B's language has had both paths into a config.
            beside = (f"config.{MANIFEST}.{HOST}.sweep", f"config.{MANIFEST}.value.{HOST}.sweep")
            conditions.append({"$or": [{path: self._project.sweep} for path in ("sweep", *beside)]})
        if self._project.group is not None:
            conditions.append({"group": self._project.group})
        return conditions[0] if len(conditions) == 1 else {"$and": conditions} if conditions else {}

    def _runs(self) -> list[Run]:
        entity = self._project.settle_entity()
        api = self._project.api
        api.flush()  # type: ignore[no-untyped-call]  # half-typed; it keeps lists of runs, and their states with them
        try:
            with as_source_error(self.uri):
                # Lazily, each run's config and summary would be a request of its own.
                return list(
                    api.runs(f"{entity}/{self._project.name}", filters=self._filter, lazy=False, per_page=_PER_PAGE)
                )
        except SourceError as error:
            if "Could not find project" not in str(error):
                raise
        near = did_you_mean(self._project.name, self._project.known())
        raise SourceError(f"{self.uri}: {entity!r} has no project {self._project.name!r} at {server()}; {near}")

    def _state(self, run: Run) -> RunState | None:
        try:
            manifest = self._manifest(run)
            if manifest is None and (self.wanted.foreign is None or not self._foreign_metrics(run)):
                return None
            if manifest is not None and manifest.role != "train":
                return None
            sweep = (None if manifest is None else manifest.sweep) or run.sweep_name
            state = _state(run)
            ended = None if state == "running" else _seconds(run)
            names = () if manifest is None else manifest.names
            return RunState(*_named(run), None if sweep is None else str(sweep), state, ended, names=names)
        except Exception as error:  # noqa: BLE001  # one broken run is one run
            return RunState(*_named(run), None, "failed", trouble=why(error))

    def _manifest(self, run: Run) -> RunManifest | None:
        fields = _config(run).get(MANIFEST)
        return manifest_of(fields) if isinstance(fields, Mapping) else None

    def _record(self, run: Run) -> RunRecord | None:
        """Return a training run as a record, None where it is of another kind."""
        config, (run_id, name) = _config(run), _named(run)
        manifest = self._manifest(run)
        metrics = self._foreign_metrics(run) if manifest is None else []
        if not metrics if manifest is None else manifest.role != "train":
            return None
        if _state(run) != "finished" and not self.wanted.unfinished:
            state = "failed" if run.state == "finished" else run.state
            return RunRecord.excluded(run_id, name, f"the run is not finished (it is {state})", manifest)
        if manifest is not None:
            return self._own(run, manifest)
        if self.wanted.foreign is None:  # its mixture is unknown: that is reported, without reading it
            return ForeignRuns().record(run_id, name, dict.fromkeys(metrics, ()), config)
        with as_source_error(self.uri):
            rows = self._foreign_rows(run, metrics)
        return self._foreign(run, self.wanted.foreign, metrics, rows)

    def _own(self, run: Run, manifest: RunManifest) -> RunRecord:
        place, state = self._place(run, "own"), _fingerprint(run)
        kept = cache.find(place, state) if run.state == "finished" else None
        rows, mended = _kept(kept)
        if not rows:
            curves = self._curves(run)
            rows, mended = own_rows(self._rows(run)) if curves is None else (curves, {})
            if run.state == "finished":
                cache.keep(place, state, {"rows": rows, "mended": mended})
        record = RunRecord(run.id, run.name or run.id, manifest, rows, exclusions=mended)
        logged = summary_values(run.summary_metrics) | dict(_config(run))
        return with_sizes(record, (self.wanted.foreign or ForeignRuns()).given, logged)

    def _curves(self, run: Run) -> list[dict[str, float]] | None:
        """Return the rows of the run's own artifact, if that is the cheaper way, and all that its history has."""
        if int(_attribute(run, "historyLineCount") or 0) <= _SHORT * histories.PAGE:
            return None
        path = f"{run.entity}/{run.project}/{artifacts.run_artifact(run.id)}:latest"
        try:
            artifact = artifacts.find(self._project.api, path)
            text = None if artifact is None else artifacts.read_text(artifact, CURVES)
            rows = [] if text is None else parse_curves(text)[1]
        except Exception:  # noqa: BLE001  # the history is there, and says it if the server is away
            return None
        return rows if rows and histories.ends_with(rows, run.summary_metrics) else None

    def _rows(self, run: Run) -> list[dict[str, float]]:
        """Return the run's history, checked against its summary: W&B's cache of histories once had holes."""
        missed: list[str] = []
        for fresh in (False, True):
            with as_source_error(self.uri):
                rows = histories.scanned(run, is_ours, fresh=fresh)
            missed = histories.misses(rows, run.summary_metrics)
            if not missed or run.state != "finished":
                return rows
        raise RunError(
            f"W&B's history of it has {len(rows)} rows, and lacks the latest value of {', '.join(sorted(missed)[:5])} "
            f"({len(missed)} metrics) that its summary has: {run.summary_metrics.get(missed[0])}. "
            "Is it still being exported? Try again in some minutes"
        )

    def _foreign_metrics(self, run: Run) -> list[str]:
        """Return what is to be read of a run that logged without this package; nothing where it isn't recognised."""
        names = summary_values(run.summary_metrics)
        try:
            return (self.wanted.foreign or ForeignRuns()).wanted(names)
        except SourceError as error:
            if self.wanted.foreign is None:  # ambiguous, of a run that nobody has asked for
                return []
            raise RunError(str(error)) from error

    def _foreign(self, run: Run, foreign: ForeignRuns, metrics: list[str], rows: list[dict[str, float]]) -> RunRecord:
        summary = summary_values(run.summary_metrics)
        lines = int(_attribute(run, "historyLineCount") or 0)
        if lines and not rows:
            raise RunError(f"W&B gave none of the {lines} lines of its history. Try again in some minutes")
        try:
            history, notes = foreign.with_summary(points_of([rows], metrics), summary)
            record = foreign.record(*_named(run), history, summary | dict(_config(run)))
        except SourceError as error:
            raise RunError(str(error)) from error
        return dataclasses.replace(record, notes={**record.notes, **notes})

    def _unrecognised(self, runs: list[Run], records: list[RunRecord]) -> str:
        known = {record.run_id for record in records}
        others = [run for run in runs if run.id not in known and MANIFEST not in _config(run)]
        return unrecognised(name for run in others for name in summary_values(run.summary_metrics))

    def _foreign_rows(self, run: Run, metrics: list[str]) -> list[dict[str, float]]:
        place, state = self._place(run, json.dumps(sorted(metrics))), _fingerprint(run)
        rows, _ = _kept(cache.find(place, state) if run.state == "finished" else None)
        if not rows:
            rows = histories.scanned(run, {*metrics, STEP, TIME}.__contains__)
            if run.state == "finished":
                cache.keep(place, state, {"rows": rows, "mended": {}})
        return rows

    def _place(self, run: Run, what: str) -> list[str]:
        return [server(), str(run.entity), str(run.project), run.id, what]


def _named(run: Run) -> tuple[str, str]:
    return str(run.id), str(run.name or run.id)


def _config(run: Run) -> Mapping[str, Any]:
    return run.config if isinstance(run.config, Mapping) else {}


def _fingerprint(run: Run) -> list[object]:
    """Return what changes with a run's history: its last step, its lines, and the latest values."""
    summary = {name: value for name, value in run.summary_metrics.items() if name != "_wandb"}
    return [
        summary.get(STEP),
        _attribute(run, "historyLineCount"),
        json.dumps(summary, sort_keys=True, default=str),
    ]


def _attribute(run: Run, name: str) -> Any:
    """Return what the server says of a run and the SDK has no property for; None where it says nothing."""
    return getattr(run, name, None)


def _kept(content: Any) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Return what the cache holds, nothing where it isn't what was put there."""
    try:
        rows = [{str(name): float(value) for name, value in row.items()} for row in content["rows"]]
        return rows, {str(reason): int(count) for reason, count in content["mended"].items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        return [], {}


def _state(run: Run) -> Literal["running", "finished", "failed"]:
    if run.state in _GOING:
        return "running"
    return "failed" if run.state != "finished" or has_failed(_config(run).get(MANIFEST)) else "finished"


def _seconds(run: Run) -> float | None:
    """Return the run's last sign of life, seconds since 1970."""
    try:
        said = dt.datetime.fromisoformat(str(_attribute(run, "heartbeatAt")))
    except ValueError:
        return None
    return said.replace(tzinfo=said.tzinfo or dt.UTC).timestamp()
