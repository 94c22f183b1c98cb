"""A PostgreSQL database, read in one read-only transaction: the server itself refuses whatever would write."""

# ruff: noqa: S608  # what is put into a query are names of ours; what others named is a parameter

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.engine import make_url

from bimix_integrations.trackers.mlflow.stores.reading import Histories
from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import MissingDependencyError, SourceError

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
_SECONDS = 10
"""How long a server is waited for that doesn't answer at all."""
_TABLES = """
SELECT relname FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_table_is_visible(oid)
AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""
_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped"


class Postgres:
    """A PostgreSQL database.

    Args:
        tracking_uri: MLflow's.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._url = make_url(tracking_uri)
        self._shown = without_credentials(tracking_uri)

    def ask(self, question: Callable[[Answers], T]) -> T:
        """Ask a database of one state.

        Raises:
            MissingDependencyError: psycopg isn't installed.
            SourceError: It cannot be reached or read.
        """
        try:
            import psycopg  # noqa: PLC0415  # only where there is such a database
        except ModuleNotFoundError as error:
            raise MissingDependencyError("psycopg", extra="postgres") from error
        url = self._url
        known = {
            "host": url.host,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "dbname": url.database,
            "connect_timeout": _SECONDS,
        } | dict(url.query)
        given: dict[str, Any] = {name: value for name, value in known.items() if value is not None}
        try:
            with psycopg.connect(**given) as database:
                database.read_only = True
                database.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                with database.cursor(binary=True) as cursor:
                    return question(Answers(cursor))
        except psycopg.Error as error:
            what = without_credentials(" ".join(str(error).split()))
            raise SourceError(f"PostgreSQL at {self._shown} cannot be read: {what}") from error


class Answers:
    """A database that is open."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def rows(self, query: str, asked: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; its parameters stand as `?`."""
        return self._cursor.execute(query.replace("?", "%s").encode(), asked).fetchall()

    def tables(self) -> set[str]:
        """Return the names of the tables."""
        return {row[0] for row in self.rows(_TABLES)}

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns, none where there is no such table."""
        return {row[0] for row in self.rows(_COLUMNS, (table,))}

    def histories(self, point: Sequence[str], run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return points of some metrics of some runs.

        Args:
            point: SQL of step, time, value and whether it is not a number.
            run_ids: Ids of the runs.
            metrics: Names of the metrics.
        """
        step, time, value, is_nan = point
        numbered = f"CASE WHEN {is_nan} THEN 'NaN'::float8 ELSE {value} END"
        # A row a point, or sorting by the names for want of memory, would take several times as long.
        self._cursor.execute("SET LOCAL work_mem = '64MB'")
        found: Histories = {}
        for run_id, metric, *columns in self.rows(
            f"SELECT run_uuid, key, array_agg({step}::int8), array_agg({time}::int8), array_agg({numbered}) "
            "FROM metrics WHERE run_uuid = ANY(?) AND key = ANY(?) GROUP BY run_uuid, key",
            (list(run_ids), list(metrics)),
        ):
            found.setdefault(run_id, {})[metric] = list(zip(*columns, strict=True))
        return found
