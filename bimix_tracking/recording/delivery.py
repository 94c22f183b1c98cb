"""A run's rows on their way to its tracker: on disk first, sent by a thread of its own, with a warning if that fails.

Training waits for the journal's disk, never for the tracker. A local tracker is itself the disk: it gets rows at once,
and the journal only what it couldn't take. A run has one writer, and whoever comes second gets a run of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import BimixError, RefusedError
from bimix_tracking.files import writer_lock
from bimix_tracking.files.writer_lock import BeingWrittenError, WriterLock
from bimix_tracking.recording import open_runs
from bimix_tracking.recording.delivery_warnings import Troubles
from bimix_tracking.recording.journal import Journal
from bimix_tracking.recording.open_runs import OpenRun
from bimix_tracking.recording.outbox import Outbox
from bimix_tracking.tracking.ports import Row, Tracker, another

OPEN_SECONDS = 10.0
"""How long the beginning of training waits for a remote run to be open, so that checkpoints know its id."""
RESUME_SECONDS = 60.0
"""How long a resumed training waits for the tracker to say what it has."""
FLUSH_SECONDS = 60.0
"""How long its end waits for what is left to be sent, unless `BIMIX_FLUSH_SECONDS` says otherwise."""
_APART = 0.002
"""Seconds between two rows at least: trackers order values by milliseconds."""


class Delivery:
    """Hand rows to a tracker in their order.

    A run that is begun, and neither finished nor failed when the interpreter exits, is failed then. The run of a
    checkpoint has one writer: who loads it goes on in the place of the recorder that made it, which gets a run of its
    own should it log again; who loads it a second time, while the first goes on, gets a run of its own too.

    Args:
        tracker: Where they go; without one they go nowhere, without a complaint.

    Attributes:
        key: Names the training: in its checkpoints, its journal and at its tracker.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self.tracker = tracker
        self.key = uuid.uuid4().hex
        self._run: OpenRun | None = None
        self._writer: WriterLock | None = None
        self._resumed: Journal | None = None
        self._resumes = self._used = self._failed = False
        self._before = 0
        self._last = 0.0
        self._troubles = Troubles()

    def start(self, manifest: RunManifest) -> None:
        """Open the run, or update its manifest."""
        if self._run is not None and self._run.taken:
            self._go_apart()
        if self.tracker is None:
            return
        first = self._run is None
        run = self._run = self._run or self._begin(self.tracker, manifest)
        try:
            run.outbox.put_manifest(manifest)
        except OSError as error:
            self._troubles.unwritten(error)
        self._send(run, manifest)
        if first and run.sender is not None:
            run.sender.wait_until_open(OPEN_SECONDS)

    def add(self, metrics: dict[str, float], step: int, manifest: RunManifest) -> None:
        """Send a row."""
        if self._run is None or self._run.taken:
            self.start(manifest)
        run = self._run
        if run is None:
            return
        self._failed = False
        self._last = max(time.time(), self._last + _APART)  # a clock may be set back
        try:
            run.outbox.put(Row(step, self._last, metrics))
            if run.outbox.journal is not None:
                self._troubles.written()
        except OSError as error:
            self._troubles.unwritten(error)
        self._send(run, manifest)
        if run.outbox.lost:
            self._troubles.lost(run.outbox.lost)

    def finish(self, manifest: RunManifest, curves: Mapping[str, Any]) -> None:
        """Send what is left and the curves, and end the run; what isn't taken in time is left for `bimix replay`."""
        if self._run is None and self._failed:
            return
        if self._run is None:
            self.start(manifest)
        text = json.dumps(curves, indent=1)
        self._end(lambda outbox: outbox.put_curves(text), manifest)

    def fail(self, manifest: RunManifest) -> None:
        """Send what is left and end the run as failed; one that was never begun is not opened for that."""
        self._failed = True
        self._end(Outbox.put_failure, manifest)

    def state_dict(self) -> dict[str, Any]:
        """Return which run this is, how many rows it has made, and where its journal is, as JSON types."""
        outbox = None if self._run is None else self._run.outbox
        journal = None if outbox is None else outbox.journal
        return {
            "run_id": getattr(self.tracker, "run_id", None),
            "rows": self._before if outbox is None else outbox.rows,
            "journal": None if journal is None else str(journal.directory),
            "key": None if self.tracker is None else self.key,
            "time": self._last,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[Mapping[str, float]]:
        """Continue the run of `state_dict`; return what rows came after that, as far as anybody has them."""
        if self.tracker is None:
            return []
        rows, run_id, folder, key = int(state["rows"]), state["run_id"], state["journal"], state.get("key")
        self._last = max(self._last, float(state.get("time") or 0.0))
        self._leave()
        if key is None and run_id is None and folder is None:
            return []  # made without a tracker: there is no run to resume
        # A checkpoint of an earlier version has no key: its run is named by where it is.
        identity = key or f"{self.tracker.uri} {run_id or folder}"
        open_runs.take_over(identity)
        self._writer = writer_lock.lock_training(identity)
        if self._writer is None:
            return self._second(run_id, "another recorder or process has resumed it")
        self.key, self._resumes = key or self.key, True
        self._before, self._resumed = rows, None
        later: list[Mapping[str, float]] = []
        if folder is not None and Path(folder).is_dir():
            try:
                later, found = self._take_up(Path(folder), rows)
                run_id = run_id or found
            except BeingWrittenError as error:
                return self._second(run_id, str(error))
            except (BimixError, OSError) as error:
                self._troubles.warn(f"journal {error}", f"the journal of the interrupted run cannot be read ({error})")
        knows_keys = hasattr(self.tracker, "key")
        self._name()
        if run_id is not None or (key is not None and knows_keys):
            later = self._resume(self.tracker, run_id, rows, later)
        self._last = max([self._last, *(row[metric_names.TIME] for row in later if metric_names.TIME in row)])
        return later

    def _take_up(self, folder: Path, rows: int) -> tuple[list[Mapping[str, float]], str | None]:
        """Go on with a journal; return the rows that it has after the checkpoint, and its run."""
        journal = Journal.open(folder)
        held = journal.rows(rows - journal.before, journal.written)
        self._last = max([self._last, *(row.time for row in held)])
        journal.go_on()
        journal.keep(rows - journal.before)
        self._before, self._resumed = journal.before, journal
        return [row.metrics for row in held], journal.run_id

    def _resume(
        self, tracker: Tracker, run_id: str | None, rows: int, later: list[Mapping[str, float]]
    ) -> list[Mapping[str, float]]:
        try:
            found = _within(RESUME_SECONDS, lambda: tracker.resume(run_id, rows))
        except BeingWrittenError as error:
            return self._second(run_id, str(error))
        except RefusedError as error:
            self._second(run_id, str(error))
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._troubles.failed(error)
        else:
            self._last = max([self._last, *(row[metric_names.TIME] for row in found if metric_names.TIME in row)])
            return later or list(found)
        return later

    def _second(self, run_id: str | None, why: str) -> list[Mapping[str, float]]:
        """Have a run of its own: the checkpoint's has another writer, or is gone."""
        if self._resumed is not None:
            self._resumed.close()
        if self._writer is not None:
            self._writer.release()
        self._writer = self._resumed = None
        self._before, self._resumes, self.key = 0, False, uuid.uuid4().hex
        self._open_another()
        self._troubles.warn(
            f"second {run_id}",
            f"the checkpoint's run {run_id or '(not opened yet)'} is not resumed: {why}. Training continues in a new "
            "run from the checkpoint",
        )
        return []

    def _leave(self) -> None:
        """Be done with what this delivery has written so far: a checkpoint is loaded."""
        run, self._run = self._run, None
        if run is not None and not run.taken:
            run.give_up()
        if self._used and self._open_another():
            self._used = False

    def _go_apart(self) -> None:
        """Continue in a new run: another recorder has resumed the one it had."""
        said = getattr(self.tracker, "run_id", None)
        self._run, self._writer, self._used = None, None, False
        self._before, self._resumes, self.key = 0, False, uuid.uuid4().hex
        if not self._open_another():
            self.tracker = None  # this one's run is somebody else's now
        self._troubles.warn(
            f"apart {said}",
            f"run {said} was taken over by a recorder that loaded its checkpoint. This recorder "
            + ("continues in a new run" if self.tracker is not None else "can't open another, and stops writing"),
        )

    def _open_another(self) -> bool:
        """Have a tracker of the same place for another run, if it can be opened."""
        try:
            self.tracker = None if self.tracker is None else another(self.tracker)
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._troubles.failed(error)
            return False
        return True

    def _name(self) -> None:
        with contextlib.suppress(AttributeError):  # a third party's, with slots
            self.tracker.key = self.key  # type: ignore[union-attr]  # called with a tracker only

    def _begin(self, tracker: Tracker, manifest: RunManifest) -> OpenRun:
        writer = self._writer or writer_lock.lock_training(self.key) or WriterLock(Path(self.key), None)
        self._writer, self._used = None, True
        self._name()
        try:
            tracker.adopt_active()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._troubles.failed(error)
        outbox = Outbox(tracker, self._resumed, self._before)
        self._resumed = None
        if tracker.remote and outbox.journal is None:
            self._spool(outbox, manifest)
        return OpenRun(self.key, outbox, writer, self, resumed=self._resumes)

    def _spool(self, outbox: Outbox, manifest: RunManifest) -> None:
        """Have a journal from here on."""
        tracker = outbox.tracker
        name = getattr(tracker, "run_name", None)
        try:
            journal = Journal(tracker=without_credentials(tracker.uri), key=self.key, name=name)
            outbox.keep_in(journal, manifest)
        except (OSError, BimixError) as error:
            self._troubles.warn(
                "no place",
                f"no journal can be written ({error}): set BIMIX_SPOOL to a folder. Rows are kept in memory, and "
                "training continues",
            )

    def _send(self, run: OpenRun, manifest: RunManifest) -> None:
        """Send now what goes to a local tracker, and wake the thread for another."""
        if run.sender is not None:
            run.sender.wake()
        else:
            try:
                run.outbox.send()
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
                self._troubles.failed(error)
                if run.outbox.journal is None:
                    self._spool(run.outbox, manifest)
        self._tell_trouble(run)

    def _end(self, put: Callable[[Outbox], None], manifest: RunManifest) -> None:
        run, self._run = self._run, None
        if run is None or run.taken:
            return
        run.ended = True
        try:
            put(run.outbox)
        except OSError as error:
            self._troubles.unwritten(error)
        self._send(run, manifest)
        outbox = run.outbox
        if run.sender is not None:
            run.sender.finish(_flush_seconds())
            self._tell_trouble(run)
        elif outbox.close():
            run.release()
        if sum(outbox.refused.values()) > 1:
            self._troubles.warn(
                "refused in all",
                f"in all, the tracker refused {sum(outbox.refused.values())} values of {len(outbox.refused)} metrics",
            )
        if not outbox.empty:
            _warn_of_the_rest(run)
        self._before = outbox.rows

    def _tell_trouble(self, run: OpenRun) -> None:
        """Tell what the thread that sends has met, on the thread that trains."""
        while run.sender is not None and run.sender.troubles:
            self._troubles.failed(run.sender.troubles.popleft())
        while run.outbox.news:
            self._troubles.warn(*run.outbox.news.popleft())


def _within(seconds: float, call: Callable[[], Sequence[Mapping[str, float]]]) -> Sequence[Mapping[str, float]]:
    """Return what a call returns, if it does so in time.

    Raises:
        TimeoutError: It doesn't; its thread is left to itself.
    """
    done: Future[Sequence[Mapping[str, float]]] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised where it is waited for
            done.set_exception(error)

    Thread(target=run, name="bimix-resume", daemon=True).start()
    return done.result(seconds)


def _flush_seconds() -> float:
    try:
        return float(os.environ.get("BIMIX_FLUSH_SECONDS", FLUSH_SECONDS))
    except ValueError:
        return FLUSH_SECONDS


def _warn_of_the_rest(run: OpenRun) -> None:
    """Warn of rows not sent, and say where they are."""
    outbox = run.outbox
    if outbox.journal is None:
        said = f"{outbox.waiting + outbox.lost} rows are lost with this process: no journal could be written"
    else:
        folder, lost = outbox.journal.directory, f"; {outbox.lost} rows are lost" if outbox.lost else ""
        refused = run.sender is not None and isinstance(run.sender.trouble, RefusedError)
        how = f"bimix replay {folder}" + (" --tracker URI, to another tracker" if refused else "")
        said = f"{outbox.waiting} rows and the run's end are kept in {folder}{lost}. To send them later: {how}"
        if run.sender is None:
            run.give_up()
    warnings.warn(f"not everything reached the tracker: {said}", stacklevel=5)
