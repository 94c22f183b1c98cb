"""Trackers and sources that need no service: a folder of JSON lines, and a CSV table.

DIR/<run>/manifest.json    what the run says of itself, and its name and key
DIR/<run>/rows.jsonl       one row of metrics a line, appended as it comes
DIR/<run>/FINISHED         left by `finish`; a run without it is still going, or died
DIR/<run>/FAILED           in its place, left by `finish(ended=False)`: training raised or was killed
DIR/<run>/lock             held by who writes
DIR/<run>/curves.json      and other artifacts, their leading `bimix/` dropped
DIR/analysis/<key>/        the artifacts of an analysis, and its note
DIR/analysis/recommended   the key of the newest one
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Literal

from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import RunError, SourceError
from bimix_tracking.files.regular_file import printable, text_of
from bimix_tracking.progress import Progress
from bimix_tracking.tracking import run_folder
from bimix_tracking.tracking.jsonl_tracker import JsonlTracker as JsonlTracker  # noqa: PLC0414  # the entry point is here
from bimix_tracking.tracking.jsonl_tracker import inside, path_of
from bimix_tracking.tracking.ports import RunState, Wanted, WriteBack
from bimix_tracking.tracking.reading import read_each, reasons, why
from bimix_tracking.tracking.run_folder import FINISHED, ROWS

_ANALYSES, _RECOMMENDED, _MIXTURE = "analysis", "recommended", "mixture.yaml"
_LARGEST_MARK, _LARGEST_MIXTURE = 2**12, 2**24
_UNFINISHED = "the run is not finished: it is going, or died"
_FAILED = "the run failed"


class JsonlSource:
    """Read the runs of a folder that `JsonlTracker` wrote.

    Args:
        uri: `jsonl:DIR`; the folder may come later.
        wanted: Which runs count. There is no language to filter by, and there are no runs of other tools here.

    Raises:
        SourceError: A filter or a mixtures file is asked for.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = _unfiltered(uri, wanted)
        self.directory = path_of(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the training runs, by name."""
        return self.wanted.pooled(self.records(progress), self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read the training runs by name; those that aren't finished are excluded, unless asked for.

        Raises:
            SourceError: There is no such folder, no finished run in it, or none that can be read.
        """
        folders = self._folders()
        records = read_each(folders, self._record, _named, progress=progress)
        records = [record for record in records if record.manifest.role == "train"]
        if any(record.rows or not record.exclusions for record in records):
            return records
        if all({_UNFINISHED, _FAILED} & record.exclusions.keys() for record in records):
            raise SourceError(
                f"{self.uri}: no finished run in it (a run is a folder with {ROWS} and {FINISHED}), "
                f"{len(records)} unfinished"
            )
        raise SourceError(f"{self.uri}: none of its {len(records)} runs can be read ({reasons(records)})")

    def states(self) -> list[RunState]:
        """Say how far each training run is: finished, with the time of its last file, or running, which may be dead."""
        states = [self._state(folder) for folder in self._folders()]
        return [state for state in states if state is not None]

    def write_back(self, analysis: WriteBack) -> str:
        """Copy the artifacts to `DIR/analysis/<key>/`, where they then stay, and name that one in `recommended`."""
        analyses = self.directory / _ANALYSES
        target = inside(analyses, analysis.key)
        staging = analyses / f".{analysis.key}.{uuid.uuid4().hex[:8]}"
        try:
            if not target.is_dir():
                staging.mkdir(parents=True)
                # Its children, not the folder: a temporary folder is its owner's alone, and a copy would be too.
                for child in analysis.directory.iterdir():
                    (shutil.copytree if child.is_dir() else shutil.copyfile)(child, staging / child.name)
                (staging / "note.md").write_text(analysis.note, encoding="utf-8")
                try:
                    staging.rename(target)
                except OSError:
                    if not target.is_dir():  # else another process has written the same analysis in the meantime
                        raise
            mark = analyses / f".{_RECOMMENDED}.{uuid.uuid4().hex[:8]}"
            mark.write_text(f"{analysis.key}\n", encoding="utf-8")
            mark.replace(analyses / _RECOMMENDED)
        except OSError as error:
            raise SourceError(f"{self.uri}: the analysis was not written: {error}") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return str(target)

    def find_analysis(self, key: str | None = None) -> str | None:
        """Return the `mixture.yaml` of the analysis of a key, or of the recommended one."""
        analyses = self.directory / _ANALYSES
        try:
            if key is None:
                key = text_of(analyses / _RECOMMENDED, _LARGEST_MARK).strip()
            return text_of(inside(analyses, key) / _MIXTURE, _LARGEST_MIXTURE)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RunError) as error:
            raise SourceError(f"{self.uri}: its analysis cannot be read: {why(error)}") from error

    def _folders(self) -> list[Path]:
        try:
            return sorted(folder for folder in self.directory.iterdir() if run_folder.is_run(folder))
        except (FileNotFoundError, NotADirectoryError):
            raise SourceError(f"{self.uri}: there is no folder {self.directory}") from None
        except OSError as error:
            raise SourceError(f"{self.uri}: {self.directory} cannot be read: {error.strerror}") from error

    def _record(self, folder: Path) -> RunRecord:
        ended = run_folder.finished(folder)
        if ended or self.wanted.unfinished:
            return run_folder.record_of(folder)
        try:
            manifest = run_folder.manifest_of(folder)
        except RunError:
            manifest = None  # it is being written
        return RunRecord.excluded(*_named(folder), _FAILED if run_folder.failed(folder) else _UNFINISHED, manifest)

    def _state(self, folder: Path) -> RunState | None:
        """Return a training run's state; of one that ended and cannot be read, that it failed, and why."""
        ended: float | None = None
        try:
            ended = run_folder.ended(folder)
            manifest = run_folder.manifest_of(folder)
        except (RunError, OSError) as error:
            # Without an end it is being written, or may not be looked into.
            if ended is None and isinstance(error, RunError):
                return RunState(*_named(folder), None, "running")
            return RunState(*_named(folder), None, "failed", ended, trouble=why(error))
        if manifest.role != "train":
            return None
        status: Literal["running", "finished", "failed"] = "running" if ended is None else "finished"
        if ended is not None and run_folder.failed(folder):
            status = "failed"
        return RunState(*_named(folder), manifest.sweep, status, ended, names=manifest.names)


