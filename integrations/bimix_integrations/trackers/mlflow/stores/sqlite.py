"""An SQLite file, opened so that reading leaves no trace: no byte changed, no file beside it.

SQLite's `mode=ro` alone isn't enough. Of a database in WAL mode, even a reader makes the files `-wal` and `-shm`, so
it is opened `immutable` where no `-wal` says that somebody writes, and compared with itself afterwards; where one does,
its shared memory is opened read-only. What a killed writer has left is rolled back in a copy.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy.engine import make_url

from bimix_integrations.trackers.mlflow.stores.reading import Histories
from bimix_tracking.data.histories import Point, number
from bimix_tracking.errors import SourceError

T = TypeVar("T")
_MAGIC = b"SQLite format 3\x00"
_WAL = 2
_PREFIX = "sqlite:///"
_SECONDS = 30
"""How long a writer is waited for: MLflow waits 20 s."""
_ATTEMPTS = 5
_AT_A_TIME = 400
"""Run ids, and metric names, of a query: SQLite's older versions take 999 parameters."""


def path_of(tracking_uri: str) -> Path | None:
    """Return the file that MLflow opens for a tracking URI, None where the database is in memory."""
    url = make_url(tracking_uri)
    found = url.database
    if found and "uri" in url.query:
        found = found.removeprefix("file:")
    if not found or found == ":memory:":
        return None
    path = Path(found)
    if not path.exists():
        # SQLAlchemy takes `?` for a query, and its versions differ about `%`
        literal = Path(tracking_uri.partition(_PREFIX)[2])
        if literal.is_file():
            return literal
    return path


def at_home(tracking_uri: str) -> str:
    """Return a tracking URI with `~` for what the shell would have made of it."""
    start, prefix, path = tracking_uri.partition(_PREFIX)
    return f"{start}{prefix}{Path(path).expanduser()}" if path.startswith("~") else tracking_uri


def uri_of(path: Path) -> str:
    """Return the tracking URI of a file: letters that would end it, or an experiment's, are written as numbers."""
    return f"{_PREFIX}{quote(str(path), safe='/ ') if set('#?%') & set(str(path)) else path}"


class Sqlite:
    """An SQLite file.

    Args:
        path: Of the file.
        hint: Why it is this one, where nobody has named it.
    """

    def __init__(self, path: Path, *, hint: str = "") -> None:
        self.path = path
        self._hint = hint

    def ask(self, question: Callable[[Answers], T]) -> T:
        """Ask a database of one state.

        Raises:
            SourceError: There is no such file, it is no database, or it cannot be read.
        """
        self.check()
        try:
            for _ in range(_ATTEMPTS):
                before = self._state()
                with contextlib.closing(self._opened()) as database:
                    answer = self._answer(database, question)
                if self._state() == before or not self._immutable:
                    return answer
        except sqlite3.DatabaseError as error:
            if "readonly" in str(error) or "unable to open" in str(error):  # a writer has died: its journal is hot
                return self._in_copy(question)
            raise SourceError(f"SQLite database {self.path} cannot be read: {error}") from error
        return self._in_copy(question)

    def check(self) -> None:
        """Say what is wrong with the file, before SQLite gets to see it.

        Raises:
            SourceError: There is none, or it is no database.
        """
        try:
            if not self.path.exists():
                raise SourceError(f"there is no database {self.path}: is the path right?{self._hint}")
            if not self.path.is_file():
                raise SourceError(f"{self.path} is not an SQLite database, and no file")
            with self.path.open("rb") as file:
                start = file.read(100)
        except OSError as error:
            raise SourceError(f"the database {self.path} cannot be read: {error.strerror}") from error
        if not start:
            raise SourceError(f"{self.path} is empty: no MLflow has made its tables in it yet")
        if not start.startswith(_MAGIC):
            raise SourceError(f"{self.path} is not an SQLite database")
        self._wal_mode = _WAL in (start[18], start[19])

    def is_new(self) -> bool:
        """Return whether there is nothing yet: the first run of a sweep makes it."""
        return not self.path.exists() or (self.path.is_file() and self.path.stat().st_size == 0)

    @property
    def _immutable(self) -> bool:
        return self._wal_mode and not self._beside("-wal")

    def _companion(self, end: str) -> Path:
        return Path(f"{self.path.resolve()}{end}")  # SQLite follows links, too

    def _beside(self, end: str) -> bool:
        file = self._companion(end)
        return file.exists() and file.stat().st_size > 0

    def _state(self) -> tuple[int, int, bool]:
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_size, self._beside("-wal")

    def _opened(self) -> sqlite3.Connection:
        how = "mode=ro"
        if self._wal_mode:
            how = "mode=ro&readonly_shm=1" if self._beside("-wal") else "mode=ro&immutable=1"
        return sqlite3.connect(f"file:{quote(str(self.path))}?{how}", uri=True, timeout=_SECONDS)

    def _in_copy(self, question: Callable[[Answers], T]) -> T:
        """Ask a copy: SQLite mends in it what a killed writer has left, which it must not do in the original."""
        with tempfile.TemporaryDirectory(prefix="bimix-mlflow-") as folder:
            copy = Path(folder) / "copy.db"
            try:
                shutil.copyfile(self.path, copy)
                for end in ("-journal", "-wal"):
                    if self._beside(end):
                        shutil.copyfile(self._companion(end), f"{copy}{end}")
                with contextlib.closing(sqlite3.connect(copy)) as database:
                    return self._answer(database, question)
            except (sqlite3.DatabaseError, OSError) as error:
                raise SourceError(f"SQLite database {self.path} cannot be read: {error}") from error

    @staticmethod
    def _answer(database: sqlite3.Connection, question: Callable[[Answers], T]) -> T:
        # SQLite believes that any text is UTF-8; one that isn't must not keep the others from being read
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.execute("BEGIN")  # all queries see one state
        return question(Answers(database))


