"""How work that takes long says how far it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, how many there are)."""


def reported(progress: Progress | None, what: str, items: Collection[Item]) -> Iterator[Item]:
    """Yield the items; report before each how many are done, and at the end that all are.

    >>> list(reported(lambda *said: print(said), "adding", ["a"]))
    ('adding', 0, 1)
    ('adding', 1, 1)
    ['a']
    """
    for number, item in enumerate(items):
        if progress:
            progress(what, number, len(items))
        yield item
    if progress:
        progress(what, len(items), len(items))


class Tally:
    """Adds up what is done of a stage, whichever thread did it.

    Args:
        progress: Called as (what, done, total); None: not at all.
        what: The stage.
        total: How many there are.

    >>> tally = Tally(lambda *said: print(said), "adding", 3)
    ('adding', 0, 3)
    >>> tally.more(2)
    ('adding', 2, 3)
    >>> tally.reach(3)
    ('adding', 3, 3)
    """

    def __init__(self, progress: Progress | None, what: str, total: int) -> None:
        self._progress, self._what, self._lock = progress, what, threading.Lock()
        self.done, self.total = 0, total
        self.more(0)

    def more(self, count: int) -> None:
        """Report so many more."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """Report that so many are done, though some of them needed no work."""
        with self._lock:
            self.done = min(max(self.done, done), self.total)
            if self._progress:
                self._progress(self._what, self.done, self.total)
