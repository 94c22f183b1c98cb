"""MLflow's SQLite databases, made once and then copied: its migrations take seconds of each test, and aren't ours."""

from __future__ import annotations

import atexit
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import sqlalchemy

_utils: Any = mlflow.store.db.utils
_initialize = _utils._initialize_tables


@functools.cache
def made() -> Path:
    """Return a database with MLflow's tables, as it makes them, and nothing in them."""
    folder = Path(tempfile.mkdtemp(prefix="bimix-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    engine = sqlalchemy.create_engine(f"sqlite:///{folder}/made.db")
    _initialize(engine)
    engine.dispose()
    return folder / "made.db"


@contextmanager
def copied() -> Iterator[None]:
    """Let MLflow fill each empty SQLite file of this process with what it put into the first.

    Files alone: a database that has tables, of whatever version, is MLflow's own matter, as is any other database.
    """

    def initialize(engine: sqlalchemy.Engine) -> None:
        if engine.dialect.name != "sqlite" or sqlalchemy.inspect(engine).get_table_names():
            _initialize(engine)
            return
        with closing(sqlite3.connect(made())) as source, engine.connect() as target:
            file: Any = target.connection.dbapi_connection
            source.backup(file)

    _utils._initialize_tables = initialize
    yield
    _utils._initialize_tables = _initialize
