"""A run's rows on disk before they go anywhere: what a dead tracker or a killed process cannot lose.

DIR/manifest.json     what the run says of itself
DIR/rows.jsonl        one row a line, in order, on the disk before the call returns, with the time it was made
DIR/delivery.json     the tracker's URI without credentials, its run, and how many of these rows it has
DIR/curves.json       once training has ended
DIR/lock              held by the process that writes

Only their owner can read them: they say what a company trains on.
These are the files of a run of `jsonl:`, so `jsonl:bimix-spool` reads what was never delivered.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

from bimix_tracking import keys
from bimix_tracking.errors import SourceError
from bimix_tracking.tracking import Row

try:
    import fcntl
except ImportError:  # Windows: there, two processes at one journal aren't told apart
    fcntl = None  # type: ignore[assignment]

LARGEST = 2**30
"""Bytes of rows that a journal holds at most."""
_FOLDER, _FILE = 0o700, 0o600
"""Their rights."""
_HERE: WeakValueDictionary[Path, Journal] = WeakValueDictionary()
"""Journals that this process writes: one that is opened again, as in a notebook's second try, is taken over."""
_MANIFEST, _ROWS, _DELIVERY, _CURVES, _LOCK = "manifest.json", "rows.jsonl", "delivery.json", "curves.json", "lock"


def spool() -> Path:
    """Return the folder of the journals: `BIMIX_SPOOL`, or `bimix-spool` in the working directory."""
    return Path(os.environ.get("BIMIX_SPOOL") or "bimix-spool").absolute()


