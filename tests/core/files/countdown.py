"""A process that kills itself before one of its steps through the file system."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from typing import Any


class Countdown:
    """Count this process's steps from here on, and kill it before one of them.

    Args:
        left: How many steps it makes.
        events: Which audit events are steps.
    """

    def __init__(self, left: int, events: Collection[str]) -> None:
        self._left = left
        self._events = frozenset(events)
        sys.addaudithook(self._hook)

    def ends_here(self) -> bool:
        """Count a step; return whether it is the one not to be made."""
        self._left -= 1
        return self._left < 0

    def step(self) -> None:
        """Count a step, and die before it if it is the one."""
        if self.ends_here():
            self.die()

    def die(self) -> None:
        """End without a chance to clean up, as by a power cut."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _hook(self, event: str, _: tuple[Any, ...]) -> None:
        if event in self._events:
            self.step()
