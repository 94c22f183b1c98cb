"""Files that anybody may have left in a folder: only plain ones are opened, and no more is read than is asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bimix_tracking.errors import RunError

LONGEST_LINE = 2**24
"""Bytes of a line that are read at most."""


def opened(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Open a file for reading, never a FIFO or a device: opening one may wait for ever, or do something.

    Raises:
        OSError: It isn't there, or may not be read.
        RunError: It is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise RunError(f"{path.name} is not a regular file")
    # Should it have become a FIFO since, this doesn't wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=buffering)


def text_of(path: Path, largest: int) -> str:
    """Return the text of a file in UTF-8.

    Raises:
        OSError: It isn't there, or may not be read.
        RunError: It is not a regular file, is not UTF-8, or is larger than `largest` bytes.
    """
    with opened(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise RunError(f"{path.name} has {path.stat().st_size:,} bytes, more than the {largest:,} that are read of it")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path.name} is not UTF-8: {error.reason} at byte {error.start}") from None


def lines_of(path: Path) -> Iterator[bytes | None]:
    """Return the lines of a file, one after another; None for one that is longer than any of ours.

    Raises:
        OSError: It isn't there, or may not be read.
        RunError: It is not a regular file.
    """
    with opened(path) as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) < LONGEST_LINE or line.endswith(b"\n"):
                yield line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            yield None


def printable(name: str) -> str:
    r"""Return the name of a file as text that can be written: one that is not UTF-8 has marks in their place.

    >>> printable("run-1"), printable("run-\udcff")
    ('run-1', 'run-�')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
