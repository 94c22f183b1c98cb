"""Rows of one run, on the local disk before they go anywhere: what a dead tracker or a killed process cannot lose.

DIR/manifest.json     what the run says of itself
DIR/rows.jsonl        one row a line, in order, on the disk before the call returns, with its time and its number
DIR/delivery.json     the tracker's URI without credentials, its run and the run's key, and how many rows it has
DIR/curves.json       once training has ended
DIR/FAILED            once it has failed
DIR/refused.jsonl     what of the rows the tracker refuses for good
DIR/broken.jsonl      lines that were no rows, once the others are delivered
DIR/lock              held by who writes

Only their owner can read them: they say what a company trains on.
These are the files of a run of `jsonl:`, so `jsonl:bimix-spool` reads what was never delivered.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import parse_json, parse_row
from bimix_tracking.errors import SourceError
from bimix_tracking.files import atomic_file, writer_lock
from bimix_tracking.recording.spool import DELIVERY, FILE, FOLDER, made, rows_file, spool
from bimix_tracking.tracking.ports import Row

LARGEST = 2**30
"""Bytes of rows that a journal holds at most."""
_NUMBER = "bimix/row"
"""A row's number in its run: the rows say themselves which they are, whatever the marks say after a kill."""
_MANIFEST, _ROWS, _CURVES, _LOCK = "manifest.json", "rows.jsonl", "curves.json", "lock"
_FAILED, _REFUSED, _BROKEN = "FAILED", "refused.jsonl", "broken.jsonl"


