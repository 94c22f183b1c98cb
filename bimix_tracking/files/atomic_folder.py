"""Folders of files that belong together: whoever looks finds all of the old ones or all of the new, never some of each.

The new files are written beside the folder, and the two folders then change places in one step of the file system
(`renameat2` with RENAME_EXCHANGE on Linux, `renamex_np` on macOS). Whatever is killed before leaves the old files,
whatever is killed after it the new ones, and at most a hidden folder `.NAME.….part`, which the next save removes.

Files in the folder that aren't ours stay: they are linked into the new one first. Where a folder must not change
places (it is a mount point or the working directory, others' folders are in it, its parent cannot be written), the new
files are staged inside it, the old ones moved away and the new ones moved in: one that is killed in between has fewer
files, but still none of two sets.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import stat
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there, what a dead process has left is known by its age
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".part"
_MOST_FOREIGN = 1000
"""Files that aren't ours and are linked: of more, the folder is somebody's home."""
_ATTEMPTS = 50
_OLD = 86400.0
_PATIENCE = 30.0
"""Seconds that another's save is waited for."""
_AT_FDCWD, _EXCHANGE, _SWAP = -100, 2, 2


@contextlib.contextmanager
def staged(folder: str | Path, owned: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder whose files, once all are written, take the place of the owned ones of `folder` as a whole.

    Args:
        folder: Made where it isn't there; a link is followed.
        owned: Paths in it that are ours, with `/`: those that aren't written anew are gone. All others stay.

    Raises:
        OSError: It cannot be written; the old files are then as they were.
        ValueError: A file was written that isn't owned: it would stay for ever.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "analysis"
    >>> for names in (["a", "b"], ["a"]):
    ...     with staged(folder, owned=("a", "b")) as new:
    ...         for name in names:
    ...             _ = (new / name).write_text(name)
    >>> sorted(path.name for path in folder.iterdir()), [path.name for path in folder.parent.iterdir()]
    (['a'], ['analysis'])
    """
    target, owned, swapping = Path(os.path.realpath(folder)), frozenset(owned), False
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder", str(folder))
    beside = _can_move(target, owned)
    if beside:
        target.parent.mkdir(parents=True, exist_ok=True)
    _clean(target, owned)
    part, lock = _made(target, beside=beside)
    try:
        yield part
        if strange := sorted(set(_files(part)) - owned):
            raise ValueError(f"{strange} would never be replaced: they aren't among the files that are owned")
        swapping = True
        with _uninterrupted():
            if beside and _can_move(target, owned):
                _change_places(part, target, owned)
            else:
                _move_in(part, target, owned)
    finally:
        if swapping:
            _remove(part, target, owned)
        else:
            shutil.rmtree(part, ignore_errors=True)
        _unlock(lock)


def _can_move(target: Path, owned: Collection[str]) -> bool:
    """Return whether another folder may take its place, without losing anybody's files or directory."""
    if not target.exists():
        return True
    try:
        here = Path(os.path.realpath(Path.cwd()))
    except FileNotFoundError:  # somebody has deleted it
        here = target.parent
    if target.is_mount() or here.is_relative_to(target) or not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    foreign = list(_foreign(target, owned))
    return len(foreign) <= _MOST_FOREIGN and not any((target / name).is_dir() for name in foreign)


def _foreign(folder: Path, owned: Collection[str], inside: str = "") -> Iterator[str]:
    """Yield what isn't ours: files, and whole folders in which nothing is."""
    try:
        entries = sorted(os.scandir(folder / inside), key=lambda entry: entry.name)
    except FileNotFoundError:  # another process has just replaced it
        return
    for entry in entries:
        name = f"{inside}{entry.name}"
        if name in owned or (entry.name.startswith(".") and entry.name.endswith(_SUFFIX) and _is_part(entry.name)):
            continue
        if entry.is_dir(follow_symlinks=False) and any(ours.startswith(f"{name}/") for ours in owned):
            yield from _foreign(folder, owned, f"{name}/")
        else:
            yield name


def _change_places(part: Path, target: Path, owned: Collection[str]) -> None:
    """Have the new folder where the old one was; the old one is then where the new one was made."""
    for _ in range(_ATTEMPTS):
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            mode = None
        if mode is None:
            try:
                part.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process has made it meanwhile
                    continue
                raise
            return
        try:
            lock = _locked(target)  # whoever saves there goes first; the later one wins, as a whole
        except FileNotFoundError:
            continue
        try:
            if lock is not None and not _is(lock, target):
                continue
            part.chmod(stat.S_IMODE(mode))
            with contextlib.suppress(OSError, AttributeError):  # a group that one isn't in; Windows has none
                os.chown(part, -1, target.stat().st_gid)
            _link(target, part, owned)
            if not _exchange(part, target):
                aside = part.with_name(part.name.removesuffix(_SUFFIX) + f".old{_SUFFIX}")
                _renamed([(target, aside), (part, target), (aside, part)])
            _remove(part, target, owned)
            return
        finally:
            _unlock(lock)
    raise OSError(errno.EBUSY, "others keep on replacing it", str(target))


def _link(source: Path, to: Path, owned: Collection[str]) -> None:
    """Have what isn't ours in the new folder too: the same files, not copies."""
    for name in _foreign(source, owned):
        if not os.path.lexists(to / name):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, to / name, follow_symlinks=False)
            except (OSError, NotImplementedError):  # a file system without links: it is moved when the folders are
                continue


