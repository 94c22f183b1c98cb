"""Stores that a real MLflow 2.13 has made: reading leaves them as they are, and 2.13 opens them still."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from bimix_integrations.trackers.mlflow import MlflowSource, MlflowTracker
from bimix_integrations.trackers.mlflow.stores import schema
from typer.testing import CliRunner

from bimix_tracking import Mixture, Observations, Wanted, analyze, open_source, recommended_mixture
from bimix_tracking.analysis.watching import Watch, analysis_of
from bimix_tracking.cli import app
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import SourceError
from tests.adapters.mlflow.old_mlflow import OldMlflow, python

SHARES = {"run-0": 0.2, "run-1": 0.35, "run-2": 0.5, "run-3": 0.6, "run-4": 0.7, "big": 0.65}
SCHEMA = "5b0e9adcef9c"
"""Of MLflow 2.13."""
VOLUMES = (1000, 4000, 16_000, 64_000)
RECOMMENDED = Mixture({"code": 0.7, "web": 0.3})


def runs() -> list[dict[str, Any]]:
    """Return what a tracker of ours writes of proxy runs that follow the law, and of an analysis."""
    made = []
    for name, share in SHARES.items():
        manifest = {"role": "train", "schema": "1", "sweep": "s", "domains": json.dumps({"code": "code", "web": "web"})}
        manifest["mixture"] = json.dumps({"code": share, "web": 1 - share})
        points = []
        for step, seen in enumerate(VOLUMES, 1):
            losses = {
                "code": share**-0.1 * (90 / seen**0.5 + 3) * (1 + 1e-4 * (step % 2)),
                "web": (1 - share) ** -0.1 * (40 / seen**0.4 + 1),
            }
            points += [("bimix/tokens", step, float(seen)), ("x/y", step, 1.0)]
            points += [(f"bimix_eval_loss/{domain}", step, loss) for domain, loss in losses.items()]
        tags = {f"bimix.{field}": value for field, value in manifest.items()}
        params = {"model": "122M", "lines": "a\nb"}
        made.append(
            {"name": name, "status": "FINISHED", "tags": tags, "params": params, "points": points, "artifacts": {}}
        )
    artifacts = {"bimix/mixture.yaml": json.dumps({"mixture": dict(RECOMMENDED)})}
    tags = {"bimix.role": "analysis", "bimix.analysis_key": "k"}
    analysis = {"name": "analysis", "status": "FINISHED", "tags": tags, "params": {}, "points": []}
    return [*made, analysis | {"artifacts": artifacts}]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldMlflow]:
    if not python().exists():
        pytest.skip(f"MLflow 2.13 isn't installed at {python()}: make .venv/installed-mlflow-2.13")
    started = OldMlflow(tmp_path_factory.mktemp("old-mlflow"))
    assert started.version.startswith("2.13.")
    yield started
    started.stop()


class Made(NamedTuple):
    """A database of MLflow 2.13."""

    uri: str
    artifacts: str
    state: Callable[[], object]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def made(request: pytest.FixtureRequest, old: OldMlflow, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    artifacts = (folder / "artifacts").as_uri()
    if request.param == "sqlite":
        (folder / "store").mkdir()
        uri = f"sqlite:///{folder}/store/old.db"
    else:
        server = request.getfixturevalue("postgres").rpartition("/")[0]
        with psycopg.connect(f"{server}/postgres", autocommit=True) as database:
            name = f"old_{uuid.uuid4().hex}"
            database.execute(f"CREATE DATABASE {name}".encode())
        uri = f"{server}/{name}"

    def state() -> object:
        return listed(folder), dumped(uri) if request.param == "postgres" else ()

    old.make(uri, artifacts, runs(), {"bimix.recommended": "{analysis}"})
    return Made(uri, artifacts, state)


def listed(folder: Path) -> list[tuple[str, int, str]]:
    """Return every file below a folder, when it was changed, and what is in it."""
    found = sorted(path for path in folder.rglob("*"))
    return [
        (str(path), path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in found
    ]


def dumped(uri: str) -> list[tuple[str, Any]]:
    """Return every row of a database where it lies, and whoever has it open beside us."""
    with psycopg.connect(uri) as database:
        tables = database.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
        ).fetchall()
        rows = "SELECT md5(string_agg(t::text || t.ctid::text || t.xmin::text, '|' ORDER BY t.ctid)) FROM {} t"
        found = [(name, database.execute(rows.format(name).encode()).fetchone()) for (name,) in tables]
        others = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
    return [*found, ("connections", others)]


def command(*words: str) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def watched(uri: str, folder: Path) -> None:
    told = Watch(open_source(uri), analysis_of(open_source(uri), 1e9), lambda _: None, runs=99).look()
    assert [event.kind for event in told] == ["waiting"], told
    assert not list(folder.iterdir())


READING: dict[str, Callable[[str, Path], object]] = {
    "pull": lambda uri, folder: command("pull", uri, "-o", str(folder / "x.csv")),
    "analyze": lambda uri, folder: command(
        "analyze", uri, "--tokens", "1e9", "--law", "bimix", "--replicates", "0", "--out", str(folder / "a")
    ),
    "plan --after": lambda uri, _: command("plan", "--after", uri, "--runs", "2", "--tokens", "1e9"),
    "verify": lambda uri, _: command("verify", uri, "big"),
    "watch": watched,
    "states": lambda uri, _: len(open_source(uri).states()) == len(SHARES) or pytest.fail("states"),
    "recommended_mixture": lambda uri, _: recommended_mixture(uri) == RECOMMENDED or pytest.fail("mixture"),
    "a filter": lambda uri, _: MlflowSource(uri, wanted=Wanted("params.model = '122M'")).records(),
}


@pytest.mark.parametrize("what", READING)
def test_reading_a_database_of_mlflow_2_13_leaves_it_to_its_own_mlflow(
    made: Made, old: OldMlflow, what: str, tmp_path: Path
) -> None:
    before = made.state()

    READING[what](f"mlflow+{made.uri}#s", tmp_path)

    assert made.state() == before
    assert old.opens(made.uri, made.artifacts) == ["Default", "s"]


def test_everything_of_a_run_is_read_of_mlflow_2_13(made: Made) -> None:
    records = MlflowSource(f"mlflow+{made.uri}#s").records()

    assert [record.name for record in records] == list(SHARES)
    for record, run in zip(records, runs(), strict=False):
        assert record.manifest == RunManifest(
            ("code", "web"), Mixture({"code": SHARES[record.name], "web": 1 - SHARES[record.name]}), sweep="s"
        )
        found = {(name, int(row["bimix/step"]), value) for row in record.rows for name, value in row.items()}
        expected = {(name, step, value) for name, step, value in run["points"] if name.startswith("bimix")}
        assert found - {(name, step, value) for name, step, value in found if name == "bimix/step"} == expected
    with pytest.raises(SourceError, match=r"has no finished training run that match"):
        MlflowSource(f"mlflow+{made.uri}#s", wanted=Wanted("params.model = '1B'")).records()


def test_nothing_is_written_into_a_database_of_another_schema(made: Made, old: OldMlflow) -> None:
    uri = f"mlflow+{made.uri}#s"
    before = made.state()
    refused = rf"is not written to.*{SCHEMA}, of an MLflow before .*2024-05.*makes schema {schema.installed()}.*--out"

    with pytest.raises(SourceError, match=refused):
        analyze(uri, 1e9, law="bimix", replicates=0, write_back=True)
    with pytest.raises(SourceError, match=refused):
        MlflowTracker(uri).start(RunManifest(("code", "web")))
    done = CliRunner().invoke(app, ["analyze", uri, "--tokens", "1e9", "--law", "bimix", "--write-back"])

    assert done.exit_code == 4, done.output
    assert made.state() == before
    assert old.opens(made.uri, made.artifacts) == ["Default", "s"]


@pytest.fixture(scope="module")
def mlruns(old: OldMlflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of files as MLflow 2.13 makes it."""
    folder = tmp_path_factory.mktemp("files") / "mlruns"
    old.make(folder.as_uri(), None, runs(), {"bimix.recommended": "{analysis}"})
    return folder


