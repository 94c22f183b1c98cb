"""A run has one writer: who writes it holds a lock, of the machine or in the run's folder.

A lock goes with its process, however that ends. It isn't inherited: a worker that was forked, and outlives a trainer
that was killed, doesn't keep the run from being resumed. Where there are no locks (Windows, some network file systems)
two writers aren't distinguished.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from weakref import WeakSet

from bimix_tracking.errors import SourceError

try:
    import fcntl
except ImportError:  # Windows: there is no lock between two writers
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

_HELD: WeakSet[WriterLock] = WeakSet()
_WATCHED: list[bool] = []
"""Not empty once forks are watched."""


class BeingWrittenError(SourceError):
    """Another recorder or process, which still lives, writes there."""


class WriterLock:
    """The right to write, until `release`, or until the object or its process is gone.

    Args:
        path: The file that is locked.
        file: Its descriptor; None for a lock that only looks like one, where there are none.
    """

    def __init__(self, path: Path, file: int | None) -> None:
        self.path = path
        self._file = file
        if file is not None:
            _HELD.add(self)

    def release(self, *, remove: bool = True) -> None:
        """Let another one write; and remove the file, while it is still ours."""
        if self._file is not None and remove and _is(self._file, self.path):
            self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor: of a forked child, for the lock is its parent's."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        """Let go: it can't be written with any more."""
        self.forget()


def lock(path: Path, *, mode: int = 0o666) -> WriterLock | None:
    """Lock a file, which is made if need be; None where another holds it.

    Raises:
        OSError: It cannot be opened.
    """
    if fcntl is None:
        return WriterLock(path, None)
    _watch_forks()
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return None
            return WriterLock(path, None)  # a file system without locks
        if _is(file, path):
            return WriterLock(path, file)
        os.close(file)  # it was removed by who held it before: there is a new one, or none


def lock_training(identity: str) -> WriterLock | None:
    """Lock a training on this machine, for this user; None where another process or recorder holds it.

    Args:
        identity: What names it: its key.
    """
    name = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    try:
        folder = _folder()
        return lock(folder / name, mode=0o600)
    except OSError:  # no place for locks is no reason not to train
        return WriterLock(Path(name), None)


def _folder() -> Path:
    """Return this user's folder of locks: its own alone, and no link that another has put there.

    Raises:
        OSError: There is none.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"bimix-locks-{user}"
    folder.mkdir(0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is another's")
    return folder


def _is(file: int, path: Path) -> bool:
    """Return whether the file that is open is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except OSError:
        return False


def _watch_forks() -> None:
    if not _WATCHED and hasattr(os, "register_at_fork"):
        _WATCHED.append(True)
        os.register_at_fork(after_in_child=_forget_all)


def _forget_all() -> None:
    for held in list(_HELD):
        held.forget()
