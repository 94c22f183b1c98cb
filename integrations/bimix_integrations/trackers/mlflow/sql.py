"""Metric histories straight from MLflow's database: one read-only query for all runs, whatever their number.

The schema is MLflow's own business, so its table is looked at first; a database of another form, or one that cannot be
opened from here, is read some other way.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from bimix_tracking.histories import Point

Histories = dict[str, dict[str, list[Point]]]
"""Points by run id and metric."""

_COLUMNS = {"run_uuid", "key", "value", "timestamp", "step", "is_nan"}
_AT_A_TIME = 400
"""Run ids, and metric names, of a query: SQLite's older versions take 999 parameters."""
_ARRAYS = """
SELECT run_uuid, key, array_agg(step::int8), array_agg(timestamp::int8),
       array_agg(CASE WHEN is_nan THEN 'NaN'::float8 ELSE value END)
FROM metrics WHERE run_uuid = ANY(%s) AND key = ANY(%s) GROUP BY run_uuid, key
"""


def read(tracking_uri: str, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories | None:
    """Return the points of some metrics of some runs; None where the tracking URI is no database that can be read so.

    Args:
        tracking_uri: MLflow's.
        run_ids: Ids of the runs.
        metrics: Names of the metrics.
    """
    try:
        url = make_url(tracking_uri)
    except ArgumentError:
        return None
    # Not only databases' own errors: a driver may be missing, a file may be anything.
    with contextlib.suppress(sqlite3.Error, OSError, ImportError, ValueError):
        if url.get_backend_name() == "sqlite" and url.database:
            return _from_sqlite(url.database, run_ids, metrics)
        if url.get_backend_name() == "postgresql":
            return _from_postgres(url, run_ids, metrics)
    return None


def _from_sqlite(path: str, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories | None:
    with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as database:
        if not {row[1] for row in database.execute("PRAGMA table_info(metrics)")} >= _COLUMNS:
            return None
        database.execute("BEGIN")  # both queries see one state
        found: Histories = {}
        for runs, names in _parts(run_ids, metrics):
            where, order = f"FROM metrics WHERE run_uuid IN ({_marks(runs)}) AND ", "ORDER BY run_uuid, key"
            asked = (*runs, *names)
            counted = f"SELECT run_uuid, key, count(*) {where} key IN ({_marks(names)}) GROUP BY run_uuid, key {order}"
            counts = database.execute(counted, asked).fetchall()
            # Names in each row would take longer than all the rest: a point is three numbers, in the groups' order.
            # With the plus, no index is taken for the key: SQLite would take the primary key's, and sort everything.
            numbers = "SELECT step, timestamp, CASE WHEN is_nan THEN 'nan' ELSE value END"
            points = database.execute(f"{numbers} {where} +key IN ({_marks(names)}) {order}, step", asked).fetchall()
            _distribute(counts, [_numbered(p) if p[2] == "nan" else p for p in points], found)
    return found


def _from_postgres(url: URL, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories | None:
    import psycopg  # noqa: PLC0415  # only where there is such a database

    known = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    told: dict[str, Any] = {name: value for name, value in (known | dict(url.query)).items() if value is not None}
    found: Histories = {}
    try:
        with psycopg.connect(**told) as database, database.cursor(binary=True) as cursor:
            database.read_only = True
            cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = 'metrics'")
            if not {row[0] for row in cursor.fetchall()} >= _COLUMNS:
                return None
            # A row a point, or sorting by the names for want of memory, would take several times as long.
            cursor.execute("SET work_mem = '64MB'")
            for run_id, metric, *columns in cursor.execute(_ARRAYS, (list(run_ids), list(metrics))):
                found.setdefault(run_id, {})[metric] = list(zip(*columns, strict=True))
    except psycopg.Error:
        return None
    return found


def _parts(run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    for run in range(0, len(run_ids), _AT_A_TIME):
        for metric in range(0, len(metrics), _AT_A_TIME):
            yield list(run_ids[run : run + _AT_A_TIME]), list(metrics[metric : metric + _AT_A_TIME])


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _numbered(point: tuple[Any, ...]) -> Point:
    return point[0], point[1], float("nan")


def _distribute(counts: Sequence[tuple[Any, ...]], points: list[Any], found: Histories) -> None:
    start = 0
    for run_id, metric, count in counts:
        found.setdefault(run_id, {})[metric] = points[start : start + count]
        start += count
    if start != len(points):
        raise ValueError(f"{len(points)} points were read where {start} had been counted")
