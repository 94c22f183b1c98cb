"""Reading MLflow leaves no trace: whatever form a database is in, and whatever is wrong with what is named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import psycopg
import pytest
from bimix_integrations.trackers.mlflow import MlflowSource, MlflowTracker
from bimix_integrations.trackers.mlflow.stores import schema
from bimix_integrations.trackers.mlflow.stores.sqlite import uri_of
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from bimix_tracking import Mixture, open_source, recommended_mixture
from bimix_tracking.cli import app
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import BimixError, MissingDependencyError, SourceError
from bimix_tracking.tracking.ports import WriteBack

TAGS = {"bimix.role": "train", "bimix.schema": "1", "bimix.sweep": "s"}
TAGS |= {"bimix.domains": json.dumps({"a": "a", "b": "b"}), "bimix.mixture": json.dumps({"a": 0.25, "b": 0.75})}


def fill(uri: str, runs: int = 2) -> list[str]:
    """Put runs into an experiment `s`, and return their ids."""
    client = MlflowClient(uri)
    experiment = client.create_experiment("s")
    ids = []
    for number in range(runs):
        run_id = client.create_run(experiment, run_name=f"run-{number}", tags=TAGS).info.run_id
        points = [
            Metric(name, 2.0 + number + 1 / step, 1000 + step, step)
            for step in range(1, 6)
            for name in ("bimix/tokens", "bimix_eval_loss/a", "bimix_eval_loss/b")
        ]
        client.log_batch(run_id, metrics=points)
        client.set_terminated(run_id)
        ids.append(run_id)
    return ids


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database of today's MLflow with two runs."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    with contextlib.chdir(path.parent):
        fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(template: Path, tmp_path: Path) -> Path:
    """Return a copy of it, alone in a folder."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copyfile(template, path)
    return path


