"""A process killed at each of its steps while it writes and rewrites a journal or a run's rows.

Run as `python -m tests.core.files.killed_rewrites FOLDER KIND`: prints one JSON line a step. It forks, so
it is a process of its own.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.files import atomic_file
from bimix_tracking.recording.journal import Journal
from bimix_tracking.tracking.jsonl_tracker import JsonlTracker
from bimix_tracking.tracking.ports import Row
from tests.core.files.countdown import Countdown

CHECKPOINT = 6
_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.truncate"}


def row(step: int) -> Row:
    return Row(step, 1000.0 + step, {"bimix/step": float(step), "x": 1.0 / (step + 1)})


def journal(folder: Path, said: Callable[[str], None]) -> None:
    """Append, deliver, drop, go on from a checkpoint and end."""
    one = Journal(folder, tracker="memory:", largest=1250)
    one.begin({"domains": ["a"]})
    for step in range(10):
        one.append(row(step))
        said(f"made {step}")
    said("mark 4")
    one.mark(4, "r")
    for step in range(10, 18):  # drops what is delivered
        one.append(row(step))
        said(f"made {step}")
    said("keep 15")
    one.keep(15)
    one.append(row(15))
    said("made 15")
    one.end("{}")


def resumed(folder: Path, said: Callable[[str], None]) -> None:
    """Go on with a run of `jsonl:` from a checkpoint."""
    tracker = JsonlTracker(f"jsonl:{folder}")
    said(f"keep {CHECKPOINT}")
    tracker.resume("r", CHECKPOINT)
    tracker.start(RunManifest(("a",)))
    for step in range(CHECKPOINT, 9):
        tracker.log([row(step)])
        said(f"made {step}")
    tracker.finish()


def prepared(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    if kind == "resumed":
        tracker = JsonlTracker(f"jsonl:{folder}", run_name="r")
        tracker.start(RunManifest(("a",)))
        tracker.log([row(step) for step in range(10)])
        tracker.finish()


def killed_at(step: int, kind: str, folder: Path, cut: int) -> tuple[int, list[str]]:
    """Write in a process that is killed before its `step`-th step, in the middle of a write; return what it said."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as lines:
            said = lines.read().splitlines()
        return os.waitpid(child, 0)[1], said
    whole = atomic_file.write

    def write(file: int, data: bytes) -> None:
        if countdown.ends_here():
            os.write(file, data[: cut % max(len(data), 1)])
            countdown.die()
        whole(file, data)

    atomic_file.write = write
    countdown = Countdown(step, _STEPS)
    try:
        if kind == "journal":
            journal(folder / "j", partial(told, writer))
        else:
            resumed(folder, partial(told, writer))
        os._exit(0)
    finally:  # never on in the parent's place
        os._exit(1)


def told(writer: int, text: str) -> None:
    os.write(writer, f"{text}\n".encode())


def main() -> None:
    root, kind = Path(sys.argv[1]), sys.argv[2]
    rng = random.Random(5)
    for step in range(1000):
        folder = root / f"{kind}-{step}"
        prepared(folder, kind)
        status, said = killed_at(step, kind, folder, rng.randrange(100))
        sys.stdout.write(json.dumps({"folder": str(folder), "killed": status != 0, "said": said}) + "\n")
        if not os.WIFSIGNALED(status):
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