def records_of(uri: str) -> list[Any]:
    return [(record.name, record.manifest, record.rows, record.exclusions) for record in MlflowSource(uri).records()]


def test_a_store_of_files_gives_what_a_database_gives_and_stays_as_it_is(
    mlruns: Path, old: OldMlflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mlruns.parent)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = f"sqlite:///{tmp_path}/old.db"
    old.make(database, tmp_path.as_uri(), runs(), {})
    before = listed(mlruns)

    # MLflow's own choice: where there is a folder `mlruns` with something in it, that
    for uri in (f"mlflow+file://{mlruns}#s", "mlflow+file:mlruns#s", "mlflow:s"):
        assert records_of(uri) == records_of(f"mlflow+{database}#s"), uri
        assert {state.name: state.status for state in open_source(uri).states()} == dict.fromkeys(SHARES, "finished")
        assert recommended_mixture(uri) == recommended_mixture(uri, key="k") == RECOMMENDED
        chosen = MlflowSource(uri, wanted=Wanted("attributes.run_name LIKE 'run-%' and params.model = '122M'"))
        assert [record.name for record in chosen.records()] == [f"run-{number}" for number in range(5)]
    with pytest.raises(SourceError, match=r"store of files, which MLflow .* no longer writes.*--out DIR"):
        analyze(f"mlflow+file://{mlruns}#s", 1e9, law="bimix", replicates=0, write_back=True)

    assert listed(mlruns) == before