class Journal:
    """One run's journal; one thread appends, another may read and mark.

    Args:
        directory: Its folder; a new one in the spool otherwise. Of two in one process, the earlier is closed.
        tracker: URI of where the rows are to go, without credentials.
        largest: Bytes of rows at most.

    Attributes:
        before: Rows that the tracker had before the journal's first.
        delivered: How many of the journal's rows it has.
        dropped: How many of those the journal holds no more.
        closed: Whether it is another's now: writing to it is an `OSError`.

    Raises:
        SourceError: Another process writes it.
        OSError: The folder cannot be made.
    """

    def __init__(self, directory: Path | None = None, *, tracker: str = "", largest: int = LARGEST) -> None:
        self.directory = (directory or spool() / uuid.uuid4().hex[:12]).absolute()
        self.tracker = tracker
        self.run_id: str | None = None
        self.before = self.dropped = self.delivered = 0
        self._largest = largest
        self._ends: list[int] = []
        self._guard = RLock()
        self.closed = False
        _made(self.directory.parent)
        _made(self.directory)
        with contextlib.suppress(OSError):  # another's
            self.directory.chmod(_FOLDER)
        earlier = _HERE.get(self.directory)
        if earlier is not None:
            earlier.close()
        self._lock = _locked(self.directory / _LOCK)
        self._file = _opened(self.directory / _ROWS, os.O_RDWR | os.O_APPEND)
        for name in (_MANIFEST, _DELIVERY, _CURVES):  # of an earlier version
            with contextlib.suppress(OSError):
                (self.directory / name).chmod(_FILE)
        _HERE[self.directory] = self

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Return a journal that another process left, whole or cut off in its last line.

        Raises:
            SourceError: The folder holds none, or its process still runs.
        """
        try:
            state = json.loads((directory / _DELIVERY).read_text(encoding="utf-8"))
            tracker, run_id = str(state["tracker"]), state["run_id"]
            counts = [int(state[name]) for name in ("before", "dropped", "delivered")]
            lines = (directory / _ROWS).read_bytes().splitlines(keepends=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{directory} is no journal that could be read: {error}") from None
        journal = cls(directory, tracker=tracker)
        journal.run_id = None if run_id is None else str(run_id)
        journal.before, journal.dropped, journal.delivered = counts
        end = 0
        for line in lines:
            if not line.endswith(b"\n"):  # cut off with the process
                break
            end += len(line)
            journal._ends.append(end)
        return journal

    @property
    def written(self) -> int:
        """How many rows there have been, those dropped after their delivery too."""
        return self.dropped + len(self._ends)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself, as JSON types."""
        content: dict[str, Any] = json.loads((self.directory / _MANIFEST).read_text(encoding="utf-8"))
        return content

    @property
    def curves(self) -> str | None:
        """The text of `curves.json`, once training has ended."""
        path = self.directory / _CURVES
        return path.read_text(encoding="utf-8") if path.exists() else None

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write what the run says of itself, over what it said before."""
        _replace(self.directory / _MANIFEST, json.dumps(manifest, indent=1))
        self.mark(self.delivered, self.run_id)

    def append(self, row: Row) -> None:
        """Write a row and wait until the disk has it.

        Raises:
            OSError: The disk is full, or the journal is.
        """
        line = json.dumps({keys.STEP: row.step, keys.TIME: row.time, **row.metrics}).encode() + b"\n"
        with self._guard:
            self._check()
            if self._size + len(line) > self._largest:
                self._drop_delivered()
            if self._size + len(line) > self._largest:
                raise OSError(f"the journal {self.directory} has reached {self._largest >> 20} MiB")
            os.ftruncate(self._file, self._size)  # what a failed write has left
            if os.write(self._file, line) < len(line):
                raise OSError(f"no space left for the journal {self.directory}")
            os.fsync(self._file)
            self._ends.append(self._size + len(line))

    def rows(self, first: int, most: int) -> list[Row]:
        """Return at most `most` rows from the `first` on."""
        with self._guard:
            self._check()
            at, last = first - self.dropped, min(first - self.dropped + most, len(self._ends))
            if at >= last:
                return []
            start = self._ends[at - 1] if at else 0
            content = os.pread(self._file, self._ends[last - 1] - start, start)
        return [_row(json.loads(line)) for line in content.splitlines()]

    def keep(self, rows: int) -> None:
        """Forget all rows but the first ones: a resumed run makes the others again."""
        kept = max(rows - self.dropped, 0)
        with self._guard:
            self._ends = self._ends[:kept]
            os.ftruncate(self._file, self._size)
        self.mark(min(self.delivered, self.written), self.run_id)

    def mark(self, delivered: int, run_id: str | None) -> None:
        """Note how many rows the tracker has, and under which run."""
        with self._guard:
            self._check()
            self.delivered, self.run_id = delivered, run_id
            counts = {"before": self.before, "dropped": self.dropped, "delivered": delivered}
            _replace(self.directory / _DELIVERY, json.dumps({"tracker": self.tracker, "run_id": run_id, **counts}))

    def end(self, curves: str) -> None:
        """Write the curves: training has ended."""
        _replace(self.directory / _CURVES, curves)

    def close(self) -> None:
        """Leave it to whoever goes on with it."""
        with self._guard:
            if not self.closed:
                self.closed = True
                os.close(self._file)
                os.close(self._lock)

    def remove(self) -> None:
        """Delete it: the tracker has all of it."""
        self.close()
        for path in [self.directory / name for name in (_MANIFEST, _ROWS, _DELIVERY, _CURVES, _LOCK)]:
            path.unlink(missing_ok=True)
            path.with_suffix(".part").unlink(missing_ok=True)  # what a full disk has left of it
        for folder in (self.directory, self.directory.parent):
            try:
                folder.rmdir()
            except OSError:  # other journals are in it
                return

    def _check(self) -> None:
        if self.closed:
            raise OSError(f"the journal {self.directory} is closed")

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _drop_delivered(self) -> None:
        gone = self.delivered - self.dropped
        if gone <= 0:
            return
        start = self._ends[gone - 1]
        rest = os.pread(self._file, self._size - start, start)
        os.ftruncate(self._file, 0)
        os.write(self._file, rest)
        self._ends = [end - start for end in self._ends[gone:]]
        self.dropped = self.delivered
        self.mark(self.delivered, self.run_id)


def journals(directory: Path) -> list[Path]:
    """Return the folders of the journals in a spool, or that of one journal, oldest first.

    Raises:
        SourceError: There is none.
    """
    found = (
        [directory]
        if (directory / _DELIVERY).exists()
        else sorted((path.parent for path in directory.glob(f"*/{_DELIVERY}")), key=lambda path: path.stat().st_mtime)
    )
    if not found:
        raise SourceError(f"{directory} holds no journal (a folder with {_DELIVERY}); is it the right folder?")
    return found


def _row(content: dict[str, float]) -> Row:
    return Row(int(content[keys.STEP]), float(content.pop(keys.TIME)), content)


def _locked(path: Path) -> int:
    file = _opened(path, os.O_RDWR)
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise SourceError(f"{path.parent} is being written by a process that still runs") from None
    return file


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or as it was."""
    part = path.with_suffix(".part")
    with os.fdopen(_opened(part, os.O_WRONLY | os.O_TRUNC), "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)


def _made(folder: Path) -> None:
    """Make a folder that is its owner's alone; a spool that is there may be shared, and stays so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(_FOLDER, exist_ok=True)


def _opened(path: Path, flags: int) -> int:
    """Open a file that is made its owner's alone, whatever the umask, and made so where it is there."""
    file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _FILE)
    if hasattr(os, "fchmod"):  # Windows has it late, and other rights
        with contextlib.suppress(OSError):
            os.fchmod(file, _FILE)
    return file
