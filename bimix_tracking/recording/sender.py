"""The thread that sends an outbox's rows, so that training never waits for a tracker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event, Thread

from bimix_tracking.errors import RefusedError
from bimix_tracking.recording.outbox import Outbox

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_REFUSED_PAUSE = 600.0
"""A run that the tracker refuses for good is asked for so seldom."""


class Sender:
    """Send an outbox; after a failure, wait one second, and twice as long each time.

    Args:
        outbox: What it sends.
        opened: Called once the run is open at the tracker.
        done: Called once the run has ended there and all is sent.

    Attributes:
        trouble: The last thing that the tracker raised.
        troubles: What it raised and was not warned of yet.
    """

    def __init__(
        self, outbox: Outbox, *, opened: Callable[[], None] = lambda: None, done: Callable[[], None] = lambda: None
    ) -> None:
        self.trouble: Exception | None = None
        self.troubles: deque[Exception] = deque(maxlen=20)
        self._outbox = outbox
        self._opened, self._done = opened, done
        self._news, self._open, self._closing = Event(), Event(), Event()
        self._thread = Thread(target=self._run, name="bimix-sender", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._news.set()

    def wait_until_open(self, seconds: float) -> None:
        """Wait until the run is open or that has failed, but not longer."""
        self._open.wait(seconds)

    def finish(self, seconds: float) -> None:
        """Wait until everything is sent or refused for good, but not longer."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._news.wait()
            self._news.clear()
            if self._outbox.abandoned:
                return
            last = self._closing.is_set()
            try:
                self._outbox.send()
                pause = _FIRST_PAUSE
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
                if self._outbox.abandoned:
                    return
                self.trouble = error
                self.troubles.append(error)
                self._open.set()
                if isinstance(error, RefusedError) and last:
                    return  # it is kept for another tracker
                refused = isinstance(error, RefusedError)
                if not self._closing.wait(_REFUSED_PAUSE if refused else pause):
                    pause = min(2 * pause, _LONGEST_PAUSE)
                elif not refused:
                    self._closing_pause(min(pause, _FIRST_PAUSE))  # the end doesn't wait for long pauses
                self._news.set()
                continue
            if not self._open.is_set():
                self._opened()
                self._open.set()
            if self._outbox.close():
                self._done()
                return

    @staticmethod
    def _closing_pause(seconds: float) -> None:
        Event().wait(seconds)
