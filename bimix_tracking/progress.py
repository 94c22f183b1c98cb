"""How work that takes long says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, how many there are)."""


def told(progress: Progress | None, what: str, items: Collection[Item]) -> Iterator[Item]:
    """Yield the items, and tell before each how many are done; at the end that all are.

    >>> list(told(lambda *said: print(said), "adding", ["a"]))
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