class Answers:
    """A database that is open."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def rows(self, query: str, asked: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what a query finds; its parameters stand as `?`."""
        return self._database.execute(query, asked).fetchall()

    def tables(self) -> set[str]:
        """Return the names of the tables."""
        return {row[0] for row in self.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}

    def columns(self, table: str) -> set[str]:
        """Return the names of a table's columns, none where there is no such table."""
        return {row[0] for row in self.rows("SELECT name FROM pragma_table_info(?)", (table,))}

    def histories(self, point: Sequence[str], run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return points of some metrics of some runs.

        Args:
            point: SQL of step, time, value and whether it is not a number.
            run_ids: Ids of the runs.
            metrics: Names of the metrics.
        """
        step, time, value, is_nan = point
        found: Histories = {}
        for runs, names in _parts(run_ids, metrics):
            where, order = f"FROM metrics WHERE run_uuid IN ({_marks(runs)}) AND ", "ORDER BY run_uuid, key"
            asked = (*runs, *names)
            counted = f"SELECT run_uuid, key, count(*) {where} key IN ({_marks(names)}) GROUP BY run_uuid, key {order}"
            counts = self.rows(counted, asked)
            # Names in each row would take longer than all the rest: a point is three numbers, in the groups' order.
            # With the plus, no index is taken for the key: SQLite would take the primary key's, and sort everything.
            numbers = f"SELECT {step}, {time}, CASE WHEN {is_nan} THEN 'nan' ELSE {value} END"
            points = self.rows(f"{numbers} {where} +key IN ({_marks(names)}) {order}, {step}", asked)
            _distribute(counts, [_numbered(p) if isinstance(p[2], str | bytes | None) else p for p in points], found)
        return found


def _parts(run_ids: Sequence[str], metrics: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    for run in range(0, len(run_ids), _AT_A_TIME):
        for metric in range(0, len(metrics), _AT_A_TIME):
            yield list(run_ids[run : run + _AT_A_TIME]), list(metrics[metric : metric + _AT_A_TIME])


def _marks(values: Sequence[str]) -> str:
    return ",".join("?" * len(values))


def _numbered(point: tuple[Any, ...]) -> Point:
    return point[0], point[1], number(point[2])


def _distribute(counts: Sequence[tuple[Any, ...]], points: list[Any], found: Histories) -> None:
    start = 0
    for run_id, metric, count in counts:
        found.setdefault(run_id, {})[metric] = points[start : start + count]
        start += count
    if start != len(points):
        raise SourceError(f"{len(points)} points were read where {start} had been counted")
