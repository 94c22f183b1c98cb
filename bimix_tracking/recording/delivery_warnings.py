"""Warnings of what goes wrong on a row's way: once a kind, again when rows are less safe, and never a flood."""

from __future__ import annotations

import re
import warnings

from bimix_tracking.credentials import without_credentials

_DETAILS = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|\b[0-9a-f]{6,}\b|\d+|[a-z+]+://\S+", re.IGNORECASE)
_MOST_OF_A_KIND = 3
"""Texts of one type of error, whatever is in them."""


class Troubles:
    """Tells each kind of trouble once.

    Of worse safety are rows that are in memory only, after those that were on the disk: that is warned of each time it
    comes about, though less often where it comes and goes.
    """

    def __init__(self) -> None:
        self._kinds: set[str] = set()
        self._types: dict[str, int] = {}
        self._in_memory = False
        self._worse = 0
        self._lost = 0

    def warn(self, kind: str, text: str, *, stacklevel: int = 6) -> None:
        """Warn, unless that kind was warned of."""
        if kind not in self._kinds:
            self._kinds.add(kind)
            warnings.warn(without_credentials(text), stacklevel=stacklevel)

    def failed(self, error: Exception) -> None:
        """Tell what a tracker raised."""
        name, text = type(error).__name__, str(error)
        kind = f"{name}: {_DETAILS.sub('#', text)[:200]}"
        if kind in self._kinds or self._types.get(name, 0) >= _MOST_OF_A_KIND:
            return
        self._types[name] = self._types.get(name, 0) + 1
        self.warn(
            kind,
            f"the tracker failed ({name}: {text}). Training continues; unsent rows are kept and sent later",
            stacklevel=7,
        )

    def unwritten(self, error: OSError) -> None:
        """Tell that a row is in memory only, when the ones before were not."""
        if self._in_memory:
            return
        self._in_memory = True
        self._worse += 1
        if self._worse & (self._worse - 1) == 0:  # the first, second, fourth, eighth … time
            warnings.warn(
                without_credentials(
                    f"the journal cannot be written ({error}). Rows are kept in memory until they are sent, and are "
                    "lost if this process dies first"
                ),
                stacklevel=6,
            )

    def written(self) -> None:
        """Note that rows are on the disk again."""
        self._in_memory = False

    def lost(self, rows: int) -> None:
        """Tell that memory had no room for so many rows, at the first and at ten times as many."""
        if rows >= max(10 * self._lost, 1):
            self._lost = rows
            warnings.warn(
                f"{rows} rows are lost: neither the tracker nor the journal accepted them, and memory is full",
                stacklevel=6,
            )
