"""Real MLflow stores for the adapters' tests: an SQLite file, and a server with its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest


@pytest.fixture(autouse=True)
def _no_store_of_the_last_test() -> Iterator[None]:
    """Forget the tracking URI that Lightning's logger sets for the whole process."""
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # what its own code takes


@pytest.fixture(name="closed_port")
def _closed_port() -> int:
    """Return a loopback port that nobody listens on."""
    return free_port()


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real `mlflow server` on a store of its own."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", str(folder / "files")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        _wait(self._process, self.address, folder / "log")

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """End the server and its workers; more than once does no harm."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, with_signal)
            self._process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server that all tests share."""
    started = Server(tmp_path_factory.mktemp("mlflow-server"))
    yield started.address
    started.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """Return a server that a test may kill."""
    started = Server(tmp_path)
    yield started
    started.stop()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(240):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"mlflow server didn't start:\n{log.read_text()}")


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the start of a URI, up to the `#` of the experiment."""
    if request.param == "sqlite":
        return f"mlflow+sqlite:///{tmp_path}/mlflow.db"
    return f"mlflow+{request.getfixturevalue('server')}"
