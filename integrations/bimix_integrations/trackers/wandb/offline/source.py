"""W&B's offline runs, read from their files: no server, no subprocess, only the SDK's protobuf classes."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from bimix_integrations.trackers.wandb.offline.run_file import RunFile, merged, none, read_file, summary_of, unreadable
from bimix_integrations.trackers.wandb.rows import (
    MANIFEST,
    STEP,
    TIME,
    has_failed,
    histories,
    is_ours,
    manifest_of,
    own_rows,
)
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import RunError, SourceError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.local import JsonlSource
from bimix_tracking.tracking.other_tools.patterns import unrecognised
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.sizes import with_sizes
from bimix_tracking.tracking.ports import RunState, Wanted, WriteBack
from bimix_tracking.tracking.reading import read_each, reasons, why

_DEPTH = 4
_SETTLES = 1.0
"""Seconds after which a sidecar that lives has written what it has."""
_CUT_OFF = "its file ends within a record, as a killed process leaves it: what comes before is used"


class WandbOfflineSource:
    """Read the runs in the `.wandb` files below a folder, offline ones and the copies that online runs leave.

    Several files of one run, as a resumed run leaves them, are one run. A run that logged without this package is read
    where `wanted.foreign` says how.

    Args:
        uri: `wandb-offline:DIR`. DIR is W&B's folder `wandb`, one above it, a run's folder or a file.
        wanted: Which runs count; files have no language to filter by.

    Raises:
        SourceError: A filter is asked for.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = wanted or Wanted()
        if self.wanted.filter is not None:
            raise SourceError(
                f"{uri}: files can't be filtered by {self.wanted.filter!r}; drop the filter, or name one folder"
            )
        self.path = Path(uri.partition(":")[2] or ".").expanduser()
        self._analyses = JsonlSource(f"jsonl:{(self.path.parent if self.path.is_file() else self.path) / 'bimix'}")
        self._states: dict[Path, tuple[tuple[int, int], RunFile]] = {}

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the training runs."""
        return self.wanted.pooled(self.records(progress), self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read the training runs, in the order in which they began; those not finished are excluded, unless wanted.

        What comes before damage in a file is used, whether the run is finished or not, for that cannot be known. A run
        of which a file or its folder cannot be read at all is excluded.
        """
        paths, files = self._paths()
        for done, path in enumerate(paths, 1):
            files.append(read_file(path, is_ours))
            if progress:
                progress("reading files", done, len(paths))
        if not self.wanted.unfinished:
            files = _settled(files)
        runs = _by_run(files)
        records = read_each(runs, self._record, lambda run: (run[-1].run_id, _name(run)))
        if not any(record.rows for record in records):
            because = reasons(records)
            raise SourceError(
                f"{self.uri}: no finished training run with rows in its {len(paths)} files "
                f"({because}{'; ' if because else ''}{len(runs) - len(records)} runs of another kind). Train with a "
                "wandb: tracker, ask for unfinished runs, or say with a mixtures file how other tools' runs are read."
                f"{self._unrecognised(runs, records)}"
            )
        return records

    def states(self) -> list[RunState]:
        """Say how far each training run is; a file that hasn't changed isn't read again."""
        paths, files = self._paths()
        files += map(self._looked_into, paths)
        states = [self._state(run) for run in _by_run(files)]
        return [state for state in states if state is not None]

    def write_back(self, analysis: WriteBack) -> str:
        """Write the artifacts to `DIR/bimix/analysis/<key>/`, name that one in `recommended`, and say how to publish.

        The runs' own files stay as they are: W&B reads them when they are synced.
        """
        folder = self._analyses.write_back(analysis)
        return f"{folder} (wandb artifact put --name PROJECT/bimix-mixture --type mixture --alias recommended {folder})"

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        return self._analyses.find_analysis(key)

    def _looked_into(self, path: Path) -> RunFile:
        try:
            stat = path.stat()
        except OSError as error:
            return unreadable(path, why(error))
        now = (stat.st_size, stat.st_mtime_ns)
        known = self._states.get(path)
        if known is None or known[0] != now:
            known = self._states[path] = (now, read_file(path, None if self.wanted.foreign is None else none))
        return known[1]

    def _state(self, run: list[RunFile]) -> RunState | None:
        run_id, name, ended = run[-1].run_id, _name(run), run[-1].ended
        try:
            manifest = self._manifest(run)
            if manifest.role != "train" if manifest is not None else not self._metrics(run):
                return None
        except Exception as error:  # noqa: BLE001  # one broken run is one run
            return RunState(run_id, name, None, "failed", ended, trouble=why(error))
        if manifest is None:
            return RunState(run_id, name, None, _status(run), ended)
        return RunState(run_id, name, manifest.sweep, _status(run), ended, names=manifest.names)

    def _paths(self) -> tuple[list[Path], list[RunFile]]:
        """Return the files, and the folders that may not be looked into."""
        if self.path.is_file():
            return [self.path], []
        if not self.path.is_dir():
            raise SourceError(f"{self.uri}: there is no folder {self.path}")
        found: list[Path] = []
        refused: list[RunFile] = []
        depth_of_root = len(self.path.parts)

        def refuse(error: OSError) -> None:
            folder = Path(error.filename)
            if folder == self.path:
                raise SourceError(f"{self.uri}: {folder} cannot be read: {error.strerror}") from error
            refused.append(unreadable(folder, why(error)))

        for folder, inner, names in os.walk(self.path, onerror=refuse):  # no links: `latest-run` is one
            here = Path(folder)
            if len(here.parts) - depth_of_root >= _DEPTH:
                inner.clear()
            found += [here / name for name in names if re.fullmatch(r"run-.+\.wandb", name)]
        if not found and not refused:
            raise SourceError(
                f"{self.uri}: no file run-*.wandb in {self.path}, nor {_DEPTH} folders down. "
                "W&B writes them to ./wandb, or to where WANDB_DIR says"
            )
        return sorted(found), refused

    def _record(self, run: list[RunFile]) -> RunRecord | None:
        """Return a training run as a record, None where it is of another kind."""
        manifest, run_id, name = self._manifest(run), run[-1].run_id, _name(run)
        if not any(file.said for file in run):
            reason = f"its file {run[-1].path.name} is empty, as a killed process leaves it"
            return RunRecord.excluded(run_id, name, reason)
        metrics = self._metrics(run) if manifest is None else []
        if not metrics if manifest is None else manifest.role != "train":
            return None
        flaws = {f"its file {f.path.name} has {f.damage}: what comes after is not read": 1 for f in run if f.damage}
        status = _status(run)
        if status != "finished" and not self.wanted.unfinished and not flaws:
            failed = f"it ended with code {run[-1].exit_code}" if run[-1].exit_code else "its training failed"
            why = failed if status == "failed" else "it is going, or was killed"
            return RunRecord.excluded(run_id, name, f"the run is not finished: {why}", manifest)
        if manifest is None:
            record = self._foreign(run, metrics)
        else:
            rows, mended = own_rows(row for file in run for row in file.rows)
            record = RunRecord(run_id=run_id, name=name, manifest=manifest, rows=rows, exclusions=mended)
            record = with_sizes(record, (self.wanted.foreign or ForeignRuns()).given, _logged(run))
        for file in run:
            file.rows.clear()  # there is another copy
        cut = sum(file.cut_off for file in run)
        notes = {**record.notes, _CUT_OFF: cut} if cut else record.notes
        return dataclasses.replace(record, exclusions={**record.exclusions, **flaws}, notes=notes)

    def _metrics(self, run: list[RunFile]) -> list[str]:
        """Return what is to be read of a run that logged without this package; nothing where it isn't recognised."""
        if self.wanted.foreign is None:
            return []
        names = {name: None for file in run for name in file.names}
        try:
            return self.wanted.foreign.wanted(names) or self.wanted.foreign.wanted({**names, **summary_of(run)})
        except SourceError as error:  # of this run's names; what is known of all runs was checked when it was read
            raise RunError(str(error)) from error

    def _unrecognised(self, runs: list[list[RunFile]], records: list[RunRecord]) -> str:
        known = {record.run_id for record in records}
        others = [run for run in runs if run[-1].run_id not in known and MANIFEST not in merged(run)]
        logged = [name for run in others for file in run for name in file.names if name[:1] != "_"]
        return unrecognised([*logged, *(name for run in others for name in summary_of(run))])

    def _foreign(self, run: list[RunFile], metrics: list[str]) -> RunRecord:
        foreign = self.wanted.foreign or ForeignRuns()
        wanted = {*metrics, STEP, TIME}
        parts = [read_file(file.path, wanted.__contains__).rows for file in run]
        try:
            history, notes = foreign.with_summary(histories(parts, metrics), summary_of(run))
            record = foreign.record(run[-1].run_id, _name(run), history, _logged(run))
        except SourceError as error:
            raise RunError(str(error)) from error
        return dataclasses.replace(record, notes={**record.notes, **notes})

    def _manifest(self, run: list[RunFile]) -> RunManifest | None:
        """Return what a run of ours says of itself, None where it is none.

        Raises:
            BimixError: A file of the run cannot be read, or holds no manifest of ours.
        """
        for file in run:
            if file.trouble is not None:
                named = file.path.name in file.trouble
                raise RunError(file.trouble if named else f"{file.path.name}: {file.trouble}")
        fields = merged(run).get(MANIFEST)
        return manifest_of(fields) if isinstance(fields, Mapping) else None


