"""What a run has to say and its tracker hasn't taken yet, and the one way it is sent: in order, marked when taken."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, deque
from collections.abc import Sequence

from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.errors import RefusedError, SourceError, listed
from bimix_tracking.recording.journal import Journal
from bimix_tracking.tracking.ports import Row, Tracker

_ROWS = 200
_METRICS = 1000
_IN_MEMORY = 10_000
_BY_NAME = 8
"""So many values of a metric are refused, and none was ever taken: it is its name, and the others aren't asked for."""
_AS_BEFORE = "as before"


class Outbox:
    """Rows, manifest and curves on their way to a tracker.

    One thread puts, one sends; `deque` and single assignments are all that they share.

    Args:
        tracker: Where they go.
        journal: Where rows are kept until then; without one they are in memory only.
        before: Rows of the run that the tracker has, and that are in no journal.

    Attributes:
        lost: Rows that memory had no room for.
        refused: How many values of each metric the tracker refused for good.
        news: What it refused, as (kind, text), for the training thread to warn of.
    """

    def __init__(self, tracker: Tracker, journal: Journal | None = None, before: int = 0) -> None:
        self.tracker = tracker
        self.journal = journal
        self.before = before
        self.lost = 0
        self.refused: Counter[str] = Counter()
        self.news: deque[tuple[str, str]] = deque()
        self._sent = 0 if journal is None else journal.delivered
        self._loose: deque[Row] = deque()
        self._manifest: RunManifest | None = None
        self._started: RunManifest | None = None
        self._curves: str | None = None
        self._curves_sent = False
        self._ending: bool | None = None
        self._ended = False
        self._taken: set[str] = set()
        self._refused_rows: list[tuple[Row, str]] = []

    @property
    def rows(self) -> int:
        """How many rows the run has made."""
        return self.before + len(self._loose) + (0 if self.journal is None else self.journal.written)

    @property
    def waiting(self) -> int:
        """How many rows are still to be sent."""
        return len(self._loose) + (0 if self.journal is None else self.journal.waiting(self._sent))

    @property
    def abandoned(self) -> bool:
        """Whether another outbox has taken over its journal."""
        return self.journal is not None and self.journal.closed

    @property
    def empty(self) -> bool:
        """Whether the tracker has everything."""
        return not self.waiting and self._manifest is None and self._ending is None

    def put_manifest(self, manifest: RunManifest) -> None:
        """Say what the run is, before its rows, or what it has become.

        Raises:
            OSError: The journal couldn't take it: it is in memory.
        """
        try:
            if self.journal is not None:
                self.journal.begin(manifest.to_dict())
        finally:
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
            self._ending = True

    def put_failure(self) -> None:
        """Say that training has failed, after its last row: the run ends so.

        Raises:
            OSError: The journal couldn't note it.
        """
        try:
            if self.journal is not None:
                self.journal.fail()
        finally:
            self._ended = True
            self._ending = False

    def send(self) -> None:
        """Send all there is; what the tracker refuses for good of rows and artifacts is excluded, kept and reported.

        Raises:
            RefusedError: The tracker refuses the run itself: nothing of it is skipped, for it may go elsewhere.
            Exception: Whatever the tracker raises; what it took before is marked, and not sent again.
        """
        while not self.empty:
            if not self._send_next():
                raise SourceError("the journal has fewer rows than it counts; those present were sent")

    def _send_next(self) -> bool:
        """Send one thing; return whether there was one."""
        ending = self._ending  # read first: what was put before it is seen below
        if self._manifest is not None:
            sent = self._manifest
            self.tracker.start(sent)
            self._started = sent
            self._mark(self._sent)
            if self._manifest is sent:  # else it has grown meanwhile
                self._manifest = None
        elif self.journal is not None and (rows := self.journal.rows(self._sent, _ROWS)):
            rows = rows[: _fitting(rows)]
            self._log(rows)
            self._mark(self.journal.after(self._sent, len(rows)))
        elif self._loose:
            rows = list(itertools.islice(self._loose, _ROWS))
            rows = rows[: _fitting(rows)]
            self._log(rows)
            for _ in rows:
                self._loose.popleft()
            self.before += len(rows)
        elif ending is not None:
            self._end(ended=ending)
        else:
            return False
        return True

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
        elif self._ending is False:
            journal.fail()
        self.journal = journal

    def _end(self, *, ended: bool) -> None:
        """End the run. Its curves can be made of its histories: a tracker that refuses artifacts has what counts."""
        if self._curves is not None and ended and not self._curves_sent:
            try:
                self.tracker.write_artifact(CURVES, self._curves)
            except RefusedError as error:
                self.news.append((f"artifact {error}", f"the tracker refuses {CURVES} ({error}); its metrics are used"))
        self._curves_sent = True
        try:
            if ended:
                self.tracker.finish()
            else:
                self.tracker.finish(ended=False)
        except RefusedError as error:
            self.news.append((f"end {error}", f"the tracker refuses to end the run ({error})"))
        self._curves, self._ending = None, None

    def _log(self, rows: Sequence[Row]) -> None:
        """Log rows, without what is refused for good."""
        self._refused_rows.clear()
        try:
            self._try(rows)
        except RefusedError as error:
            if self._started is not None:
                self.tracker.start(self._started)  # a run that is gone or closed takes nothing: then nothing is skipped
            self._narrow(rows, error)
        if self._refused_rows:
            self._report_refused()

    def _try(self, rows: Sequence[Row]) -> None:
        """Log rows without the metrics that are refused by their names."""
        taken, known = self._without_known(rows)
        if taken:
            self.tracker.log(taken)
            self._taken.update(*(row.metrics for row in taken))
        self._refused_rows += known

    def _without_known(self, rows: Sequence[Row]) -> tuple[list[Row], list[tuple[Row, str]]]:
        """Return rows without metrics that are known to be refused, and these, one by one."""
        counts = self.refused + Counter(name for row, _ in self._refused_rows for name in row.metrics)
        never = {name for name, count in counts.items() if count >= _BY_NAME and name not in self._taken}
        if not never:
            return list(rows), []
        split = [(row, never & row.metrics.keys()) for row in rows]
        left = [(row._replace(metrics={n: row.metrics[n]}), _AS_BEFORE) for row, names in split for n in names]
        rest = [row._replace(metrics={n: v for n, v in row.metrics.items() if n not in names}) for row, names in split]
        return [row for row in rest if row.metrics], left

    def _narrow(self, rows: Sequence[Row], error: RefusedError) -> None:
        """Halve the rows, and the metrics of one, until what is refused is found; all else is logged."""
        if len(rows) > 1:
            parts = [list(rows[: len(rows) // 2]), list(rows[len(rows) // 2 :])]
        else:
            ((row,), known) = self._without_known(rows)
            self._refused_rows += known
            metrics = list(row.metrics.items())
            if len(metrics) == 1:
                self._refused_rows.append((row, str(error)))
                return
            middle = len(metrics) // 2
            parts = [[row._replace(metrics=dict(half))] for half in (metrics[:middle], metrics[middle:])]
        for part in parts:
            try:
                self._try(part)
            except RefusedError as narrower:
                self._narrow(part, narrower)

    def _report_refused(self) -> None:
        """Count what was refused, and keep it where nothing else is of it."""
        kept = ""
        if self.journal is not None:
            with contextlib.suppress(OSError):
                self.journal.refuse([row for row, _ in self._refused_rows])
                kept = f", and kept in {self.journal.directory}"
        reasons: dict[str, list[str]] = {}
        for row, why in self._refused_rows:
            self.refused.update(row.metrics.keys())
            reasons.setdefault(why, []).extend(row.metrics)
        for why, names in reasons.items():
            if why != _AS_BEFORE:
                self.news.append(
                    (
                        f"value {why}",
                        (
                            f"the tracker refuses {listed(dict.fromkeys(names))} ({len(names)} values so far): {why}. "
                            f"They are excluded{kept}; all else is sent"
                        ),
                    )
                )
        self._refused_rows = []

    def _mark(self, sent: int) -> None:
        self._sent = sent
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
