"""Start trainings as processes of their own, and kill them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.warm import program

_SCRIPTS = Path(__file__).parent
_SECONDS = 120


def run(
    script: str, options: dict[str, Any], *, processes: int, started: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, under torchrun.

    Args:
        script: Its name.
        options: What it is given.
        processes: How many torchrun starts.
        started: Whether torchrun and they start as a user's do, and not in interpreters that have imported PyTorch.
    """
    with _started(script, options, processes, sys.executable if started else None) as process:
        out, err = process.communicate(timeout=_SECONDS)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill_when_reached(script: str, options: dict[str, Any], folder: Path, *, processes: int = 1) -> None:
    """Run a script until all its processes have said that they are where they are to die, and kill them with -9.

    Several run under torchrun.

    Args:
        script: Its name.
        options: What it is given.
        folder: Where the processes write `reached.json`, at whatever depth.
        processes: How many say so.
    """
    with _started(script, options, processes) as process:
        end = time.monotonic() + _SECONDS
        while len(reached := list(folder.rglob("reached.json"))) < processes:
            if process.poll() is not None or time.monotonic() > end:
                process.terminate()
                raise AssertionError(f"{script} didn't get to where it was to be killed:\n{process.communicate()[1]}")
            time.sleep(0.05)
        # torchrun's processes are in groups of their own, and torchrun must not have the time to end them gently.
        for pid in dict.fromkeys([process.pid, *(json.loads(path.read_text()) for path in reached)]):
            with contextlib.suppress(ProcessLookupError):  # it went with the one killed before it
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=_SECONDS)
    assert process.returncode == -signal.SIGKILL


@contextmanager
def _started(
    script: str, options: dict[str, Any], processes: int, python: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start it; nothing of it is left afterwards."""
    python = python or program("python", training=True)
    torchrun = [
        python,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--no-python",
    ]
    command = [*(torchrun if processes > 1 else []), python, str(_SCRIPTS / script), json.dumps(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=options["folder"],
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # torchrun ends its processes
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
