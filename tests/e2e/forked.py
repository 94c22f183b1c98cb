"""A training in a process of its own that begins with PyTorch and the trainers imported, and ends when it is killed.

Importing them takes longer than such a training. So a server imports them once, and forks: it starts no threads, and
what a test has done to its own process isn't in it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_SCRIPTS = ("plain", "hf", "light")
_SECONDS = 120
_context = get_context("forkserver")
_context.set_forkserver_preload([f"tests.e2e.scripts.{name}" for name in _SCRIPTS])


def kill_when_reached(train: Callable[[dict[str, Any]], None], options: dict[str, Any]) -> None:
    """Train in another process until it says that it is where it is to die, and kill it with -9.

    Args:
        train: Of one of the scripts.
        options: What it is given; it says where it is by `reached.json` in its `folder`, at whatever depth.
    """
    folder = Path(options["folder"])
    process = _context.Process(target=_call, args=(train, options, dict(os.environ)))
    process.start()
    end = time.monotonic() + _SECONDS
    while not (reached := list(folder.rglob("reached.json"))):
        if not process.is_alive() or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{options} didn't get to where it was to be killed: exit code {process.exitcode}")
        time.sleep(0.02)
    (place,) = reached
    assert json.loads(place.read_text()) == process.pid
    process.kill()
    process.join(_SECONDS)
    assert process.exitcode == -signal.SIGKILL


def _call(train: Callable[[dict[str, Any]], None], options: dict[str, Any], environment: dict[str, str]) -> None:
    """Train where a script would have been started, with the environment of the test."""
    os.environ.clear()
    os.environ.update(environment | {"TOKENIZERS_PARALLELISM": "false"})
    os.chdir(options["folder"])
    train(options)
