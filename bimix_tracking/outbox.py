"""What a run has to say and its tracker hasn't taken yet, and the one way it is sent: in order, marked when taken."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Sequence

from bimix_tracking.journal import Journal
from bimix_tracking.manifest import CURVES, RunManifest
from bimix_tracking.tracking import Row, Tracker

_ROWS = 200
_METRICS = 1000
_IN_MEMORY = 10_000


class Outbox:
    """Rows, manifest and curves on their way to a tracker.

    One thread puts, one sends; `deque` and single assignments are all that they share.

    Args:
        tracker: Where they go.
        journal: Where rows are kept until then; without one they are in memory only.
        before: Rows of the run that the tracker has, and that are in no journal.
    """

    def __init__(self, tracker: Tracker, journal: Journal | None = None, before: int = 0) -> None:
        self.tracker = tracker
        self.journal = journal
        self.before = before
        self.lost = 0
        self._sent = 0 if journal is None else journal.delivered
        self._loose: deque[Row] = deque()
        self._manifest: RunManifest | None = None
        self._curves: str | None = None
        self._ended = False

    @property
    def rows(self) -> int:
        """How many rows the run has made."""
        return self.before + len(self._loose) + (0 if self.journal is None else self.journal.written)

    @property
    def waiting(self) -> int:
        """How many rows are still to be sent."""
        journal = self.journal
        return len(self._loose) + (0 if journal is None else journal.written - self._sent)

    @property
    def abandoned(self) -> bool:
        """Whether another outbox has gone on with its journal."""
        return self.journal is not None and self.journal.closed

    @property
    def empty(self) -> bool:
        """Whether the tracker has everything."""
        return not self.waiting and self._manifest is None and self._curves is None

    def put_manifest(self, manifest: RunManifest) -> None:
        """Say what the run is, before its rows, or what it has become."""
        if self.journal is not None:
            self.journal.begin(manifest.to_dict())
        self._manifest = manifest

    def put(self, row: Row) -> None:
        """Add a row; a journal that cannot take it is no reason not to send it.

        Raises:
            OSError: The journal couldn't take it: it is in memory, and lost if the process dies.
        """
        try:
            if self.journal is not None:
                self.journal.append(row)
                return
        except OSError:
            self._keep_in_memory(row)
            raise
        self._keep_in_memory(row)

    def put_curves(self, text: str) -> None:
        """Add the curves, after the last row: the run ends with them.

        Raises:
            OSError: The journal couldn't take them: they are in memory.
        """
        try:
            if self.journal is not None:
                self.journal.end(text)
        finally:  # last: a sender that sees it may be done, and remove the journal
            self._curves, self._ended = text, True

    def send(self) -> None:
        """Send all there is.

        Raises:
            Exception: Whatever the tracker raises; what it took before is marked, and not sent again.
        """
        while not self.empty:
            curves = self._curves  # read first: what was put before them is seen below
            if self._manifest is not None:
                sent = self._manifest
                self.tracker.start(sent)
                self._mark(0)
                if self._manifest is sent:  # else it has grown meanwhile
                    self._manifest = None
            elif self.journal is not None and (rows := self.journal.rows(self._sent, _ROWS)):
                rows = rows[: _fitting(rows)]
                self.tracker.log(rows)
                self._mark(len(rows))
            elif self._loose:
                rows = list(itertools.islice(self._loose, _ROWS))
                rows = rows[: _fitting(rows)]
                self.tracker.log(rows)
                for _ in rows:
                    self._loose.popleft()
                self.before += len(rows)
            elif curves is not None:
                self.tracker.write_artifact(CURVES, curves)
                self.tracker.finish()
                self._curves = None

    def close(self) -> bool:
        """Return whether the run has ended and the tracker has all of it; its journal is then gone."""
        done = self._ended and self.empty
        if done and self.journal is not None:
            self.journal.remove()
        return done

    def keep_in(self, journal: Journal, manifest: RunManifest) -> None:
        """Have a journal from here on, for what is in memory too.

        Raises:
            OSError: The journal cannot be written.
        """
        journal.before, journal.run_id = self.before, self.tracker.run_id
        journal.begin(manifest.to_dict())
        while self._loose:
            journal.append(self._loose[0])
            self._loose.popleft()
        if self._curves is not None:
            journal.end(self._curves)
        self.journal = journal

    def _mark(self, rows: int) -> None:
        self._sent += rows
        if self.journal is not None:
            self.journal.before = self.before
            # Where the disk takes no mark, a replay sends these rows again, and they are read back once all the same.
            with contextlib.suppress(OSError):
                self.journal.mark(self._sent if self.tracker.certain else self.journal.delivered, self.tracker.run_id)

    def _keep_in_memory(self, row: Row) -> None:
        self._loose.append(row)
        if len(self._loose) > _IN_MEMORY:
            self._loose.popleft()
            self.lost += 1


def _fitting(rows: Sequence[Row]) -> int:
    """Return how many of the rows go into one call: as many as trackers take metrics at a time, at least one."""
    total = 0
    for count, row in enumerate(rows):
        total += len(row.metrics)
        if total > _METRICS:
            return max(count, 1)
    return len(rows)