def traces(folder: Path) -> list[tuple[str, int, str]]:
    """Return every file of a folder, when it was changed, and what is in it."""
    return [
        (path.name, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    ]


def read(path: Path) -> list[int]:
    """Read a database every way there is, and return how many rows its runs have."""
    uri = f"mlflow+sqlite:///{path}#s"
    assert len(open_source(uri).states()) == 2
    assert open_source(uri).find_analysis() is None
    assert open_source(uri).find_analysis("k") is None
    return [len(record.rows) for record in MlflowSource(uri).records()]


def in_wal_mode(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = wal")
    return connection


def as_it_is(_: Path) -> None:
    pass


def closed_wal(path: Path) -> None:
    in_wal_mode(path).close()


def wal_of_a_killed_writer(path: Path, *, shared_memory: bool = True) -> None:
    """Leave a row in the log that isn't in the database yet."""
    writer = in_wal_mode(path)
    writer.execute("UPDATE metrics SET value = 7 WHERE step = 5")
    writer.commit()
    for end in ("", "-wal", "-shm") if shared_memory else ("", "-wal"):
        shutil.copyfile(f"{path}{end}", f"{path}.copy{end}")
    writer.close()
    for end in ("", "-wal", "-shm") if shared_memory else ("", "-wal"):
        Path(f"{path}.copy{end}").rename(f"{path}{end}")


def wal_alone(path: Path) -> None:
    wal_of_a_killed_writer(path, shared_memory=False)


def hot_journal(path: Path) -> None:
    """Leave a transaction that was half written into the database, and the journal to take it back."""
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("UPDATE metrics SET value = 9")
    writer.execute("UPDATE tags SET value = 'x' || value")
    for end in ("", "-journal"):
        shutil.copyfile(f"{path}{end}", f"{path}.copy{end}")
    writer.rollback()
    writer.close()
    for end in ("", "-journal"):
        Path(f"{path}.copy{end}").rename(f"{path}{end}")


FORMS = (as_it_is, closed_wal, wal_of_a_killed_writer, wal_alone, hot_journal)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_reading_leaves_no_trace(database: Path, form: Callable[[Path], None]) -> None:
    form(database)
    before = traces(database.parent)

    assert read(database) == [5, 5]

    assert traces(database.parent) == before
    last = MlflowSource(f"mlflow+sqlite:///{database}#s").records()[0].rows[-1]["bimix_eval_loss/a"]
    assert last == (7.0 if "wal" in form.__name__ and form is not closed_wal else 2.2)


def test_a_link_is_read_as_the_file_that_it_leads_to(database: Path, tmp_path: Path) -> None:
    wal_of_a_killed_writer(database)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "link.db").symlink_to(database)
    before = traces(database.parent), traces(tmp_path / "links")

    assert read(tmp_path / "links" / "link.db") == [5, 5]

    (record, _) = MlflowSource(f"mlflow+sqlite:///{tmp_path}/links/link.db#s").records()
    assert record.rows[-1]["bimix_eval_loss/a"] == 7.0
    assert (traces(database.parent), traces(tmp_path / "links")) == before


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_folder_that_may_not_be_written_is_read(template: Path, form: Callable[[Path], None]) -> None:
    assert read(template) == [5, 5]  # whatever is imported late is then there for one without rights
    # Not below pytest's folders, which are their owner's alone
    folder = Path(tempfile.mkdtemp(prefix="bimix-readonly-"))
    path = folder / "mlflow.db"
    try:
        shutil.copyfile(template, path)
        form(path)
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        before = traces(folder)
        with nobody():
            with pytest.raises(OSError, match="denied"):
                (folder / "probe").touch()
            assert read(path) == [5, 5]
        assert traces(folder) == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be somebody without rights, where the tests are run by root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_is_read_while_it_is_written(database: Path, mode: str) -> None:
    stop = threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        try:
            with contextlib.closing(sqlite3.connect(database, timeout=20)) as writer:
                writer.execute(f"PRAGMA journal_mode = {mode}")
                writer.execute("PRAGMA synchronous = off")
                while not stop.wait(0.01):  # as MLflow does: a transaction a batch, of both tables
                    with writer:
                        writer.execute("UPDATE metrics SET value = value + 1 WHERE step = 5")
                        writer.execute("UPDATE latest_metrics SET value = value + 1")
        except sqlite3.Error as error:
            failed.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(10):
            for record in MlflowSource(f"mlflow+sqlite:///{database}#s").records():
                row = record.rows[-1]
                assert row["bimix_eval_loss/a"] == row["bimix_eval_loss/b"] == row["bimix/tokens"]  # of one state
    finally:
        stop.set()
        writing.join()
    assert failed == []


def test_a_live_writer_s_files_stay_as_they_are(database: Path) -> None:
    with contextlib.closing(in_wal_mode(database)) as writer:
        writer.execute("UPDATE metrics SET value = 7 WHERE step = 5")
        writer.commit()
        writer.execute("UPDATE metrics SET value = 8 WHERE step = 5")  # not committed: nobody's to see
        before = traces(database.parent)
        assert len(before) == 3
        assert read(database) == [5, 5]
        (record, _) = MlflowSource(f"mlflow+sqlite:///{database}#s").records()
        assert record.rows[-1]["bimix_eval_loss/a"] == 7.0
        assert traces(database.parent) == before


def test_postgresql_itself_would_refuse_to_be_written(postgres: str, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        fill(postgres, 0)
    reader = MlflowSource(f"mlflow+{postgres}#s")._store.reader()

    with pytest.raises(SourceError, match="read-only transaction"):
        reader._ask(lambda answers: answers.rows("DELETE FROM metrics RETURNING key"))  # type: ignore[attr-defined]
    with psycopg.connect(postgres) as database:
        database.execute("DELETE FROM experiments WHERE name = 's'")


WRONG = {
    "typo/mlflow.db": r"no database .*typo/mlflow\.db: is the path right",
    ".": "is not an SQLite database, and no file",
    "text.db": r"text\.db is not an SQLite database",
    "empty.db": "is empty: no MLflow has made its tables",
    "other.db": "not MLflow's: it has the tables orders",
    "bare.db": "not MLflow's: it has no tables",
    "torn.db": "cannot be read: .*malformed",
    "pipe.db": "is not an SQLite database, and no file",
    "future.db": r"its table 'runs' has no 'run_uuid'\. Its schema is ffff, which MLflow .* doesn't know: it is of a "
    r"newer one\. Start the `mlflow server` of the MLflow that it is of, and name its http address",
    "past.db": r"its table 'metrics' has no 'value'\. Its schema is 451aebb31d03, of an MLflow before .* from 2019-",
}


@pytest.fixture
def wrong(template: Path, tmp_path: Path) -> Path:
    """Return a folder with all that is not a database of MLflow's."""
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / "text.db").write_text("run,loss\n" * 100, encoding="utf-8")
    (folder / "empty.db").touch()
    os.mkfifo(folder / "pipe.db")
    (folder / "torn.db").write_bytes(template.read_bytes()[:5000])
    statements = {
        "other.db": ["CREATE TABLE orders (number INT)"],
        "bare.db": ["CREATE TABLE x (y)", "DROP TABLE x"],
        "future.db": [
            "ALTER TABLE runs RENAME COLUMN run_uuid TO run_id",
            "UPDATE alembic_version SET version_num = 'ffff'",
        ],
        "past.db": [
            "ALTER TABLE metrics RENAME COLUMN value TO number",
            "UPDATE alembic_version SET version_num = '451aebb31d03'",
        ],
    }
    for name, changes in statements.items():
        if name in ("future.db", "past.db"):
            shutil.copyfile(template, folder / name)
        with contextlib.closing(sqlite3.connect(folder / name)) as database:
            for change in changes:
                database.execute(change)
            database.commit()
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_database_of_mlflow_s_is_named_and_nothing_is_made(wrong: Path, name: str) -> None:
    uri = f"mlflow+sqlite:///{wrong}/{name}#s"
    before = sorted(wrong.rglob("*"))
    for ask in (MlflowSource(uri).records, MlflowSource(uri).states, lambda: recommended_mixture(uri)):
        with pytest.raises(SourceError, match=WRONG[name]):
            ask()
    note = WriteBack(wrong, RunManifest(("a",), Mixture({"a": 1.0}), role="analysis"), {}, "", [], "k")
    with pytest.raises(SourceError, match=WRONG[name]):
        MlflowSource(uri).write_back(note)
    done = CliRunner().invoke(app, ["pull", uri, "-o", str(wrong.parent / "x.csv")])

    assert done.exit_code == 4, done.output
    assert "bug" not in done.output
    assert sorted(wrong.rglob("*")) == before


def test_mlflow_s_own_choice_is_not_made_by_asking_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    for uri in ("mlflow:", "mlflow:s", "mlflow+sqlite:///mlflow.db#s"):
        with pytest.raises(SourceError, match=r"no database .*mlflow\.db") as told:
            open_source(uri).states()
        assert ("MLFLOW_TRACKING_URI is unset" in str(told.value)) == (uri[:7] == "mlflow:")
    assert list(folder.iterdir()) == []
    fill(mlflow.get_tracking_uri())
    assert len(open_source("mlflow:s").states()) == 2


def test_a_path_is_the_one_that_mlflow_opens(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, written in {
        "a file.db": "sqlite:///a file.db",
        "100%.db": "sqlite:///100%.db",
        "why?.db": "sqlite:///why?.db",
        "home/at.db": "sqlite:///~/at.db",
        "x 1.db": "sqlite:///x%201.db",
        "abs.db": f"sqlite:///{tmp_path}/abs.db",
        "driver.db": "sqlite+pysqlite:///driver.db",
    }.items():
        shutil.copyfile(template, name)
        source = MlflowSource(f"mlflow+{written}#s")
        assert len(source.states()) == 2, written
        Path(name).unlink()
        with pytest.raises(SourceError, match="no database"):
            MlflowSource(f"mlflow+{written}#s").states()


@pytest.mark.parametrize("name", ["plain.db", "a b.db", "#1.db", "100%.db", "why?.db", "%20.db"])
def test_a_tracker_s_address_leads_back_to_its_file(template: Path, tmp_path: Path, name: str) -> None:
    written = MlflowTracker(f"mlflow+{uri_of(tmp_path / name)}#s").uri
    shutil.copyfile(template, tmp_path / name)

    assert len(MlflowSource(written).states()) == 2


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "mlflow+mysql://u:secret@127.0.0.1/db#s",
            "SQLite and PostgreSQL. Start the `mlflow server`",
        ),
        ("mlflow+mssql+pyodbc://u:secret@127.0.0.1/db#s", "databases are read from SQLite and PostgreSQL"),
        ("mlflow+sqlite://#s", "in memory"),
        ("mlflow+sqlite:///:memory:#s", "in memory"),
        ("mlflow+postgresql://u:secret@127.0.0.1:1/db#s", "PostgreSQL at .* cannot be read: .*refused"),
        ("mlflow+postgresql://u:secret@127.0.0.1:port/db#s", "is not an address of a database"),
        ("mlflow+http://127.0.0.1:99999#s", "is not an address of a server: Port out of range"),
        ("mlflow+file:///nowhere/mlruns#s", "the store of files /nowhere/mlruns doesn't exist"),
    ],
)
def test_what_cannot_be_read_here_says_why(uri: str, said: str) -> None:
    for ask in (MlflowSource(uri).records, MlflowSource(uri).states, MlflowSource(uri).find_analysis):
        with pytest.raises(SourceError, match=said) as told:
            ask()
        assert "secret" not in str(told.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)

    with pytest.raises(MissingDependencyError, match=r"pip install 'mlflow>=3.10,<4' 'psycopg"):
        MlflowSource("mlflow+postgresql://127.0.0.1/db#s").states()


