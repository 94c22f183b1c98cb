"""Commands whose imports are made already: for tests that start many processes, and aren't about how one starts.

A `bimix analyze` imports for longer than it works, an example with PyTorch for much longer. `program` returns the path
of a program that is run like the real one, by a test, by a shell or by another program; instead of importing, it has a
server fork (`tests/warm_server.py`), of which there is one for all of pytest's workers. What runs is a process of its
own: its arguments, its folder, environment and streams, its exit code and the signals it gets are those it would have.
Nothing of ours is imported before.

Where what Python reads at its start differs from this process's (a `PYTHONPATH`, an option), the real one is started.
Not for tests of how long or how a command starts, of what it imports, or of a process's group.
"""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_SCIENCE = (
    "numpy", "scipy.optimize", "scipy.stats", "scipy.linalg", "pandas", "yaml", "typer", "rich.console", "rich.table",
    "rich.progress", "jinja2", "mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy", "alembic",
)  # fmt: skip
_TRAINING = (*_SCIENCE, "torch._dynamo", "transformers.trainer", "lightning.pytorch", "pytorch_lightning")
_READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "HF_", "OMP_", "OPENBLAS_", "MKL_")
_SHIM = """#!{python} -IS
import json, os, signal, socket, sys
REAL, SCRIPT, ARGUMENTS = {real!r}, {script!r}, sys.argv[1:]
at_start = {{name: value for name, value in os.environ.items() if name.startswith({read_at_start!r})}}
known = SCRIPT or ARGUMENTS[:1] and (ARGUMENTS[0] in ("-c", "-m") or not ARGUMENTS[0].startswith("-"))
if at_start != {at_start!r} or not known:
    os.execv(REAL, [REAL, *ARGUMENTS])
mask = os.umask(0)
os.umask(mask)
deaf = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
leads = os.getsid(0) == os.getpid()
told = json.dumps({{
    "arguments": SCRIPT + ARGUMENTS, "folder": os.getcwd(), "environment": dict(os.environ), "mask": mask,
    "deaf": deaf, "leads": leads,
}}).encode()
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
socket.send_fds(server, [len(told).to_bytes(4)], [0, 1, 2])
server.sendall(told)
answers = server.makefile()
pid = int(answers.readline())
for stream in (0, 1, 2):  # whose end must be that of the other process
    os.close(stream)
for number in {{signal.SIGTERM, signal.SIGINT, signal.SIGHUP}} - ({{signal.SIGINT}} if deaf else set()):
    signal.signal(number, lambda number, _: (os.killpg if leads else os.kill)(pid, number))
code = int(answers.readline())
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def program(name: str, *, training: bool = False) -> str:
    """Return the path of a program that does what the one of this environment does.

    Args:
        name: `bimix` or `python`.
        training: Whether PyTorch and the trainers are imported already, besides SciPy, pandas and MLflow.
    """
    return str(Path(programs(training=training)) / name)


@functools.cache
def programs(*, training: bool = False) -> str:
    """Return the folder of these programs: for a `PATH`."""
    # The workers' parent is the process that the user started, and all have the same.
    run, owner = os.environ.get("PYTEST_XDIST_TESTRUNUID"), os.getppid()
    run, owner = (run, owner) if run else (str(os.getpid()), os.getpid())
    folder = Path(tempfile.gettempdir()) / f"bimix-warm-{'training' if training else 'science'}-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "bimix").exists():
            _serve(folder, owner, _TRAINING if training else _SCIENCE)
            real = Path(sys.executable)
            for name in ("python", "python3"):
                _write(folder / name, folder / "socket", sys.executable, [])
            _write(folder / "bimix", folder / "socket", str(real.with_name("bimix")), [str(real.with_name("bimix"))])
    return str(folder)


def _serve(folder: Path, owner: int, modules: tuple[str, ...]) -> None:
    """Start a server, and return when it is there."""
    ready, told = os.pipe()
    command = [sys.executable, str(Path(__file__).with_name("warm_server.py")), str(folder / "socket"), str(owner)]
    with (folder / "log").open("w") as log:
        _SERVERS.append(
            subprocess.Popen(
                [*command, str(told), *modules],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[told],
                start_new_session=True,
            )
        )
    os.close(told)
    os.read(ready, 1)  # until the server closes it
    os.close(ready)
    if not (folder / "socket").exists():
        raise RuntimeError(f"the server didn't start:\n{(folder / 'log').read_text()}")


_SERVERS: list[subprocess.Popen[bytes]] = []
"""Kept: a process that nobody holds is one that was forgotten, says Python."""


def _write(path: Path, socket: Path, real: str, script: list[str]) -> None:
    at_start = {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}
    text = _SHIM.format(
        python=sys.executable,
        real=real,
        script=script,
        socket=str(socket),
        at_start=at_start,
        read_at_start=_READ_AT_START,
    )
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