def _move_in(part: Path, target: Path, owned: Collection[str]) -> None:
    """Move the old files away and the new ones in: at no moment are there files of both."""
    target.mkdir(parents=True, exist_ok=True)
    away, lock = _made(target, beside=False)
    try:
        old = [(target / name, away / name) for name in sorted(owned) if os.path.lexists(target / name)]
        _renamed([*old, *((part / name, target / name) for name in _files(part))])
        for name in {name.rpartition("/")[0] for name in owned if "/" in name}:
            with contextlib.suppress(OSError):  # it isn't empty
                (target / name).rmdir()
    finally:
        shutil.rmtree(away, ignore_errors=True)
        _unlock(lock)


def _renamed(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after another; if one cannot be, none is."""
    done: list[tuple[Path, Path]] = []
    try:
        for old, new in pairs:
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
            done.append((old, new))
    except OSError:
        for old, new in reversed(done):
            new.rename(old)
        raise


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _remove(part: Path, target: Path, owned: Collection[str]) -> None:
    """Delete a folder that is no longer needed; what isn't ours in it and nowhere else goes back first."""
    if not part.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):  # another process cleans up, too
        for name in _foreign(part, owned):
            found = (part / name).lstat()
            if (stat.S_ISDIR(found.st_mode) or found.st_nlink == 1) and not os.path.lexists(target / name):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).rename(target / name)
    shutil.rmtree(part, ignore_errors=True)


def _clean(target: Path, owned: Collection[str]) -> None:
    """Remove what processes that died have left, and bring back a folder that one had moved aside."""
    for parent, prefix in ((target.parent, f".{target.name}."), (target, ".bimix.")):
        if not parent.is_dir():
            continue
        for left in sorted(parent.glob(f"{_escaped(prefix)}*{_SUFFIX}")):
            if not _is_part(left.name) or not left.is_dir() or left.is_symlink():
                continue
            try:
                lock = _locked(left, wait=False)
            except OSError:  # it is gone, or is another user's
                continue
            try:
                if lock is None and not _is_old(left):
                    continue
                if left.name.endswith(f".old{_SUFFIX}") and not target.exists():
                    left.rename(target)
                else:
                    _remove(left, target, owned)
            finally:
                _unlock(lock)


def _escaped(text: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)


def _is_part(name: str) -> bool:
    """Return whether it is the name of a folder of ours that was being written."""
    token = name.removesuffix(_SUFFIX).removesuffix(".old").rpartition(".")[2]
    return len(token) == 16 and all(sign in "0123456789abcdef" for sign in token)


def _is_old(folder: Path) -> bool:
    return fcntl is None and time.time() - folder.stat().st_mtime > _OLD


def _made(target: Path, *, beside: bool) -> tuple[Path, int | None]:
    """Make a folder to write into, locked as long as this process lives."""
    if not beside:
        target.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        token = uuid.uuid4().hex[:16]
        part = target.with_name(f".{target.name}.{token}{_SUFFIX}") if beside else target / f".bimix.{token}{_SUFFIX}"
        part.mkdir()
        # Who cleans up may have taken it for a dead process's
        with contextlib.suppress(FileNotFoundError):
            lock = _locked(part)
            if lock is None or _is(lock, part):
                return part, lock
            _unlock(lock)
    raise OSError(errno.EBUSY, "others keep on removing it", str(part))


def _locked(folder: Path, *, wait: bool = True) -> int | None:
    """Return an open lock of a folder; None where there are none, or it is another's.

    Raises:
        OSError: The folder is gone, or cannot be opened.
    """
    if fcntl is None:
        return None
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + (_PATIENCE if wait else 0.0)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another's
            if time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            os.close(lock)
            return None
        except OSError:  # a file system without locks
            os.close(lock)
            return None
        return lock


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _is(lock: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), folder.stat())
    except FileNotFoundError:
        return False


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; return whether this system can."""
    call = _exchanger()
    if call is None:
        return False
    if call(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _exchanger() -> Callable[[bytes, bytes], int] | None:
    if sys.platform == "win32":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        return lambda one, other: int(library.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE))
    if hasattr(library, "renamex_np"):
        return lambda one, other: int(library.renamex_np(one, other, _SWAP))
    return None


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for a moment: files are changing places."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    earlier = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)
        if came:
            signal.raise_signal(signal.SIGINT)