def test_of_other_databases_the_schema_is_seen_before_anything_is_written(database: Path) -> None:
    """None of these runs here: SQLite stands in for them, behind the same interface of drivers."""
    with contextlib.closing(sqlite3.connect(database)) as changed:
        changed.execute("UPDATE alembic_version SET version_num = 'ffff'")
        changed.commit()
    before = traces(database.parent)

    with pytest.raises(schema.SchemaError, match="ffff"):
        schema.refuse_another(schema.ByDriver(f"sqlite:///{database}", "there"), "there")
    with pytest.raises(SourceError, match=r"^there cannot be opened: .*MySQLdb"):
        schema.refuse_another(schema.ByDriver("mysql://u:secret@127.0.0.1/x", "there"), "there")
    assert traces(database.parent) == before


@pytest.mark.parametrize("version", ["ffff", "451aebb31d03"])
def test_a_database_of_another_schema_is_read_and_not_written(database: Path, version: str) -> None:
    with contextlib.closing(sqlite3.connect(database)) as changed:
        changed.execute("UPDATE alembic_version SET version_num = ?", (version,))
        changed.commit()
    before = traces(database.parent)
    uri = f"mlflow+sqlite:///{database}#s"

    assert read(database) == [5, 5]
    tracker = MlflowTracker(uri)
    for _ in range(2):
        with pytest.raises(SourceError, match=rf"not written to.*{version}.*{schema.installed()}"):
            tracker.start(RunManifest(("a", "b")))
    assert traces(database.parent) == before


