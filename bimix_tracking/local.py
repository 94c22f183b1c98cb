"""Trackers and sources that need no service: a folder of JSON lines, and a CSV table.

DIR/<run>/manifest.json    what the run says of itself
DIR/<run>/rows.jsonl       one row of metrics a line, appended as it comes
DIR/<run>/FINISHED         left by `finish`; a run without it is still going, or died
DIR/<run>/curves.json      and other artifacts, their leading `bimix/` dropped
DIR/analysis/<key>/        the artifacts of an analysis, and its note
DIR/analysis/recommended   the key of the newest one
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bimix_tracking import keys
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_row
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import Progress, Row, RunState, Wanted, WriteBack

_MANIFEST, _ROWS, _FINISHED = "manifest.json", "rows.jsonl", "FINISHED"
_CURVES = Path(CURVES).name
_ANALYSES, _RECOMMENDED, _MIXTURE = "analysis", "recommended", "mixture.yaml"
_UNREAD = RunManifest(domains=("unread",))


class JsonlTracker:
    """Write a run as plain files.

    Args:
        uri: `jsonl:DIR`.
        run_name: The run's folder; a random one otherwise.
    """

    remote = False
    certain = True
    owned = True

    def __init__(self, uri: str, *, run_name: str | None = None) -> None:
        self.uri = uri
        self.run_id: str | None = run_name or uuid.uuid4().hex[:12]
        self._root = _path(uri)
        self.directory = _inside(self._root, self.run_id)
        self._open = False

    def adopt_active(self) -> None:
        """Do nothing: no other code has a run open here."""

    def resume(self, run_id: str, rows: int) -> list[dict[str, float]]:
        """Go on in that folder, after its first `rows` rows; return those that it drops."""
        directory = _inside(self._root, run_id)
        if not directory.is_dir():
            return []
        self.run_id, self.directory, self._open = run_id, directory, True
        for mark in (_FINISHED, _CURVES):  # either says that the run has ended
            (directory / mark).unlink(missing_ok=True)
        if not (directory / _ROWS).exists():
            return []
        dropped = _read_rows(directory / _ROWS)[0][rows:]
        kept = (directory / _ROWS).read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
        (directory / _ROWS).write_text("".join(kept), encoding="utf-8")
        return dropped

    def start(self, manifest: RunManifest) -> None:
        """Make the folder and write the manifest; rows of an earlier run of that name are put aside."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._open:
            self._open = True
            for name in (_ROWS, _CURVES, _FINISHED):
                old = self.directory / name
                if old.exists():
                    old.rename(self.directory / f"{name}.{old.stat().st_mtime_ns}.old")
        self.write_artifact(_MANIFEST, json.dumps(manifest.to_dict(), indent=1))

    def log(self, rows: Sequence[Row]) -> None:
        """Append a line each."""
        lines = [json.dumps({keys.STEP: row.step, **row.metrics}) + "\n" for row in rows]
        with (self.directory / _ROWS).open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def write_artifact(self, path: str, text: str) -> None:
        """Write a file of the run, never outside its folder."""
        target = _inside(self.directory, path.removeprefix("bimix/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")  # whoever reads meanwhile finds it whole, or as it was
        part.write_text(text, encoding="utf-8")
        part.replace(target)

    def finish(self, *, ended: bool = True) -> None:
        """Mark the run as finished."""
        if ended:
            (self.directory / _FINISHED).touch()


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
        self.directory = _path(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the training runs, by name."""
        return Observations.from_records(self.records(progress), source=self.uri)

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        """Read the training runs by name; those that aren't finished are set aside, unless asked for."""
        folders = self._folders()
        if not self.wanted.unfinished and not any(_ended(folder) for folder in folders):
            raise SourceError(
                f"{self.uri}: no finished run in it (a run is a folder with {_ROWS} and {_FINISHED}), "
                f"{len(folders)} unfinished"
            )
        records = []
        for done, folder in enumerate(folders, 1):
            records.append(self._record(folder))
            if progress:
                progress("reading runs", done, len(folders))
        return [record for record in records if record.manifest.role == "train"]

    def states(self) -> list[RunState]:
        """Say how far each training run is: finished, with the time of its last file, or running, which may be dead."""
        states = []
        for folder in self._folders():
            ended = _ended(folder)
            try:
                manifest = self._manifest(folder)
            except SourceError:
                if ended is not None:
                    raise
                manifest = _UNREAD  # it is being written
            if manifest.role == "train":
                status: Literal["running", "finished"] = "running" if ended is None else "finished"
                states.append(RunState(folder.name, folder.name, manifest.sweep, status, ended))
        return states

    def write_back(self, analysis: WriteBack) -> str:
        """Copy the artifacts to `DIR/analysis/<key>/`, where they then stay, and name that one in `recommended`."""
        analyses = self.directory / _ANALYSES
        target = _inside(analyses, analysis.key)
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
                key = (analyses / _RECOMMENDED).read_text(encoding="utf-8").strip()
            return (_inside(analyses, key) / _MIXTURE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.uri}: its analysis cannot be read: {error}") from error

    def _folders(self) -> list[Path]:
        if not self.directory.is_dir():
            raise SourceError(f"{self.uri}: there is no folder {self.directory}")
        files = (_MANIFEST, _ROWS, _CURVES, _FINISHED)
        return [folder for folder in sorted(self.directory.iterdir()) if any((folder / f).exists() for f in files)]

    def _record(self, folder: Path) -> RunRecord:
        if _ended(folder) is None and not self.wanted.unfinished:
            try:
                manifest = self._manifest(folder)
            except SourceError:
                manifest = _UNREAD
            reason = "the run is not finished: it is going, or died"
            return RunRecord.excluded(folder.name, folder.name, reason, manifest)
        rows: list[dict[str, float]]
        try:
            if (folder / _CURVES).exists():
                manifest, rows = parse_curves((folder / _CURVES).read_text(encoding="utf-8"))
                broken = 0
            else:
                manifest = self._manifest(folder)
                rows, broken = _read_rows(folder / _ROWS)
        except (OSError, ValueError, BimixError) as error:
            raise self._unreadable(folder, error) from error
        left_out = {f"a line of {_ROWS} is no row of numbers (cut off?)": broken} if broken else {}
        return RunRecord(run_id=folder.name, name=folder.name, manifest=manifest, rows=rows, set_aside=left_out)

    def _manifest(self, folder: Path) -> RunManifest:
        try:
            if (folder / _MANIFEST).exists():
                return RunManifest.from_dict(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
            return parse_curves((folder / _CURVES).read_text(encoding="utf-8"))[0]
        except (OSError, ValueError, BimixError) as error:
            raise self._unreadable(folder, error) from error

    def _unreadable(self, folder: Path, error: Exception) -> SourceError:
        if isinstance(error, SourceError):
            return error
        return SourceError(f"{self.uri}: run {folder.name!r} cannot be read: {error}")


class CsvSource:
    """Read a table as `Observations.to_csv` (and `bimix pull`) writes it.

    Args:
        uri: `csv:FILE`.
        wanted: A table has what was wanted when it was pulled; see `JsonlSource`.

    Raises:
        SourceError: A filter or a mixtures file is asked for.
    """

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri
        self.wanted = _unfiltered(uri, wanted)
        self.path = _path(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Read the table."""
        if not self.path.is_file():
            raise SourceError(f"{self.uri}: there is no file {self.path}")
        return Observations.from_csv(self.path)

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
        raise SourceError(f"{uri}: plain files have no language for the filter {wanted.filter!r}; leave it out")
    if wanted.foreign is not None:
        raise SourceError(f"{uri}: plain files hold no runs of other tools; leave the mixtures file out")
    return wanted


def _ended(folder: Path) -> float | None:
    """Return when a run was finished, in seconds since 1970; None while it isn't."""
    for name in (_FINISHED, _CURVES):
        try:
            return (folder / name).stat().st_mtime
        except FileNotFoundError:
            continue
    return None


def _path(uri: str) -> Path:
    return Path(uri.partition(":")[2] or ".").expanduser()


def _inside(folder: Path, name: str) -> Path:
    """Return `folder / name`, or say that it would lie elsewhere."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()) or target.resolve() == folder.resolve():
        raise SourceError(f"{name!r} is no name of a file inside {folder}")
    return target


def _read_rows(path: Path) -> tuple[list[dict[str, float]], int]:
    """Return the rows and how many lines were broken: the last one is, where a process was killed."""
    rows: list[dict[str, float]] = []
    broken = 0
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(parse_row(json.loads(line)))
        except ValueError:
            broken += 1
    return rows, broken
