"""Real services that tests and benchmarks start, stop and kill: an MLflow server, a PostgreSQL database."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests import mlflow_stores
from tests.warm import program


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Its own processes are started by whatever Python started it: these are warm too.
_MLFLOW = "import sys; sys.executable = sys.argv.pop(1); from mlflow.cli import cli; cli()"


class MlflowServer:
    """A real `mlflow server`, started.

    Args:
        folder: Where its files are.
        store: Backend store; an SQLite file in the folder otherwise.
    """

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.folder = folder
        self.store = store or f"sqlite:///{folder}/mlflow.db"
        if store is None and not (folder / "mlflow.db").exists():
            shutil.copy(mlflow_stores.made(), folder / "mlflow.db")
        self._port = free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start it, again at the same port and with the same store."""
        python = program("python")
        command = [python, "-c", _MLFLOW, python, "server", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--workers", "1", "--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "files")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        for _ in range(1200):
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"mlflow server didn't start:\n{(self.folder / 'server.log').read_text()}")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End the server and its workers; more than once does no harm."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, with_signal)
            self._process.wait(30)
            while self._listens():
                time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Postgres:
    """A real PostgreSQL with a database of its own, started; as the user `postgres` where root runs the tests."""

    def __init__(self) -> None:
        # Not in pytest's folders: they are their owner's alone, and made so again by each session that starts.
        self._folder = Path(tempfile.mkdtemp(prefix="bimix-postgres-"))
        self._data = self._folder / "data"
        self._port = free_port()
        self.uri = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._user:
            shutil.chown(self._folder, "postgres")
        self._run("initdb", "-A", "trust", "-U", "postgres", "-D", str(self._data))
        self.start()

    @staticmethod
    def missing() -> str:
        """Return what isn't here, to skip for; empty if all is."""
        if _binary("pg_ctl") is None:
            return "PostgreSQL isn't installed"
        if os.getuid() == 0:
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                return "there is no user postgres to run PostgreSQL as"
        return ""

    def start(self) -> None:
        """Start it, again at the same port."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-o", options, "-l", str(self._data / "log"), "-w", "start")

    def stop(self) -> None:
        """Stop it, and cut off whoever is connected; more than once does no harm."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Stop it, and delete its files."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, name: str, *arguments: str) -> None:
        binary = _binary(name)
        command: Sequence[str] = [*self._user, str(binary), *arguments]
        done = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd="/"
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr}")


def _binary(name: str) -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else None
