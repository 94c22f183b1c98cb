"""Whether a trainer's function has been left by an exception, where the trainer has no event that would say so."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType

_EVERY = 0.5
"""Seconds between two looks."""


def when_left(module: str, function: str, call: Callable[[], None]) -> threading.Event | None:
    """Call something once this thread has left a function that it is in now, unless the returned event is set before.

    A look at the thread's stack twice a second needs nothing of the trainer: to wrap its method would stay in what is
    pickled, and what lives as long as the frame lives on in the traceback of a notebook. No frame is kept alive.

    Args:
        module: Where the function is, as in `transformers.trainer`.
        function: Its name; the outermost such call counts.
        call: Called from a thread of its own, which keeps it until then: it had better hold no model.

    Returns:
        The event to set when the function ends well; None where this thread isn't in such a function.

    >>> class Run:
    ...     def fail(self):
    ...         print("failed")
    >>> run, threads = Run(), set(threading.enumerate())
    >>> def train():
    ...     ended = when_left(__name__, "train", run.fail)
    ...     raise RuntimeError("node lost")
    >>> try:
    ...     train()
    ... except RuntimeError:
    ...     [watcher] = set(threading.enumerate()) - threads
    >>> watcher.join()
    failed
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # as `inspect` does
    code = None
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            code = frame.f_code
        frame = frame.f_back
    if code is None:
        return None
    ended, thread = threading.Event(), threading.get_ident()
    depth = _depth(thread, code)  # a training inside another one's callback is left before that
    watch = (thread, code, depth, ended, call)
    threading.Thread(target=_watch, args=watch, name="bimix-watch", daemon=True).start()
    return ended


def _watch(thread: int, code: CodeType, depth: int, ended: threading.Event, call: Callable[[], None]) -> None:
    while not ended.wait(_EVERY):
        if _depth(thread, code) < depth:
            call()
            return


def _depth(thread: int, code: CodeType) -> int:
    """Return how often a thread is inside a function, and keep no frame."""
    frame, depth = sys._current_frames().get(thread), 0  # noqa: SLF001  # documented, for this kind of thing
    while frame is not None:
        depth += frame.f_code is code
        frame = frame.f_back
    return depth
