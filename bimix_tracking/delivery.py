"""A run's rows on their way to its tracker: on disk first, sent by a thread of its own, told once if that fails.

Training waits for the journal's disk, never for the tracker. A local tracker is itself the disk: it gets rows at once,
and the journal only what it couldn't take.
"""

from __future__ import annotations

import atexit
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Event, Thread
from typing import Any

from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import BimixError
from bimix_tracking.journal import Journal
from bimix_tracking.manifest import RunManifest
from bimix_tracking.outbox import Outbox
from bimix_tracking.tracking import Row, Tracker

OPEN_SECONDS = 10.0
"""How long the beginning of training waits for a remote run to be open, so that checkpoints know its id."""
RESUME_SECONDS = 60.0
"""How long a resumed training waits for the tracker to say what it has."""
FLUSH_SECONDS = 60.0
"""How long its end waits for what is left to be sent, unless `BIMIX_FLUSH_SECONDS` says otherwise."""
_EXIT_SECONDS = 5.0
_LONGEST_PAUSE = 60.0


class Delivery:
    """Hand rows to a tracker in their order.

    Args:
        tracker: Where they go; without one they go nowhere, without a complaint.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self.tracker = tracker
        self._outbox: Outbox | None = None
        self._sender: Sender | None = None
        self._resumed: Journal | None = None
        self._before = 0
        self._warned = False

    def start(self, manifest: RunManifest) -> None:
        """Open the run, or tell it what the manifest has become."""
        tracker = self.tracker
        if tracker is None:
            return
        first = self._outbox is None
        outbox = self._outbox = self._outbox or self._begin(tracker, manifest)
        try:
            outbox.put_manifest(manifest)
        except OSError as error:
            self._tell(f"the journal cannot be written ({error})")
        self._send(outbox, manifest)
        if first and self._sender is not None:
            self._sender.wait_until_open(OPEN_SECONDS)

    def add(self, metrics: dict[str, float], step: int, manifest: RunManifest) -> None:
        """Send a row."""
        if self._outbox is None:
            self.start(manifest)
        if self._outbox is not None:
            try:
                self._outbox.put(Row(step, time.time(), metrics))
            except OSError as error:
                self._tell(f"the journal cannot be written ({error}), and rows are kept in memory")
            self._send(self._outbox, manifest)

    def finish(self, manifest: RunManifest, curves: Mapping[str, Any]) -> None:
        """Send what is left and the curves, and end the run; what isn't taken in time is left for `bimix replay`."""
        if self._outbox is None:
            self.start(manifest)
        outbox = self._outbox
        if outbox is None:
            return
        try:
            outbox.put_curves(json.dumps(curves, indent=1))
        except OSError as error:
            self._tell(f"the journal cannot be written ({error})")
        self._send(outbox, manifest)
        if self._sender is None:
            outbox.close()
        else:
            self._sender.finish(_flush_seconds())
            self._tell_trouble()
        if not outbox.empty:
            _leave(outbox)
        self._before = outbox.rows
        self._outbox = self._sender = None

    def fail(self, manifest: RunManifest) -> None:
        """End the run as failed."""
        if self._outbox is not None and self.tracker is not None:
            self._outbox = self._sender = None
            self.tracker.finish(ended=False)

    def state_dict(self) -> dict[str, Any]:
        """Return which run this is, how many rows it has made, and where its journal is, as JSON types."""
        outbox = self._outbox
        journal = None if outbox is None else outbox.journal
        return {
            "run_id": getattr(self.tracker, "run_id", None),
            "rows": self._before if outbox is None else outbox.rows,
            "journal": None if journal is None else str(journal.directory),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[Mapping[str, float]]:
        """Continue the run of `state_dict`; return what rows came after that, as far as anybody has them."""
        tracker, later = self.tracker, list[Mapping[str, float]]()
        if tracker is None:
            return later
        rows, run_id, folder = int(state["rows"]), state["run_id"], state["journal"]
        self._before, self._resumed = rows, None
        if folder is not None and Path(folder).is_dir():
            try:
                journal = Journal.open(Path(folder))
                later = [row.metrics for row in journal.rows(rows - journal.before, journal.written)]
                journal.keep(rows - journal.before)
                self._before, self._resumed = journal.before, journal
                run_id = run_id or journal.run_id
            except (BimixError, OSError) as error:
                self._tell(f"the journal of the interrupted run cannot be read ({error})")
        if run_id is not None:
            try:
                found = _within(RESUME_SECONDS, lambda: tracker.resume(run_id, rows))
                later = later or list(found)
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
                self._tell(_described(error))
        return later

    def _begin(self, tracker: Tracker, manifest: RunManifest) -> Outbox:
        try:
            tracker.adopt_active()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._tell(_described(error))
        outbox = Outbox(tracker, self._resumed, self._before)
        self._resumed = None
        if tracker.remote and outbox.journal is None:
            self._spool(outbox, manifest)
        return outbox

    def _spool(self, outbox: Outbox, manifest: RunManifest) -> None:
        """Have a journal from here on."""
        try:
            outbox.keep_in(Journal(tracker=without_credentials(outbox.tracker.uri)), manifest)
        except (OSError, BimixError) as error:
            self._tell(
                f"there is no place for a journal ({error}): set BIMIX_SPOOL to a folder. Rows are kept in memory"
            )

    def _send(self, outbox: Outbox, manifest: RunManifest) -> None:
        """Send now what goes to a local tracker, and wake the thread for another."""
        if outbox.tracker.remote:
            if self._sender is None:
                self._sender = Sender(outbox)
            self._sender.wake()
            self._tell_trouble()
            return
        try:
            outbox.send()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            self._tell(_described(error))
            if outbox.journal is None:
                self._spool(outbox, manifest)

    def _tell_trouble(self) -> None:
        if self._sender is not None and self._sender.trouble:
            self._tell(self._sender.trouble)

    def _tell(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            what = without_credentials(what)
            warnings.warn(
                f"{what}. Training goes on; what the tracker hasn't got is kept, and sent when it can be", stacklevel=6
            )


class Sender:
    """A thread that sends an outbox's rows; after a failure it waits one second, and twice as long each time."""

    def __init__(self, outbox: Outbox) -> None:
        self.trouble = ""
        self._outbox = outbox
        self._news, self._open, self._closing = Event(), Event(), Event()
        self._thread = Thread(target=self._run, name="bimix-sender", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def wake(self) -> None:
        """Say that there is something to send."""
        self._news.set()

    def wait_until_open(self, seconds: float) -> None:
        """Wait until the run is open or that has failed, but not longer."""
        self._open.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Wait until everything is sent, but not longer."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        """Give rows of a run that nobody has finished a moment more; its journal stays for who resumes it."""
        self._closing.set()
        deadline = time.monotonic() + _EXIT_SECONDS
        while not self._outbox.empty and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self) -> None:
        pause = 1.0
        while True:
            self._news.wait()
            self._news.clear()
            if self._outbox.abandoned:
                return
            try:
                self._outbox.send()
                pause = 1.0
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
                self.trouble = self.trouble or _described(error)
                self._open.set()
                if not self._closing.wait(pause):
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    time.sleep(min(pause, 1.0))  # the end doesn't wait for long pauses
                self._news.set()
                continue
            self._open.set()
            if self._outbox.close():
                return


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


def _described(error: Exception) -> str:
    return f"the tracker failed ({type(error).__name__}: {error})"


def _leave(outbox: Outbox) -> None:
    """Say where the rest is."""
    if outbox.journal is None:
        said = f"{outbox.waiting + outbox.lost} rows are lost with this process, for there is no place for a journal"
    else:
        folder, lost = outbox.journal.directory, f"; {outbox.lost} rows are lost" if outbox.lost else ""
        said = f"{outbox.waiting} rows and the run's end wait in {folder}{lost}. When it is back: bimix replay {folder}"
        if not outbox.tracker.remote:
            outbox.journal.close()
    warnings.warn(f"the tracker didn't take everything: {said}", stacklevel=4)