def test_an_older_schema_s_gaps_are_done_without(database: Path) -> None:
    uri = f"mlflow+sqlite:///{database}#s"
    whole = [(record.name, record.manifest, record.rows) for record in MlflowSource(uri).records()]
    with contextlib.closing(sqlite3.connect(database)) as old:
        old.execute(
            "INSERT OR IGNORE INTO tags (key, value, run_uuid) SELECT 'mlflow.runName', name, run_uuid FROM runs"
        )
        old.execute("CREATE TABLE r AS SELECT run_uuid, experiment_id, status, lifecycle_stage FROM runs")
        old.execute("CREATE TABLE e AS SELECT experiment_id, name FROM experiments")
        old.execute("CREATE TABLE m AS SELECT key, value, timestamp, step, run_uuid FROM metrics")
        for table in ("runs", "experiments", "metrics", "latest_metrics", "experiment_tags", "inputs"):
            old.execute(f"DROP TABLE {table}")
        for short, table in {"r": "runs", "e": "experiments", "m": "metrics"}.items():
            old.execute(f"ALTER TABLE {short} RENAME TO {table}")
        old.commit()

    records = sorted(MlflowSource(uri).records(), key=lambda record: record.name)
    assert [(record.name, record.manifest, record.rows) for record in records] == whole
    assert open_source(uri).find_analysis() is None


def test_a_name_in_several_workspaces_is_asked_for(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"mlflow+sqlite:///{database}#s"
    with contextlib.closing(sqlite3.connect(database)) as changed:
        changed.execute(
            "INSERT INTO experiments (experiment_id, name, workspace, lifecycle_stage) "
            "VALUES (99, 's', 'team', 'active')"
        )
        changed.execute("UPDATE experiments SET workspace = 'own' WHERE experiment_id <> 99")
        changed.commit()

    with pytest.raises(SourceError, match="in the workspaces 'own', 'team': say which by MLFLOW_WORKSPACE"):
        open_source(uri).states()
    monkeypatch.setenv("MLFLOW_WORKSPACE", "own")
    assert len(open_source(uri).states()) == 2
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    assert open_source(uri).states() == []


def test_a_run_s_broken_text_is_no_matter_to_the_others(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as changed:
        changed.execute(
            "UPDATE tags SET value = CAST(x'ff7b' AS TEXT) WHERE key = 'bimix.mixture' AND run_uuid IN "
            "(SELECT run_uuid FROM runs WHERE name = 'run-0')"
        )
        changed.execute("UPDATE metrics SET value = 'abc' WHERE step = 2 AND key = 'bimix_eval_loss/a'")
        changed.commit()

    broken, good = MlflowSource(f"mlflow+sqlite:///{database}#s").records()

    assert "the run cannot be read: " in next(iter(broken.exclusions))
    assert [row["bimix/step"] for row in good.rows] == [1, 2, 3, 4, 5]
    assert str(good.rows[1]["bimix_eval_loss/a"]) == "nan"


def test_the_first_of_many_runs_makes_the_database(tmp_path: Path) -> None:
    """Several processes begin at once: none of them takes a database that is just being made for an older one."""
    uri = f"mlflow+sqlite:///{tmp_path}/new/mlflow.db#s"
    trackers = [MlflowTracker(uri, run_name=f"run-{number}") for number in range(3)]
    failed: list[BimixError] = []

    def start(tracker: MlflowTracker) -> None:
        try:
            tracker.start(RunManifest(("a", "b")))
        except BimixError as error:
            failed.append(error)

    threads = [threading.Thread(target=start, args=(tracker,)) for tracker in trackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(open_source(uri).states()) == 3