class Journal:
    """One run's journal: one thread appends, another may read and mark.

    Args:
        directory: Its folder; a new one in the spool otherwise.
        tracker: URI of where the rows are to go, without credentials.
        key: What names the training at its tracker.
        name: What the run is called there, if it was given a name.
        largest: Bytes of rows at most.

    Attributes:
        before: Rows that the tracker had before the journal's first.
        delivered: How many of the journal's rows it has.
        dropped: How many of those the journal holds no more.
        at_tracker: How many rows it was said to have in all, when the journal was opened.
        closed: Whether it is another's now: writing to it is an `OSError`.

    Raises:
        BeingWrittenError: Another recorder or process writes it.
        OSError: The folder cannot be made.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        tracker: str = "",
        key: str | None = None,
        name: str | None = None,
        largest: int = LARGEST,
    ) -> None:
        self.directory = (directory or spool() / uuid.uuid4().hex[:12]).absolute()
        self.tracker, self.key, self.name = tracker, key, name
        self.run_id: str | None = None
        self.before = self.dropped = self.delivered = self.at_tracker = 0
        self.closed = False
        self._largest = largest
        self._numbers: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._broken: list[bytes] = []
        self._size = 0
        self._guard, self._marking = RLock(), RLock()
        made(self.directory.parent)
        made(self.directory)
        with contextlib.suppress(OSError):  # another's
            self.directory.chmod(FOLDER)
        found = writer_lock.lock(self.directory / _LOCK, mode=FILE)
        if found is None:
            raise writer_lock.BeingWrittenError(f"{self.directory} is being written by a process that still runs")
        self._lock = found
        self._file = rows_file(self.directory / _ROWS)
        for other in (_MANIFEST, DELIVERY, _CURVES, _LOCK):
            with contextlib.suppress(OSError):  # of an earlier version
                (self.directory / other).chmod(FILE)

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Return a journal that was left, whole or not: its marks are held to what its rows say.

        Raises:
            BeingWrittenError: It is still written.
            SourceError: The folder holds none.
        """
        try:
            state = parse_json((directory / DELIVERY).read_text(encoding="utf-8"))
            tracker, run_id, key, name = (state.get(field) for field in ("tracker", "run_id", "key", "name"))
            counts = [max(int(state[field]), 0) for field in ("before", "dropped", "delivered")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise SourceError(f"{directory} is not a readable journal: {error}") from None
        journal = cls(directory, tracker=str(tracker), key=_text(key), name=_text(name))
        journal.run_id = _text(run_id)
        journal.before, dropped, delivered = counts
        journal.at_tracker = journal.before + delivered
        journal._read(dropped)
        journal.delivered = min(max(delivered, journal.dropped), journal.written)
        return journal

    @property
    def written(self) -> int:
        """How many rows there have been, those dropped after their delivery too."""
        return self._numbers[-1] + 1 if self._numbers else self.dropped

    @property
    def broken(self) -> int:
        """How many lines are not rows."""
        return len(self._broken)

    @property
    def manifest(self) -> dict[str, Any]:
        """What the run says of itself, as JSON types."""
        content: dict[str, Any] = parse_json((self.directory / _MANIFEST).read_text(encoding="utf-8"))
        return content

    @property
    def curves(self) -> str | None:
        """The text of `curves.json`, once training has ended."""
        path = self.directory / _CURVES
        return path.read_text(encoding="utf-8") if path.exists() else None

    @property
    def kept(self) -> list[Path]:
        """Files that stay when all else is delivered: what was refused, and what was broken."""
        return [path for path in (self.directory / _REFUSED, self.directory / _BROKEN) if path.exists()]

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Write what the run says of itself, over what it said before."""
        self._check()
        self._replace(_MANIFEST, json.dumps(manifest, indent=1))
        self.mark(self.delivered, self.run_id)

    def append(self, row: Row) -> None:
        """Write a row and wait until the disk has it.

        Raises:
            OSError: The disk is full, or the journal is.
        """
        with self._guard:
            self._check()
            number = self.written
            line = json.dumps(
                {metric_names.STEP: row.step, metric_names.TIME: row.time, _NUMBER: number, **row.metrics}
            ).encode()
            line += b"\n"
            if self._size + len(line) > self._largest:
                self._drop_delivered()
            if self._size + len(line) > self._largest:
                raise OSError(f"the journal {self.directory} has reached {self._largest >> 20} MiB")
            os.ftruncate(self._file, self._size)  # what a failed write has left
            try:
                atomic_file.write(self._file, line)
                os.fsync(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, self._size)
                raise
            self._take(number, len(line))

    def rows(self, first: int, most: int) -> list[Row]:
        """Return at most `most` rows from that number on."""
        with self._guard:
            self._check()
            at = bisect_left(self._numbers, first)
            starts, ends = self._starts[at : at + most], self._ends[at : at + most]
            if not starts:
                return []
            first = starts[0]
            content = os.pread(self._file, ends[-1] - first, first)
        return [_row(json.loads(content[a - first : b - first])) for a, b in zip(starts, ends, strict=True)]

    def after(self, first: int, rows: int) -> int:
        """Return the number that comes after so many rows from the first one on: broken lines leave gaps."""
        with self._guard:
            at = bisect_left(self._numbers, first) + rows - 1
            return self._numbers[at] + 1 if rows else first

    def waiting(self, first: int) -> int:
        """Return how many rows there are from that number on."""
        with self._guard:
            return len(self._numbers) - bisect_left(self._numbers, first)

    def keep(self, rows: int) -> None:
        """Forget all rows but the first ones: a resumed run makes the others again.

        Raises:
            OSError: The disk is full.
        """
        with self._guard:
            at = bisect_left(self._numbers, max(rows, 0))
            end = self._starts[at] if at < len(self._starts) else self._size
            # The mark first: with fewer rows delivered than there are, some are sent twice, and none is skipped.
            self.dropped = min(self.dropped, max(rows, 0))
            self.mark(min(self.delivered, max(rows, 0)), self.run_id)
            if end < self._size:
                self._rewrite(b"", 0, end)
                self._numbers, self._starts, self._ends = self._numbers[:at], self._starts[:at], self._ends[:at]

    def mark(self, delivered: int, run_id: str | None) -> None:
        """Note how many rows the tracker has, and under which run.

        Raises:
            OSError: The disk is full, or the journal is another's.
        """
        with self._marking:
            self._check()
            self.delivered, self.run_id = delivered, run_id
            counts = {"before": self.before, "dropped": self.dropped, "delivered": delivered}
            named = {"tracker": self.tracker, "run_id": run_id, "key": self.key, "name": self.name}
            self._replace(DELIVERY, json.dumps(named | counts))

    def end(self, curves: str) -> None:
        """Write the curves: training has ended."""
        self._check()
        self._replace(_CURVES, curves)

    def fail(self) -> None:
        """Note that training has failed."""
        self._check()
        self._replace(_FAILED, "")

    def go_on(self) -> None:
        """Forget that training had ended or failed."""
        for name in (_CURVES, _FAILED):
            (self.directory / name).unlink(missing_ok=True)

    def refuse(self, rows: list[Row]) -> None:
        """Keep what the tracker has refused for good."""
        lines = [
            json.dumps({metric_names.STEP: row.step, metric_names.TIME: row.time, **row.metrics}) + "\n" for row in rows
        ]
        atomic_file.append(self.directory / _REFUSED, "".join(lines).encode(), mode=FILE)

    def close(self) -> None:
        """Leave it to whoever resumes it."""
        with self._guard, self._marking:
            if not self.closed:
                self.closed = True
                os.close(self._file)
                self._lock.release(remove=False)

    def remove(self) -> None:
        """Delete what the tracker has; what it refused, and lines that are not rows, stay."""
        with self._guard, self._marking:
            if self._broken:
                self._replace(_BROKEN, b"".join(line.rstrip(b"\n") + b"\n" for line in self._broken))
            self.close()
            for name in (DELIVERY, _ROWS, _MANIFEST, _CURVES, _FAILED, _LOCK):  # without the first it is not a journal
                (self.directory / name).unlink(missing_ok=True)
                (self.directory / f".{name}.part").unlink(missing_ok=True)
        for folder in (self.directory, self.directory.parent):
            try:
                folder.rmdir()
            except OSError:  # other journals are in it, or what stays
                return

    def _read(self, dropped: int) -> None:
        """Find the rows: each by its own number, or where an earlier version wrote it, by its place."""
        skipped, last, place = 0, -1, dropped
        with (self.directory / _ROWS).open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # cut off with the process, or by a full disk: never acknowledged
                    break
                try:
                    row = parse_row(parse_json(line.decode("utf-8")))
                    number, _ = row.get(_NUMBER, -1.0), row[metric_names.TIME]
                except (ValueError, KeyError):
                    self._broken.append(line)
                    self._size += len(line)
                    skipped += 1
                    continue
                own = int(number) if number == number // 1 and number > last else -1
                if own < 0 or (self._numbers and own > place + skipped):
                    own = place + skipped
                last, place, skipped = own, own + 1, 0
                self._take(own, len(line))
        self.dropped = self._numbers[0] if self._numbers else dropped

    def _take(self, number: int, length: int) -> None:
        self._numbers.append(number)
        self._starts.append(self._size)
        self._size += length
        self._ends.append(self._size)

    def _drop_delivered(self) -> None:
        # The last row stays, for the numbers of those before it.
        gone = min(bisect_left(self._numbers, self.delivered), len(self._numbers) - 1)
        if gone <= 0:
            return
        start = self._starts[gone]
        broken = b"".join(self._broken)
        self._rewrite(broken, start, self._size)
        moved = len(broken) - start
        self._starts = [at + moved for at in self._starts[gone:]]
        self._ends = [at + moved for at in self._ends[gone:]]
        self._numbers = self._numbers[gone:]
        self.dropped = self._numbers[0]
        self.mark(self.delivered, self.run_id)

    def _rewrite(self, first: bytes, start: int, end: int) -> None:
        """Have a new file of some bytes, and a part of the old one."""
        self._replace(_ROWS, first + os.pread(self._file, end - start, start))
        old, self._file = self._file, rows_file(self.directory / _ROWS)
        os.close(old)
        self._size = len(first) + end - start

    def _check(self) -> None:
        if self.closed:
            raise OSError(f"the journal {self.directory} is closed")

    def _replace(self, name: str, content: str | bytes) -> None:
        atomic_file.replace(self.directory / name, content, mode=FILE)


def _row(content: dict[str, float]) -> Row:
    content.pop(_NUMBER, None)
    return Row(int(content[metric_names.STEP]), float(content.pop(metric_names.TIME)), content)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