class CsvSource:
    """Read a table as `Observations.to_csv` (and `bimix pull`) writes it.

    Args:
        uri: `csv:FILE`.
        wanted: A table has what was wanted when it was pulled; see `JsonlSource`.

    Raises:
        SourceError: A filter, a mixtures file or realised shares are asked for.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = _unfiltered(uri, wanted)
        if self.wanted.shares != "nominal":
            raise SourceError(f"{uri}: a table has one proportion a run and domain; pull it with --shares realised")
        self.path = path_of(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Read the table."""
        if not self.path.is_file():
            raise SourceError(f"{self.uri}: there is no file {self.path}")
        return Observations.from_csv(self.path, targets=self.wanted.targets)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Refuse: a table has losses, but no runs and no manifests."""
        raise self._no_runs()

    def states(self) -> list[RunState]:
        """Refuse: nothing in a table is going on."""
        raise self._no_runs()

    def write_back(self, analysis: WriteBack) -> str:
        """Refuse: a table has no place for an analysis."""
        raise SourceError(f"{self.uri}: nothing can be written back into a table; use --out DIR")

    def find_analysis(self, key: str | None = None) -> str | None:
        """Refuse: a table has no place for an analysis."""
        raise SourceError(f"{self.uri}: a table holds no analysis; name the tracker that it was pulled from")

    def _no_runs(self) -> SourceError:
        return SourceError(
            f"{self.uri}: a table has no runs to group, wait for or watch; name the tracker that it was pulled from"
        )


def _unfiltered(uri: str, wanted: Wanted | None) -> Wanted:
    wanted = wanted or Wanted()
    if wanted.filter is not None:
        raise SourceError(f"{uri}: plain files can't be filtered by {wanted.filter!r}; drop the filter")
    if wanted.foreign is not None:
        raise SourceError(f"{uri}: plain files hold no runs of other tools; leave the mixtures file out")
    return wanted


def _named(folder: Path) -> tuple[str, str]:
    return printable(folder.name), run_folder.name_of(folder)