def _settled(files: list[RunFile]) -> list[RunFile]:
    """Return files, those again that were written a moment ago and don't say how their run ended.

    W&B's `finish` may return before its sidecar has written that: under load in one of ten runs.
    """
    open_ended = [file for file in files if file.trouble is None and file.exit_code is None]
    ages = [time.time() - file.path.stat().st_mtime for file in open_ended if file.path.exists()]
    if not any(0 <= age < _SETTLES for age in ages):
        return files
    time.sleep(_SETTLES)
    again = {file.path for file in open_ended}
    return [read_file(file.path, is_ours) if file.path in again else file for file in files]


def _by_run(files: list[RunFile]) -> list[list[RunFile]]:
    runs: dict[str, list[RunFile]] = {}
    for file in sorted(files, key=lambda file: file.started):
        runs.setdefault(file.run_id, []).append(file)
    return list(runs.values())


def _logged(run: list[RunFile]) -> dict[str, object]:
    """Return what a run's summary and config say of it."""
    return {**summary_of(run), **{name: value for name, value in merged(run).items() if name != "_wandb"}}


def _status(run: list[RunFile]) -> Literal["running", "finished", "failed"]:
    code = run[-1].exit_code
    if code == 0 and has_failed(merged(run).get(MANIFEST)):
        return "failed"
    return "running" if code is None else "failed" if code else "finished"


def _name(run: list[RunFile]) -> str:
    return next((file.name for file in reversed(run) if file.name != file.run_id), run[-1].run_id)
