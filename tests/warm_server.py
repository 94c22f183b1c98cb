"""Imports what takes long, and forks for each command that comes in: `warm_server.py SOCKET OWNER READY MODULE…`.

What a fork becomes is what Python would have started, but for the time of those imports: a process with arguments, a
folder, an environment and streams of its own, and an interpreter's whole end. `tests/warm.py` says who asks.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any


def _asked(path: str, owner: int, ready: int) -> dict[str, Any]:
    """Serve for as long as the owner lives; return in a fork, which is to do what it is told."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    until = os.pidfd_open(owner)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(128)
        os.close(ready)
        awaited: list[Any] = [listening, until]
        while True:
            if until in select.select(awaited, [], [])[0]:
                shutil.rmtree(Path(path).parent, ignore_errors=True)
                os._exit(0)
            asking, _ = listening.accept()
            if os.fork() == 0:
                break
            asking.close()
    return _kept(asking, until)


def _kept(asking: socket.socket, until: int) -> dict[str, Any]:
    """Wait for a fork and tell who asked how it ended, or kill it if nobody is there to be told; return in the fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, streams, _, _ = socket.recv_fds(asking, 4, 3)
    with asking.makefile("rb") as told_by:
        told: dict[str, Any] = json.loads(told_by.read(int.from_bytes(length)))
    pid = os.fork()
    if pid == 0:
        asking.close()
        os.close(until)
        _become(told, streams)
        return told
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(pid)
    awaited: list[Any] = [asking, ended, until]
    with contextlib.suppress(ConnectionError):
        asking.sendall(f"{pid}\n".encode())
    if ended not in select.select(awaited, [], [])[0]:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if told["leads"] else os.kill)(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ConnectionError):
        asking.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(told: dict[str, Any], streams: list[int]) -> None:
    """Make of a fork the process that is asked for."""
    if told["leads"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]  # a text stream
    os.chdir(told["folder"])
    os.umask(told["mask"])
    os.environ.clear()
    os.environ.update(told["environment"])
    signal.signal(signal.SIGINT, signal.SIG_IGN if told["deaf"] else signal.default_int_handler)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python's own generator sees to itself


def _run(first: str, *rest: str) -> None:
    """Do what `python FIRST REST…` does: a script, a folder, `-c CODE` or `-m MODULE`."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.orig_argv = [sys.executable, first, *rest]
    sys.argv = ["-m", *rest[1:]] if first == "-m" else ["-c", *rest[1:]] if first == "-c" else [first, *rest]
    if first == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy._run_module_as_main(rest[0])  # type: ignore[attr-defined]  # what Python calls
    elif first == "-c":
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)  # noqa: S102  # what Python does
    elif Path(first).is_dir():
        sys.path.insert(0, str(Path(first).absolute()))
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]  # what Python calls
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        main.__file__ = str(Path(first).absolute())
        exec(compile(Path(first).read_bytes(), first, "exec"), main.__dict__)  # noqa: S102  # what Python does


def _ended(command: list[str]) -> int:
    """Run a command to its end and return its exit code, as an interpreter ends."""
    code: object = 0
    try:
        _run(*command)
    except SystemExit as asked:
        code = asked.code
    except BaseException as error:  # noqa: BLE001  # whatever it is, the process ends by it
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # none, or a closed one
            stream.flush()
    return code or 0


def main(path: str, owner: str, ready: str, *modules: str) -> None:
    """Import modules and serve."""
    del sys.path[0]  # our own folder
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # nobody's garbage: a fork needn't look through it
    code = _ended(_asked(path, int(owner), int(ready))["arguments"])
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)  # without taking all those modules apart


if __name__ == "__main__":
    main(*sys.argv[1:])
