"""Files that are there whole, or as they were: a new one, on the disk, renamed over the old one.

Nothing is rewritten in place: a process may be killed, or a disk be full, after any byte.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

CLOEXEC = getattr(os, "O_CLOEXEC", 0)


def replace(path: Path, content: str | bytes, *, mode: int = 0o666) -> None:
    """Write a file over what is there, so that it is never seen half.

    Raises:
        OSError: It cannot be written; what was there is as it was.
    """
    part = path.with_name(f".{path.name}.part")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        part.unlink(missing_ok=True)  # a killed process's, of other rights perhaps
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC, mode)
        try:
            write(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the disk know a folder's names, where it can be asked to."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems don't sync them
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def write(file: int, data: bytes) -> None:
    """Write all of it, or raise.

    Raises:
        OSError: Some of it may be written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def append(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Add whole lines to a file, all of them or none; one that an earlier process left cut off goes first.

    Raises:
        OSError: None of it is written.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | CLOEXEC, mode)
    try:
        size = end_of_lines(file)
        os.ftruncate(file, size)
        try:
            write(file, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def end_of_lines(file: int) -> int:
    """Return where the last line that is whole ends."""
    at = os.fstat(file).st_size
    while at:
        start = max(at - 2**16, 0)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0