def test_a_clone_without_empty_folders_is_read_wherever_it_lies(mlruns: Path, tmp_path: Path) -> None:
    expected = records_of(f"mlflow+file://{mlruns}#s")
    clone = tmp_path / "a clone #1" / "mlruns"
    shutil.copytree(mlruns, clone)
    for root, _, _ in os.walk(clone, topdown=False):  # as git does
        if not os.listdir(root):  # noqa: PTH208  # a listing is all it takes
            Path(root).rmdir()
    uri = f"mlflow+file://{clone}#s".replace("#1", "%231")
    assert len(list(clone.rglob("artifacts"))) == 1  # the analysis has one

    assert records_of(uri) == expected
    assert recommended_mixture(uri) == RECOMMENDED
    assert not (clone / ".trash").exists()


def test_one_broken_run_of_a_store_of_files_is_one_run(mlruns: Path, tmp_path: Path) -> None:
    shutil.copytree(mlruns, tmp_path / "mlruns")
    uri = f"mlflow+file://{tmp_path}/mlruns#s"
    ids = {record.name: record.run_id for record in MlflowSource(uri).records()}
    (experiment,) = {path.parent for path in (tmp_path / "mlruns").glob(f"*/{ids['big']}")}
    (experiment / ids["run-0"] / "meta.yaml").write_text("[" * 100_000, encoding="utf-8")
    (experiment / ids["run-1"] / "meta.yaml").unlink()
    (experiment / ids["run-2"] / "tags" / "bimix.mixture").write_text('{"code": 50, "web": 50}', encoding="utf-8")
    losses = experiment / ids["run-3"] / "metrics" / "bimix_eval_loss" / "code"
    whole = losses.read_text(encoding="utf-8")
    losses.write_bytes(whole[: whole.rstrip().rindex(" ")].encode())  # the writer was killed
    os.mkfifo(experiment / ids["run-4"] / "params" / "pipe")

    records = {record.name: record for record in MlflowSource(uri).records()}

    reasons = {name: next(iter(record.exclusions), "") for name, record in records.items()}
    assert "cannot be read" in reasons[ids["run-0"]]
    assert "meta.yaml is missing" in reasons[ids["run-1"]]
    assert "sum to 1" in reasons["run-2"] or "proportion" in reasons["run-2"]
    assert reasons["run-3"] == "a line of metric 'bimix_eval_loss/code' cannot be read"
    assert [len(records[name].rows) for name in ("run-3", "run-4", "big")] == [4, 4, 4]
    assert len(open_source(uri).states()) == 4
    assert len(Observations.from_source(uri).runs) == 3
