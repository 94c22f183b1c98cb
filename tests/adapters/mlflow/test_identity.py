"""Which MLflow run and experiment a training's numbers go to: the host's only if it is free, and as asked."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from bimix_integrations.trackers.mlflow import MlflowSource, MlflowTracker
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, Observations, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import RefusedError, SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.ports import Row

_names = (f"identity-{number}" for number in itertools.count())
_MANIFEST = RunManifest(("a", "b"), Mixture({"a": 0.5, "b": 0.5}), eval_set="e")
_ROW = Row(1, 1e9, {"bimix/tokens": 10.0, "bimix_eval_loss/a": 3.0, "bimix_eval_loss/b": 2.0})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the tracking URI of a database that these tests share: MLflow takes seconds to make one."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('identity')}/m.db"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def experiment(database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Return the name of MLflow's own experiment here, in MLflow's own store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    name = next(_names)
    mlflow.set_experiment(name)
    yield name
    while mlflow.active_run():
        mlflow.end_run()


def runs(experiment: str) -> dict[str, Run]:
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}


def train(uri: str, share: float = 0.5, *, name: str | None = None, finish: bool = True) -> MlflowTracker:
    tracker = open_tracker(uri, run_name=name)
    assert isinstance(tracker, MlflowTracker)
    recorder = DomainLossRecorder(["a", "b"], {"a": share, "b": 1 - share}, tracker, eval_set="e")
    recorder.add([0, 1], [3.0, 2.0], [1, 1])
    recorder.add([0, 1], [3.0, 2.0], [1, 1], split="eval")
    recorder.log_train(1)
    recorder.log_eval(1)
    if finish:
        recorder.finish()
    return tracker


def opened(uri: str, key: str = "k", **options: Any) -> MlflowTracker:
    tracker = MlflowTracker(uri, **options)
    tracker.key = key
    tracker.adopt_active()
    tracker.start(_MANIFEST)
    return tracker


@pytest.mark.parametrize("named", [True, False])
def test_three_trainings_in_one_open_run_are_three_runs(experiment: str, named: bool) -> None:
    uri = f"mlflow:{experiment}" if named else "mlflow:"
    with mlflow.start_run(run_name="driver") as driver:
        for share in (0.2, 0.5, 0.8):
            train(uri, share)
        assert MlflowClient().get_run(driver.info.run_id).info.status == "RUNNING"

    found = Observations.from_source(f"mlflow:{experiment}")
    assert sorted(found.mixtures["a"]) == [0.2, 0.5, 0.8]
    adopted, *own = [run for name, run in sorted(runs(experiment).items())]
    assert adopted.info.run_name == "driver"
    assert {run.data.tags["mlflow.parentRunId"] for run in own} == {driver.info.run_id}
    assert {run.info.status for run in own} == {"FINISHED"}


def test_a_run_of_another_name_than_was_asked_for_is_the_parent(experiment: str) -> None:
    with mlflow.start_run(run_name="driver"):
        for name in ("p0", "p1"):
            train(f"mlflow:{experiment}", name=name)
    with mlflow.start_run(run_name="p2") as same:
        assert train(f"mlflow:{experiment}", name="p2").run_id == same.info.run_id

    assert set(runs(experiment)) == {"driver", "p0", "p1", "p2"}
    assert not any(name.startswith("bimix") for name in runs(experiment)["driver"].data.tags)


def test_a_run_of_another_experiment_is_left_alone(experiment: str) -> None:
    asked = next(_names)
    with mlflow.start_run(run_name="host"):
        train(f"mlflow:{asked}", name="proxy")

    assert runs(experiment)["host"].data.metrics == {}
    assert "mlflow.parentRunId" not in runs(asked)["proxy"].data.tags
    assert Observations.from_source(f"mlflow:{asked}").runs == ("proxy",)


def test_a_run_in_another_store_is_left_alone_and_one_is_known_however_its_store_is_written(
    experiment: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(database.removeprefix("sqlite:///"))
    monkeypatch.chdir(path.parent)
    with mlflow.start_run() as host:
        assert opened(f"mlflow+sqlite:///m.db#{experiment}").run_id == host.info.run_id
        other = opened(f"mlflow+sqlite:///{tmp_path}/other.db#{experiment}")
        assert other.run_id != host.info.run_id


def test_a_host_s_logger_s_run_is_taken_by_the_same_rule(experiment: str, database: str) -> None:
    client = MlflowClient()
    logged = client.create_run(str(runs_experiment(experiment)), run_name="logger").info.run_id
    found = []
    for key in ("first", "second"):
        tracker = MlflowTracker(f"mlflow:{experiment}")
        tracker.key = key
        tracker.adopt(logged, database)
        tracker.start(_MANIFEST)
        found.append(tracker.run_id)
        tracker.finish()

    assert found[0] == logged != found[1]
    assert client.get_run(str(found[1])).data.tags["mlflow.parentRunId"] == logged
    assert client.get_run(logged).info.status == "RUNNING"  # its owner's to end


def runs_experiment(name: str) -> str:
    found = MlflowClient().get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def test_the_very_run_that_is_resumed_is_taken_again_and_by_nobody_else(experiment: str) -> None:
    with mlflow.start_run() as host:
        first = opened(f"mlflow:{experiment}", "first")
        first.log([_ROW])
    with mlflow.start_run(run_id=host.info.run_id):
        resumed = MlflowTracker(f"mlflow:{experiment}")
        resumed.key = "of another process"
        later = resumed.resume(first.run_id, 0)
        resumed.adopt_active()
        resumed.start(_MANIFEST)
        stranger = opened(f"mlflow:{experiment}", "stranger")

    assert resumed.run_id == host.info.run_id != stranger.run_id
    assert not resumed.owned
    assert later == [{"bimix/step": 1.0, "bimix/time": 1e9, **_ROW.metrics}]


def test_two_that_begin_at_one_moment_never_share_a_run(experiment: str) -> None:
    with mlflow.start_run() as host:
        trackers = [MlflowTracker(f"mlflow:{experiment}") for _ in range(4)]
        for number, tracker in enumerate(trackers):
            tracker.key = f"key{number}"
            tracker.adopt_active()
        threads = [threading.Thread(target=tracker.start, args=(_MANIFEST,)) for tracker in trackers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len({tracker.run_id for tracker in trackers}) == 4
    tags = MlflowClient().get_run(host.info.run_id).data.tags
    assert not any(tag.startswith("bimix.claim") for tag in tags)


def test_a_host_may_end_its_run_before_ours_and_sets_its_status(experiment: str) -> None:
    with mlflow.start_run() as host:
        tracker = opened(f"mlflow:{experiment}")
    mlflow.MlflowClient().set_terminated(host.info.run_id, "KILLED")
    tracker.log([_ROW])
    tracker.finish(ended=False)

    run = MlflowClient().get_run(host.info.run_id)
    assert (run.info.status, run.data.metrics["bimix/tokens"]) == ("KILLED", 10.0)
    again = MlflowTracker(tracker.uri)  # as `bimix replay` goes on with it
    again.resume(tracker.run_id, 0)
    again.start(_MANIFEST)
    again.finish()
    assert MlflowClient().get_run(host.info.run_id).info.status == "KILLED"


def test_the_run_of_another_thread_is_none_of_this_one_s(experiment: str) -> None:
    found: list[MlflowTracker] = []
    with mlflow.start_run() as host:
        thread = threading.Thread(target=lambda: found.append(opened(f"mlflow:{experiment}")))
        thread.start()
        thread.join()

    assert found[0].run_id != host.info.run_id


def test_a_run_id_left_in_the_environment_is_the_host_s_to_take(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = train(f"mlflow:{experiment}").run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", str(old))

    assert train(f"mlflow:{experiment}").run_id != old
    with mlflow.start_run() as host:  # it resumes the run in the environment
        assert host.info.run_id == old
        assert train(f"mlflow:{experiment}").run_id != old


def test_a_run_that_was_created_is_found_by_its_key_though_nobody_noted_its_id(experiment: str) -> None:
    killed = opened(f"mlflow:{experiment}", "mine")
    again = MlflowTracker(f"mlflow:{experiment}")
    again.key = "mine"
    assert again.resume(None, 0) == []
    again.start(_MANIFEST)
    assert again.run_id == killed.run_id
    again.finish(ended=False)

    assert MlflowClient().get_run(str(killed.run_id)).info.status == "FAILED"
    other = MlflowTracker(f"mlflow:{experiment}")
    other.key = "another"
    other.resume(None, 0)
    other.start(_MANIFEST)
    assert other.run_id != killed.run_id


def test_an_answer_that_never_came_makes_no_second_run(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MlflowTracker(f"mlflow:{experiment}")
    tracker.key, create = "mine", MlflowClient.create_run

    def lost(self: MlflowClient, *args: Any, **options: Any) -> Run:
        create(self, *args, **options)
        raise ConnectionError("no answer")

    monkeypatch.setattr(MlflowClient, "create_run", lost)
    with pytest.raises(ConnectionError):
        tracker.start(_MANIFEST)
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tracker._store.tracking_uri))
    tracker.start(_MANIFEST)

    assert len(runs(experiment)) == 1


def test_a_failed_run_goes_on_when_training_does(experiment: str) -> None:
    tracker = opened(f"mlflow:{experiment}")
    tracker.log([_ROW])
    tracker.finish(ended=False)
    assert MlflowClient().get_run(str(tracker.run_id)).info.status == "FAILED"

    again = MlflowTracker(f"mlflow:{experiment}")
    again.resume(tracker.run_id, 1)
    again.adopt_active()
    again.start(_MANIFEST)
    assert MlflowClient().get_run(str(tracker.run_id)).info.status == "RUNNING"
    again.finish()
    assert MlflowClient().get_run(str(tracker.run_id)).info.status == "FINISHED"


@pytest.mark.parametrize("gone", ["deleted", "elsewhere", "never"])
def test_a_run_that_cannot_be_gone_on_with_is_told_and_one_of_our_own_is_opened(experiment: str, gone: str) -> None:
    elsewhere = next(_names)
    before = opened(f"mlflow:{elsewhere if gone == 'elsewhere' else experiment}")
    if gone == "deleted":
        MlflowClient().delete_run(str(before.run_id))
    again = MlflowTracker(f"mlflow:{experiment}")
    again.key = "again"

    with pytest.raises(RefusedError, match=rf"is not in experiment '{experiment}' at .* was deleted, or is elsewhere"):
        again.resume("0" * 32 if gone == "never" else before.run_id, 0)
    again.adopt_active()
    again.start(_MANIFEST)

    assert again.run_id not in (None, before.run_id)


def test_a_generated_name_never_repeats_whatever_trainers_seed(experiment: str) -> None:
    for _ in range(2):
        random.seed(42)
        train(f"mlflow:{experiment}")

    assert len(runs(experiment)) == 2
    assert all(name.startswith("run-") for name in runs(experiment))


def test_of_a_name_what_mlflow_can_t_take_is_left_out(experiment: str) -> None:
    opened(f"mlflow:{experiment}", run_name="\0\udcff" + "<b>ä/" * 100)
    opened(f"mlflow:{experiment}", "other", run_name="\0")

    assert set(runs(experiment)) == {"<b>ä/" * 50, "run-other"}


def test_another_is_a_tracker_of_the_same_place(experiment: str) -> None:
    tracker = train("mlflow:", name="p")
    mlflow.set_experiment(next(_names))
    other = tracker.another()
    other.run_name = "p-2"
    other.start(_MANIFEST)

    assert set(runs(experiment)) == {"p", "p-2"}
    assert runs(experiment)["p"].data.tags["bimix.key"] != runs(experiment)["p-2"].data.tags["bimix.key"]


def test_without_a_name_it_is_the_experiment_that_was_set_and_stays_that(experiment: str) -> None:
    tracker = opened("mlflow:")
    mlflow.set_experiment(next(_names))
    tracker.log([_ROW])

    assert list(runs(experiment)) == [f"run-{tracker.key}"]
    assert tracker.uri.endswith(f"#{experiment}")
    assert MlflowSource(tracker.uri).states()[0].run_id == tracker.run_id


def chosen_by(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.tracking.fluent._active_experiment_id = None
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_without_a_name_the_environment_s_counts_for_writing_and_reading(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, new = runs_experiment(experiment), next(_names)
    for variables, name in (({"MLFLOW_EXPERIMENT_ID": there}, experiment), ({"MLFLOW_EXPERIMENT_NAME": new}, new)):
        chosen_by(variables, monkeypatch)
        train("mlflow:", name="by-env")
        assert list(runs(name)) == ["by-env"]
        assert Observations.from_source("mlflow:").runs == ("by-env",)
        with mlflow.start_run() as theirs:
            assert theirs.info.experiment_id == runs_experiment(name)
    # What `set_experiment` has left to the processes below it doesn't count beside a name
    chosen_by({"MLFLOW_EXPERIMENT_ID": there, "MLFLOW_EXPERIMENT_NAME": new}, monkeypatch)
    assert opened("mlflow:").uri.endswith(f"#{new}")


def test_an_environment_that_contradicts_itself_works_for_the_host_too(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = next(_names)
    chosen_by({"MLFLOW_EXPERIMENT_ID": runs_experiment(experiment), "MLFLOW_EXPERIMENT_NAME": new}, monkeypatch)
    train("mlflow:", name="ours")
    with mlflow.start_run(run_name="theirs"):
        pass
    assert sorted(runs(new)) == ["ours", "theirs"]


@pytest.mark.usefixtures("experiment")
def test_without_anybody_s_choice_it_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen_by({}, monkeypatch)

    assert opened("mlflow:", run_name=next(_names)).uri.endswith("#Default")


def test_before_an_experiment_s_name_is_known_a_uri_has_its_id(experiment: str, database: str) -> None:
    number = runs_experiment(experiment)
    tracker = MlflowTracker("mlflow:")
    tracker.adopt_active()

    assert tracker.uri == f"mlflow+{database}##{number}"
    assert opened(tracker.uri).uri == f"mlflow+{database}#{experiment}"


@pytest.mark.usefixtures("experiment")
def test_reading_makes_no_experiment_and_says_who_named_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = next(_names)
    before = {found.name for found in MlflowClient().search_experiments()}
    for variables, said in (
        ({"MLFLOW_EXPERIMENT_NAME": nowhere}, rf"no experiment '{nowhere}' \(of MLFLOW_EXPERIMENT_NAME\) at"),
        ({"MLFLOW_EXPERIMENT_NAME": "", "MLFLOW_EXPERIMENT_ID": "987654"}, r"of id 987654 \(of MLFLOW_EXPERIMENT_ID\)"),
    ):
        chosen_by(variables, monkeypatch)
        with pytest.raises(SourceError, match=said):
            MlflowSource("mlflow:").records()
    chosen_by({"MLFLOW_EXPERIMENT_ID": "987654", "MLFLOW_EXPERIMENT_NAME": ""}, monkeypatch)
    with pytest.raises(RefusedError, match=r"no experiment of id 987654 \(of MLFLOW_EXPERIMENT_ID\)"):
        opened("mlflow:")

    assert {found.name for found in MlflowClient().search_experiments()} == before
