"""The runs that this process writes: which recorder resumes an open one, and what becomes of those never ended."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any
from weakref import ref

from bimix_tracking.files.writer_lock import WriterLock
from bimix_tracking.recording.outbox import Outbox
from bimix_tracking.recording.sender import Sender

_EXIT_SECONDS = 5.0
_OPEN: dict[str, OpenRun] = {}
"""By their identities. Not weakly: a run whose recorder was forgotten is failed at the process's end, too."""


class OpenRun:
    """A run that was begun, until it is ended or another recorder resumes it.

    Args:
        identity: What names the training.
        outbox: What is on its way.
        writer: The lock of who writes it.
        owner: The delivery that it is of.
        resumed: Whether it resumes an earlier one.
    """

    def __init__(self, identity: str, outbox: Outbox, writer: WriterLock, owner: Any, *, resumed: bool) -> None:
        self.identity = identity
        self.outbox = outbox
        self.resumed = resumed
        self.taken = self.ended = False
        self._writer = writer
        self._owner = ref(owner)
        self._process = os.getpid()
        self.sender = Sender(outbox, opened=_watch_the_end, done=self.release) if outbox.tracker.remote else None
        _OPEN[identity] = self
        _watch_the_end()

    @property
    def going(self) -> bool:
        """Whether somebody may still write rows of it."""
        return not self.ended and self._owner() is not None

    def release(self) -> None:
        """Let another one resume it."""
        self._writer.release()
        if _OPEN.get(self.identity) is self:
            del _OPEN[self.identity]

    def give_up(self) -> None:
        """Leave the run to a recorder that resumes it: its rows since the checkpoint are made again."""
        self.taken = True
        if self.outbox.journal is not None:
            self.outbox.journal.close()
        with contextlib.suppress(Exception):
            getattr(self.outbox.tracker, "release", lambda: None)()
        self.release()

    def fail(self, seconds: float) -> None:
        """Send what is left, and that training has failed."""
        self.ended = True
        with contextlib.suppress(OSError):  # the journal's disk is full
            self.outbox.put_failure()
        if self.sender is not None:
            self.sender.finish(seconds)
            return
        self.outbox.send()
        self.outbox.close()
        self.release()

    def fail_at_exit(self, seconds: float) -> None:
        """Fail it, if it is this process's and not ended."""
        if self._process == os.getpid() and not self.ended:
            with contextlib.suppress(Exception):  # whatever a tracker raises, the process ends; the journal is kept
                self.fail(seconds)


def take_over(identity: str) -> None:
    """Let a recorder resume what this process has open, if no other has resumed it.

    That is a run whose recorder is gone, one that has ended, and the one that made the checkpoint: who loads that goes
    on in its place (a notebook's next try). A run that goes on from the same checkpoint already is left alone.
    """
    found = _OPEN.get(identity)
    if found is not None and found.resumed and found.going:
        gc.collect()  # a trainer and its callbacks hold each other
    if found is not None and not (found.resumed and found.going):
        found.give_up()


def release_ended(directory: Path) -> None:
    """Let a journal be replayed whose run has ended in this process."""
    for found in list(_OPEN.values()):
        journal = found.outbox.journal
        if found.ended and journal is not None and journal.directory == directory.absolute():
            found.give_up()


def _watch_the_end() -> None:
    """Be called before what was registered earlier: a tracker's own end of the process comes after ours."""
    atexit.unregister(_fail_all)
    atexit.register(_fail_all)


def _fail_all() -> None:
    deadline = time.monotonic() + _EXIT_SECONDS
    for found in list(_OPEN.values()):
        found.fail_at_exit(max(deadline - time.monotonic(), 0.0))
