"""Trackers and sources that need no service: a folder of JSON lines, and a CSV table.

DIR/<run>/manifest.json    what the run says of itself
DIR/<run>/rows.jsonl       one row of metrics a line, appended as it comes
DIR/<run>/FINISHED         left by `finish`; a run without it is still going, or died
DIR/<run>/curves.json      and other artifacts, their leading `bimix/` dropped
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from bimix_tracking import keys
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_row
from bimix_tracking.observations import Observations
from bimix_tracking.tracking import Progress, Row, WriteBack

_MANIFEST, _ROWS, _FINISHED = "manifest.json", "rows.jsonl", "FINISHED"
_CURVES = Path(CURVES).name


class JsonlTracker:
    """Write a run as plain files.

    Args:
        uri: `jsonl:DIR`.
        run_name: The run's folder; a random one otherwise.
    """

    remote = False
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
        (directory / _FINISHED).unlink(missing_ok=True)
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
        target.write_text(text, encoding="utf-8")

    def finish(self) -> None:
        """Mark the run as finished."""
        (self.directory / _FINISHED).touch()


class JsonlSource:
    """Read the runs of a folder that `JsonlTracker` wrote.

    Args:
        uri: `jsonl:DIR`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.directory = _path(uri)
        if not self.directory.is_dir():
            raise SourceError(f"{uri}: there is no folder {self.directory}")

    def observations(self, progress: Progress | None = None) -> Observations:
        """Pool the finished training runs, by name."""
        folders = [
            folder
            for folder in sorted(self.directory.iterdir())
            if (folder / _FINISHED).exists() or (folder / _CURVES).exists()
        ]
        if not folders:
            raise SourceError(f"{self.uri}: no finished run in it (a run is a folder with {_ROWS} and {_FINISHED})")
        records = []
        for done, folder in enumerate(folders, 1):
            records.append(self._record(folder))
            if progress:
                progress("reading runs", done, len(folders))
        return Observations.from_records(records, source=self.uri)

    def _record(self, folder: Path) -> RunRecord:
        try:
            if (folder / _CURVES).exists():
                manifest, rows = parse_curves((folder / _CURVES).read_text(encoding="utf-8"))
                broken = 0
            else:
                manifest = RunManifest.from_dict(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
                rows, broken = _read_rows(folder / _ROWS)
        except (OSError, ValueError, BimixError) as error:
            raise SourceError(f"{self.uri}: run {folder.name!r} cannot be read: {error}") from error
        left_out = {f"a line of {_ROWS} is no row of numbers (cut off?)": broken} if broken else {}
        return RunRecord(run_id=folder.name, name=folder.name, manifest=manifest, rows=rows, set_aside=left_out)

    def write_back(self, analysis: WriteBack) -> str:
        """Copy the artifacts to `DIR/analysis/`, in place of an earlier analysis."""
        target = self.directory / "analysis"
        shutil.copytree(analysis.directory, target, dirs_exist_ok=True)
        (target / "note.md").write_text(analysis.note, encoding="utf-8")
        return str(target)


class CsvSource:
    """Read a table as `Observations.to_csv` (and `bimix pull`) writes it.

    Args:
        uri: `csv:FILE`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.path = _path(uri)

    def observations(self, progress: Progress | None = None) -> Observations:
        """Read the table."""
        if not self.path.is_file():
            raise SourceError(f"{self.uri}: there is no file {self.path}")
        return Observations.from_csv(self.path)

    def write_back(self, analysis: WriteBack) -> str:
        """Refuse: a table has no place for an analysis.

        Raises:
            SourceError: Always.
        """
        raise SourceError(f"{self.uri}: nothing can be written back into a table; use --out DIR")


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
