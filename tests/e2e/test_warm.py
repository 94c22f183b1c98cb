"""A warm start is a start: what a process sees, says and ends with is what it would be without it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import program

_SEEN = """
import os, sys, threading
print(os.getcwd(), sys.argv, sys.orig_argv[1:], sys.path, __name__, __file__ if "__file__" in globals() else None)
print(os.environ["TOLD"], sys.stdin.read(), threading.active_count(), sys.stdout.line_buffering, sys.flags)
print([name for name in sys.modules if name.startswith(("bimix", "tests"))], file=sys.stderr)
"""
_COMMANDS = {
    "what it sees": ["-c", _SEEN, "-c", "a b"],
    "a script": ["seen.py", "--option", "ü"],
    "a folder": ["folder", "1"],
    "a module": ["-m", "seen", "1"],
    "a code": ["-c", "import sys; sys.exit(7)"],
    "a reason": ["-c", "import sys; sys.exit('no')"],
    "nothing": ["-c", "import sys; sys.exit(None)"],
    "an exit": ["-c", "import atexit; atexit.register(print, 'bye'); print('there')"],
    "a thread": ["-c", "import threading; threading.Timer(0.1, print, ['late']).start(); print('there')"],
    "a signal": ["-c", "import os; print('lost', end=''); os.kill(os.getpid(), 15)"],
    "kill -9": ["-c", "import os; os.kill(os.getpid(), 9)"],
    "an option": ["-W", "error", "-c", "import warnings; warnings.warn('x')"],
}


@pytest.mark.parametrize("command", _COMMANDS.values(), ids=_COMMANDS)
def test_a_process_is_the_same(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("seen.py", "folder/__main__.py"):
        (tmp_path / name).write_text(_SEEN, encoding="utf-8")
    done = [
        subprocess.run(
            [python, *command],
            cwd=tmp_path,
            env=os.environ | {"TOLD": "so"},
            input="said",
            capture_output=True,
            text=True,
            check=False,
        )
        for python in (sys.executable, program("python"))
    ]

    started, warm = ((one.returncode, one.stdout, one.stderr) for one in done)
    assert warm == started


def test_an_error_ends_a_process_with_its_traceback() -> None:
    done = subprocess.run([program("python"), "-c", "1 / 0"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.endswith('File "<string>", line 1, in <module>\nZeroDivisionError: division by zero\n')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_process_and_its_end_is_told(number: signal.Signals) -> None:
    code = "import os, signal, time; signal.signal(2, signal.default_int_handler); print(os.getpid(), flush=True)\n"
    command = [program("python"), "-c", f"{code}time.sleep(120)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        pid = int(running.stdout.readline())
        gone = os.pidfd_open(pid)
        running.send_signal(number)
        assert running.wait(60) == -number
    assert select.select([gone], [], [], 60)[0]
    os.close(gone)


def test_what_python_reads_at_its_start_is_read(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('customized')", encoding="utf-8")
    done = subprocess.run(
        [program("bimix"), "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("customized\nbimix ")
