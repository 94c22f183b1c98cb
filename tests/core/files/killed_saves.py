"""A process that is killed at each of its steps through the file system, and what the folder then holds.

Run as `python -m tests.core.files.killed_saves FOLDER KIND`: prints one JSON line a step. It forks, so
it is a process of its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bimix_tracking.files import atomic_folder
from tests.core.files.countdown import Countdown

OWNED = ("mixture.yaml", "fit.json", "validation.json", "exports/a.sh", "exports/b.sh")
_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "os.chown", "os.scandir"}


def save(folder: Path, data: str, names: tuple[str, ...] = OWNED) -> None:
    with atomic_folder.staged(folder, OWNED) as new:
        for name in names:
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).write_text(data)


def held(folder: Path) -> dict[str, str]:
    """Return path → content of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".part" not in str(path.relative_to(folder))
    }


def listed(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def killed_at(step: int, folder: Path) -> int:
    """Save in a process that is killed before its `step`-th step; return its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    exchange = atomic_folder._exchange

    def counted(one: Path, other: Path) -> bool:
        countdown.step()
        done = exchange(one, other)
        countdown.step()
        return done

    atomic_folder._exchange = counted
    countdown = Countdown(step, _STEPS)
    save(folder, "new", OWNED[:2] + OWNED[3:4])
    os._exit(0)


def main() -> None:
    root, kind = Path(sys.argv[1]), sys.argv[2]
    if kind == "renames":
        atomic_folder._exchanger = lambda: None
    step = 0
    while True:
        folder = root / f"{kind}-{step}" / "analysis"
        folder.parent.mkdir()
        if kind != "fresh":
            save(folder, "old")
            (folder / "notes.txt").write_text("mine")
            (folder / "exports" / "mine.sh").write_text("mine")
        if kind == "inside":
            (folder / "theirs").mkdir()
            (folder / "theirs" / "x").write_text("mine")
        if kind == "link":
            (folder.parent / "link").symlink_to(folder)
        at = folder.parent / "link" if kind == "link" else folder
        status = killed_at(step, at)
        after = held(folder) if folder.exists() else None
        save(folder, "newer", OWNED[:1])
        found = {"killed": status != 0, "after": after, "next": held(folder), "beside": listed(folder.parent)}
        sys.stdout.write(json.dumps(found) + "\n")
        if status == 0:
            return
        step += 1


if __name__ == "__main__":
    main()
