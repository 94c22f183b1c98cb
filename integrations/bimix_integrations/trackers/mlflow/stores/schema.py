"""Which MLflow a database is of: its schema's version, beside that of the MLflow that is installed here.

MLflow upgrades a database by merely opening it, and no MLflow opens one of another version: a database is written
only where both are the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import mlflow
import sqlalchemy

from bimix_tracking.errors import ReadOnlyError, SourceError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

T = TypeVar("T")
SERVER = "Start the `mlflow server` of the MLflow that it is of, and name its http address instead"
WAIT_SECONDS = 30.0
"""How long a database may take that another process is just making."""
_LOOK_SECONDS = 0.25


class SchemaError(ReadOnlyError):
    """A database of another schema than the installed MLflow's: it is not written to."""


class Answers(Protocol):
    """A database that is open."""

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Return what a query finds."""

    def tables(self) -> set[str]:
        """Return the names of the tables."""


class Asked(Protocol):
    """A database that can be asked, and not written."""

    def ask(self, question: Callable[[Any], T]) -> T:
        """Open it, ask, and close it."""


class ByDriver:
    """A database of any kind, reached by the driver that its address names: only to see of which schema it is.

    Args:
        tracking_uri: MLflow's.
        shown: Without credentials.
    """

    def __init__(self, tracking_uri: str, shown: str) -> None:
        self._uri = tracking_uri
        self._shown = shown

    def ask(self, question: Callable[[Any], T]) -> T:
        """Open it, ask, and close it.

        Raises:
            SourceError: It cannot be reached.
        """
        try:
            engine = sqlalchemy.create_engine(self._uri, poolclass=sqlalchemy.pool.NullPool)
            with engine.connect() as connection:
                return question(_ByDriver(connection))
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            what = str(error).replace(self._uri, self._shown).splitlines()[0]
            raise SourceError(f"{self._shown} cannot be opened: {what}") from None


class _ByDriver:
    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in self._connection.execute(sqlalchemy.text(query))]

    def tables(self) -> set[str]:
        return set(sqlalchemy.inspect(self._connection).get_table_names())


def of(answers: Answers) -> frozenset[str]:
    """Return the schema's version, as its migrations have left it: one, or none."""
    if "alembic_version" not in answers.tables():
        return frozenset()
    return frozenset(str(row[0]) for row in answers.rows("SELECT version_num FROM alembic_version"))


def installed() -> str:
    """Return the version of the schema that the installed MLflow makes."""
    return ", ".join(_migrations().get_heads())


def described(versions: frozenset[str]) -> str:
    """Return in words which MLflow a schema is of."""
    if not versions:
        return "It says no version of its schema: an MLflow before 1.0, or none"
    named, known = ", ".join(sorted(versions)), mlflow.__version__
    if installed() in versions:
        return f"Its schema is {named}, that of MLflow {known}, installed here"
    made = _made(min(versions))
    if made is None:
        return f"Its schema is {named}, which MLflow {known}, installed here, doesn't know: it is of a newer one"
    return f"Its schema is {named}, of an MLflow before {known}, installed here: one from {made} on"


def refuse_another(database: Asked, shown: str) -> None:
    """Refuse to write a database that the installed MLflow would upgrade.

    Args:
        database: Is asked, and not written.
        shown: Its tracking URI without credentials.

    Raises:
        SchemaError: Its schema is another.
    """
    ours = installed()
    until = time.monotonic() + WAIT_SECONDS
    while True:
        seen = database.ask(_see)
        if ours in seen.versions or seen.empty:
            return
        # Without an experiment, it is one that another run of the sweep is just making
        if seen.used or time.monotonic() > until:
            break
        time.sleep(_LOOK_SECONDS)
    raise SchemaError(
        f"{shown} is not written to. {described(seen.versions)}, which makes schema {ours} and would upgrade the "
        f"database, so that its own MLflow could not open it any more. {SERVER}; an analysis can go into files (--out "
        "DIR)"
    )


class _Seen:
    def __init__(self, versions: frozenset[str], *, empty: bool, used: bool) -> None:
        self.versions, self.empty, self.used = versions, empty, used


def _see(answers: Answers) -> _Seen:
    tables = answers.tables()
    used = "experiments" in tables and answers.rows("SELECT count(*) FROM experiments")[0][0] != 0
    return _Seen(of(answers), empty=not {"experiments", "runs", "alembic_version"} & tables, used=used)


def _migrations() -> ScriptDirectory:
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # whoever only reads doesn't wait for it

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _made(version: str) -> str | None:
    """Return the month that a schema was made in, None where the installed MLflow doesn't know it."""
    known = {script.revision: script for script in _migrations().walk_revisions()}
    if version not in known:
        return None
    found = re.search(r"Create Date: (\d{4}-\d{2})", known[version].longdoc or known[version].module.__doc__ or "")
    return found[1] if found else "an unknown month"
