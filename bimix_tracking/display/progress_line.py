"""How far work is, in a line that changes in place: in a terminal and in a notebook, with and without widgets."""

from __future__ import annotations

import sys
import threading
import time

from bimix_tracking.display.notebook import kernel
from bimix_tracking.progress import Progress

_SECONDS = 0.1
"""Between two changes at least."""
_BAR = 20


class Line:
    """Tell of a stage in one line, and take it away when the stage is done.

    In a notebook it is the cell's output, else standard error. A carriage return is understood by both.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0.0
        self._width = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Tell that so many of a stage's parts are done."""
        with self._lock:
            now = time.monotonic()
            if done < total and now - self._last < _SECONDS:
                return
            if done < total:
                full = _BAR * done // max(total, 1)
                self._write(f"{what} {'█' * full}{'░' * (_BAR - full)} {done:,}/{total:,}")
            elif self._width:
                self._write("")
            self._last = now

    def _write(self, text: str) -> None:
        out = sys.stderr if kernel() is None else sys.stdout
        out.write(f"\r{text.ljust(self._width)}\r{text}" if self._width > len(text) else f"\r{text}")
        out.flush()
        self._width = len(text)


def shown(progress: Progress | bool | None) -> Progress | None:
    """Return what is told of progress: whatever was given; for True a line; for None a line in a notebook.

    >>> shown(None) is None, shown(print) is print, isinstance(shown(True), Line)
    (True, True, True)
    """
    if progress is None:
        return None if kernel() is None else Line()
    if progress is False:
        return _silent  # None would be asked about again by what this is handed on to
    return Line() if progress is True else progress


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
