"""`jsonl:DIR`: a run as plain files, in a folder that is its own. See `tracking.local` for what is in it."""

from __future__ import annotations

import contextlib
import json
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest, parse_json, parse_row
from bimix_tracking.errors import RefusedError, RunError, SourceError
from bimix_tracking.files import atomic_file, writer_lock
from bimix_tracking.files.regular_file import text_of
from bimix_tracking.files.writer_lock import BeingWrittenError, WriterLock
from bimix_tracking.tracking import run_folder
from bimix_tracking.tracking.ports import Row
from bimix_tracking.tracking.run_folder import CURVES_FILE, FAILED, FINISHED, LARGEST_MANIFEST, MANIFEST, ROWS
from bimix_tracking.tracking.run_names import folder_of, numbered

_LOCK = "lock"


class JsonlTracker:
    """Write a run as plain files.

    A run's folder has one writer, who holds its lock. Another run of the same name gets a folder of its own (`NAME-2`)
    while that is written, and when it was finished; rows of one that died unfinished are put aside.

    Args:
        uri: `jsonl:DIR`.
        run_name: Any text; a name that no other run has, otherwise.
    """

    remote = False
    certain = True
    owned = True

    def __init__(self, uri: str, *, run_name: str | None = None) -> None:
        self.uri = uri
        self.run_name = run_name
        self.key: str | None = None
        self.run_id: str | None = None
        self._root = path_of(uri)
        self._random = uuid.uuid4().hex[:12]
        self._name: str | None = None
        self._directory: Path | None = None
        self._lock: WriterLock | None = None
        self._resuming: int | None = None

    @property
    def directory(self) -> Path:
        """The run's folder: before `start`, the one it gets unless another run has it."""
        return self._directory or inside(self._root, folder_of(self._wanted))

    def another(self) -> JsonlTracker:
        """Return a tracker of the same folder of runs, for another run."""
        return JsonlTracker(self.uri, run_name=self.run_name)

    def adopt_active(self) -> None:
        """Do nothing: no other code has a run open here."""

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        """Go on in that folder, after its first `rows` rows; return those that it drops.

        Raises:
            RefusedError: It is gone.
            BeingWrittenError: Another recorder or process writes there.
            OSError: It cannot be written; nothing of it is lost, and `start` tries again.
        """
        directory = self._of_key() if run_id is None else inside(self._root, run_id)
        if directory is None:
            return []
        if not directory.is_dir():
            raise RefusedError(f"{self.uri}: there is no run {run_id!r} any more")
        self.release()
        self._lock = writer_lock.lock(directory / _LOCK)
        if self._lock is None:
            raise BeingWrittenError(f"{directory} is being written by a process that still runs")
        self.run_id, self._directory = directory.name if run_id is None else run_id, directory
        self._name = run_folder.name_of(directory)
        self._resuming = rows
        return self._go_on(rows)

    def start(self, manifest: RunManifest) -> None:
        """Have a folder and write the manifest."""
        said = ""
        if self._directory is None:
            said = self._claim()
        elif self._lock is None:  # it goes on after its end
            self._lock = writer_lock.lock(self._directory / _LOCK)
            if self._lock is None:
                raise BeingWrittenError(f"{self._directory} is being written by a process that still runs")
        if self._resuming is not None:
            self._go_on(self._resuming)
        named = {"name": self._name, "key": self.key}
        fields = manifest.to_dict() | {field: value for field, value in named.items() if value is not None}
        self.write_artifact(MANIFEST, json.dumps(fields, indent=1))
        if said:
            warnings.warn(said, stacklevel=2)

    def log(self, rows: Sequence[Row]) -> None:
        """Append a line each, or none."""
        lines = [json.dumps({metric_names.STEP: row.step, **row.metrics}) + "\n" for row in rows]
        atomic_file.append(self.directory / ROWS, "".join(lines).encode("utf-8"))

    def write_artifact(self, path: str, text: str) -> None:
        """Write a file of the run, never outside its folder."""
        target = inside(self.directory, path.removeprefix("bimix/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_file.replace(target, text)

    def finish(self, *, ended: bool = True) -> None:
        """Mark the run as finished, or as failed."""
        (self.directory / (FINISHED if ended else FAILED)).touch()
        self.release()

    def release(self) -> None:
        """Let another one write there."""
        held, self._lock = self._lock, None
        if held is not None:
            with contextlib.suppress(OSError):
                held.release()

    @property
    def _wanted(self) -> str:
        return str(self.run_name or self._random)

    def _claim(self) -> str:
        """Take the folder of the run's name, or that of the next free name; return a note."""
        self._root.mkdir(parents=True, exist_ok=True)
        why = ""
        for name in numbered(self._wanted):
            directory = inside(self._root, folder_of(name))
            taken = self._take(directory, name)
            if not taken:
                self.run_id, self._directory, self._name = directory.name, directory, name
                said = f"{self.uri}: run {self._wanted!r} {why}; this one is {name!r}, in {directory}"
                return said if why else ""
            why = why or taken
        raise SourceError(f"{self.uri}: there are too many runs called {self._wanted!r}; give this one another name")

    def _take(self, directory: Path, name: str) -> str:
        """Take a folder, and put rows of a run that died there aside; return why not, if it is another's."""
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
        if not directory.is_dir():
            return "has a name that a file has"
        if run_folder.finished(directory):
            return "is there and finished"
        held = writer_lock.lock(directory / _LOCK)
        if held is None:
            return "is being written by another recorder or process"
        if run_folder.finished(directory):
            held.release()
            return "is there and finished"
        said = run_folder.said_name(directory)
        if said not in (None, name) and folder_of(str(said)).lower() == directory.name.lower():
            held.release()
            return f"has the folder of {said!r} where names are alike"
        for file in (ROWS, CURVES_FILE, FAILED):
            old = directory / file
            if old.exists():
                old.rename(directory / f"{file}.{old.stat().st_mtime_ns}.old")
        self._lock = held
        return ""

    def _go_on(self, kept: int) -> list[dict[str, float]]:
        """Cut the rows down to those of the checkpoint; until that is done, nothing is written after them."""
        directory = self.directory
        for mark in (FINISHED, FAILED, CURVES_FILE):  # each says that the run has ended
            (directory / mark).unlink(missing_ok=True)
        dropped = list[dict[str, float]]()
        if (directory / ROWS).exists():
            lines = (directory / ROWS).read_bytes().splitlines(keepends=True)
            if len(lines) > kept or (lines and not lines[-1].endswith(b"\n")):
                whole = [line for line in lines if line.endswith(b"\n")]
                atomic_file.replace(directory / ROWS, b"".join(whole[:kept]))
                dropped = [row for row in map(_row, whole[kept:]) if row is not None]
        self._resuming = None
        return dropped

    def _of_key(self) -> Path | None:
        """Return the folder of the run that was opened under the key."""
        if self.key is None or not self._root.is_dir():
            return None
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError, RunError, ValueError, AttributeError):
                if parse_json(text_of(folder / MANIFEST, LARGEST_MANIFEST)).get("key") == self.key:
                    return folder
        return None


def path_of(uri: str) -> Path:
    """Return the folder or file of a URI such as `jsonl:DIR`."""
    return Path(uri.partition(":")[2] or ".").expanduser()


def inside(folder: Path, name: str) -> Path:
    """Return `folder / name`.

    Raises:
        SourceError: It would lie elsewhere.
    """
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()) or target.resolve() == folder.resolve():
        raise SourceError(f"{name!r} is not the name of a file inside {folder}")
    return target


def _row(line: bytes) -> dict[str, float] | None:
    try:
        return parse_row(parse_json(line.decode("utf-8")))
    except ValueError:
        return None
