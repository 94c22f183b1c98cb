"""Servers, databases and trainings that die at the wrong moment: no point is lost, none is read back twice."""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, Observations, Wanted, open_source, open_tracker, replay
from tests import mlflow_stores
from tests.adapters.services import MlflowServer, Postgres, free_port
from tests.adapters.wandb.wandb_server import serving
from tests.e2e.scripts.killed import MIXTURE, STEPS, evaluate, loss
from tests.warm import program

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "120")


def train(recorder: DomainLossRecorder, faults: Mapping[int, Callable[[], None]] | None = None) -> None:
    for step in range(1, 41):
        (faults or {}).get(step, lambda: None)()
        evaluate(recorder, step)
    recorder.finish()


def train_through(uri: str, faults: dict[int, Callable[[], None]]) -> None:
    """Train 40 steps; a fault happens before its step, while rows are on their way."""
    recorder = DomainLossRecorder(list(MIXTURE), MIXTURE, open_tracker(uri, run_name="r"), eval_set="e")
    recorder.start()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(recorder, faults)
    assert len([w for w in said if "the tracker failed" in str(w.message)]) <= 1
    assert not [w for w in said if "not everything reached" in str(w.message)]


def history(client: MlflowClient, experiment: str) -> dict[str, list[tuple[int, float]]]:
    """Return every point of the experiment's one run, repeats too."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    return {
        metric: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric))
        for metric in run.data.metrics
    }


def check_whole(client: MlflowClient, experiment: str) -> None:
    points = history(client, experiment)
    for number, domain in enumerate(MIXTURE):
        steps, values = zip(*points[f"bimix_eval_loss/{domain}"], strict=True)
        assert steps == tuple(range(1, 41))
        assert values == pytest.approx([loss(step, number) for step in steps])
        assert [step for step, _ in points[f"bimix_train_loss/{domain}"]] == list(range(1, 41))


def test_a_server_killed_and_started_again_in_mid_run(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    try:
        client = MlflowClient(server.address)
        train_through(
            f"mlflow+{server.address}#killed",
            {
                10: lambda: server.stop(signal.SIGKILL),
                30: server.start,
            },
        )
        check_whole(client, "killed")
    finally:
        server.stop()


def test_a_database_stopped_and_started_again_in_mid_run(own_postgres: Postgres) -> None:
    train_through(
        f"mlflow+{own_postgres.uri}#stopped",
        {10: own_postgres.stop, 30: own_postgres.start},
    )

    check_whole(MlflowClient(own_postgres.uri), "stopped")
    kept = Observations.from_source(f"mlflow+{own_postgres.uri}#stopped")
    assert len(kept.losses) == 80


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """Return a database that a test may stop."""
    if Postgres.missing():
        pytest.skip(Postgres.missing())
    database = Postgres()
    MlflowClient(database.uri).search_experiments()  # its tables
    yield database
    database.remove()


def lives(mode: str, tracker: str, folder: Path, kills: int) -> dict[str, int]:
    command = [program("python"), str(SCRIPTS / "killed.py"), mode, tracker, str(folder), str(kills)]
    alone = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # this process's sidecar
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("tracker", ["mlflow+sqlite:///{}/m.db#x", "jsonl:{}/runs"], ids=["mlflow", "jsonl"])
def test_a_training_killed_at_random_steps_and_resumed_has_each_point_once(tracker: str, tmp_path: Path) -> None:
    shutil.copy(mlflow_stores.made(), tmp_path / "m.db")  # a life that makes it may be killed before it is whole
    uri = tracker.format(tmp_path)
    assert lives("resume", uri, tmp_path, 25)["killed"] == 25

    losses = Observations.from_source(uri).losses
    for number, domain in enumerate(MIXTURE):
        of_domain = losses[losses["domain"] == domain]
        assert of_domain["step"].tolist() == list(range(1, STEPS + 1))
        assert of_domain["loss"].tolist() == pytest.approx([loss(step, number) for step in range(1, STEPS + 1)])
        assert of_domain["tokens"].tolist() == [1000 * step for step in range(1, STEPS + 1)]
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


def test_what_killed_trainings_had_logged_is_there_after_a_replay(tmp_path: Path) -> None:
    shutil.copy(mlflow_stores.made(), tmp_path / "m.db")  # likewise
    uri = f"mlflow+sqlite:///{tmp_path}/m.db#x"
    assert lives("replay", uri, tmp_path, 25)["killed"] == 25
    replayed = list(replay(os.environ["BIMIX_SPOOL"]))

    assert not [one.error for one in replayed if one.error is not None]
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()
    said = said_in(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/m.db")
    experiment = client.get_experiment_by_name("x")
    assert experiment is not None
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        points = [point.step for point in client.get_metric_history(run.info.run_id, "bimix_eval_loss/a")]
        assert len(points) == len(set(points))
        assert said.pop(run.info.run_name, set()) <= set(points)
    assert not said


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_what_killed_trainings_had_logged_to_wandb_is_there_after_a_replay(mode: str, tmp_path: Path) -> None:
    with serving(tmp_path, WANDB_MODE=mode):
        assert lives("replay", "wandb:killed", tmp_path, 3)["killed"] == 3
        replayed = list(replay(os.environ["BIMIX_SPOOL"]))
        assert not [one.error for one in replayed if one.error is not None]
        uri = "wandb:local/killed" if mode == "online" else f"wandb-offline:{tmp_path}"
        records = open_source(uri, wanted=Wanted(unfinished=True)).records()

    # By their lengths: offline, a run's name is in the file of the process that was killed before it had written it.
    said = sorted(len(steps) for steps in said_in(tmp_path).values())
    read = sorted(len(record.rows) for record in records)
    assert len(said) == len(read)
    assert all(had_said <= rows for had_said, rows in zip(said, read, strict=True))
    for record in records:
        assert [row["bimix/step"] for row in record.rows] == list(range(1, len(record.rows) + 1))


def said_in(folder: Path) -> dict[str, set[int]]:
    """Return the steps that each life had logged."""
    said = collections.defaultdict(set)
    for line in (folder / "said").read_text(encoding="utf-8").splitlines():
        life, step = line.split()
        said[life].add(int(step))
    return said


def test_two_writers_of_one_sqlite_store(tmp_path: Path) -> None:
    uri = f"mlflow+sqlite:///{tmp_path}/m.db#two"
    command = [program("python"), str(SCRIPTS / "killed.py"), "write", uri, str(tmp_path), "0"]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        writer.communicate("go\n")
    assert [writer.returncode for writer in writers] == [0, 0]

    # Pooled, one would be a copy of the other.
    records = open_source(uri).records()
    assert [[row["bimix/step"] for row in record.rows] for record in records] == [list(range(1, STEPS + 1))] * 2
    assert all({"bimix_eval_loss/a", "bimix_eval_loss/b"} <= row.keys() for record in records for row in record.rows)


def test_rows_of_a_dead_server_are_replayed_to_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.2")
    recorder = DomainLossRecorder(
        list(MIXTURE), MIXTURE, open_tracker(f"mlflow+http://me:secret@127.0.0.1:{free_port()}#x", run_name="r")
    )
    with pytest.warns(UserWarning, match=r"tracker failed|not everything reached the tracker") as said:
        train(recorder)
    assert not any("secret" in str(warning.message) for warning in said)
    files = [path for path in Path(os.environ["BIMIX_SPOOL"]).rglob("*") if path.is_file()]
    assert not any("secret" in path.read_text(encoding="utf-8") for path in files)

    store = f"sqlite:///{tmp_path}/m.db"
    (one,) = replay(os.environ["BIMIX_SPOOL"], tracker=f"mlflow+{store}#x")
    assert (one.rows, one.ended, one.error) == (80, True, None)
    check_whole(MlflowClient(store), "x")
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()
