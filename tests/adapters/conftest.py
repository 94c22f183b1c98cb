"""Real stores for the adapters' tests: an SQLite file, a server with its own, a PostgreSQL database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient, fluent

from tests import mlflow_stores
from tests.adapters.services import MlflowServer, Postgres, free_port


@pytest.fixture(scope="session", autouse=True)
def _stores_are_copied() -> Iterator[None]:
    """Migrate one new store, not hundreds."""
    with mlflow_stores.copied():
        yield


@pytest.fixture(autouse=True)
def _no_store_of_the_last_test() -> Iterator[None]:
    """Forget the store that Lightning's logger, and the experiment that others, set for the whole process."""
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # what its own code takes
    fluent._active_experiment_id = None
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@pytest.fixture(name="closed_port")
def _closed_port() -> int:
    """Return a loopback port that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Return a server that all tests share, with a store of SQLite."""
    started = MlflowServer(tmp_path_factory.mktemp("mlflow-server"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def server(shared_server: MlflowServer) -> str:
    """Return the address of the server that all tests share."""
    return shared_server.address


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """Return a server that a test may kill."""
    started = MlflowServer(tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the URI of a database that all tests share, with MLflow's tables."""
    if Postgres.missing():
        pytest.skip(Postgres.missing())
    database = Postgres()
    MlflowClient(database.uri).search_experiments()
    yield database.uri
    database.remove()


@pytest.fixture(params=["sqlite", "server", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the start of a URI, up to the `#` of the experiment."""
    if request.param == "sqlite":
        return f"mlflow+sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts of a database without a server into the working directory
    return f"mlflow+{request.getfixturevalue(request.param)}"
