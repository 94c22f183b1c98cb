"""Nominal proportions as MLflow's params: which never change, come a hundred at a time, and may be a host's."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from bimix_integrations.trackers.mlflow import MlflowTracker
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, Mixture, Observations, analyze, open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.data.metric_names import slug
from bimix_tracking.tracking.ports import Row, Tracker

_names = (f"params-{number}" for number in itertools.count())
_ROW = Row(1, 1e9, {"bimix/tokens": 10.0, "bimix_eval_loss/a": 3.0, "bimix_eval_loss/b": 2.0})


@pytest.fixture
def uri(store: str) -> str:
    """Return a source of an experiment nobody has used."""
    return f"{store}#{next(_names)}"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of MLflow's own experiment here."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/m.db")
    name = next(_names)
    mlflow.set_experiment(name)
    yield name
    while mlflow.active_run():
        mlflow.end_run()


def run_of(tracker: Tracker | None, uri: str) -> Run:
    assert tracker is not None
    return MlflowClient(uri.removeprefix("mlflow+").partition("#")[0]).get_run(str(tracker.run_id))


def manifest(first: float) -> RunManifest:
    return RunManifest(("a", "b"), Mixture({"a": first, "b": 1 - first}))


def begun(uri: str, first: float, *, resumed: str | None = None) -> MlflowTracker:
    tracker = open_tracker(uri)
    assert isinstance(tracker, MlflowTracker)
    if resumed is not None:
        tracker.resume(resumed, 0)
    tracker.adopt_active()
    tracker.start(manifest(first))
    return tracker


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_as_many_domains_as_there_are_become_params(uri: str, count: int) -> None:
    names = [f"domain/{number}" for number in range(count)]
    tracker = open_tracker(uri)
    tracker.start(RunManifest(tuple(names), Mixture(dict.fromkeys(names, 1 / count))))
    share = f"{1 / count:.6g}"
    assert run_of(tracker, uri).data.params == {f"mixture.{slug(name)}": share for name in names}


def test_without_a_mixture_there_are_none_and_such_runs_are_read(uri: str) -> None:
    for name in ("one", "two"):
        with DomainLossRecorder(["a", "b"], None, open_tracker(uri, run_name=name)) as recorder:
            recorder.add([0, 1], [3.0, 2.0], 1, split="eval")
            recorder.log_eval(1)
        assert run_of(recorder.tracker, uri).data.params == {}
    assert [record.name for record in open_source(uri).records()] == ["one", "two"]


def test_of_a_schedule_the_beginning_is_the_param(uri: str) -> None:
    recorder = DomainLossRecorder(["a", "b"], {"a": 0.25, "b": 0.75}, open_tracker(uri))
    recorder.start()
    recorder.set_mixture({"a": 0.5, "b": 0.5}, 10)
    recorder.add([0, 1], [3.0, 2.0], 1, split="eval")
    recorder.log_eval(11)
    recorder.finish()
    assert run_of(recorder.tracker, uri).data.params == {"mixture.a": "0.25", "mixture.b": "0.75"}


@pytest.mark.parametrize(("again", "warned"), [(0.25, False), (0.5, True)])
def test_a_resumed_run_keeps_its_params_and_trains(
    uri: str, again: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    first = begun(uri, 0.25)
    with caplog.at_level(logging.WARNING):
        tracker = begun(uri, again, resumed=first.run_id)
        tracker.start(manifest(again))  # the manifest has grown
    tracker.log([_ROW])
    tracker.finish()

    run = run_of(tracker, uri)
    assert (run.info.run_id, run.info.status) == (first.run_id, "FINISHED")
    assert run.data.params == {"mixture.a": "0.25", "mixture.b": "0.75"}
    assert run.data.metrics["bimix_eval_loss/a"] == 3.0
    told = [record.getMessage() for record in caplog.records if "mixture.a" in record.getMessage()]
    assert len(told) == warned  # once, however often it is said
    (record,) = open_source(uri).records()
    assert record.manifest.mixture == manifest(again).mixture  # the manifest counts


def test_a_host_s_own_params_stay(experiment: str, caplog: pytest.LogCaptureFixture) -> None:
    with mlflow.start_run() as host:
        mlflow.log_params({"mixture.a": "a lot", "lr": "0.1"})
        tracker = begun(f"mlflow:{experiment}", 0.25)
        tracker.log([_ROW])
    assert tracker.run_id == host.info.run_id
    params = MlflowClient().get_run(host.info.run_id).data.params
    assert params == {"mixture.a": "a lot", "lr": "0.1", "mixture.b": "0.75"}
    assert ["'mixture.a'" in record.getMessage() for record in caplog.records] == [True]


def test_the_recommended_mixture_stands_beside_those_of_the_runs(uri: str) -> None:
    for first in (0.2, 0.5, 0.8):
        recorder = DomainLossRecorder(["a", "b"], {"a": first, "b": 1 - first}, open_tracker(uri), sweep="a\nsweep")
        for step in range(1, 5):
            recorder.add([0, 1], [30.0 * first, 30.0 - 30.0 * first], [round(100 * first), round(100 - 100 * first)])
            losses = [first**-0.2 * (2 + 3 / step), (1 - first) ** -0.1 * (2 + 3 / step)]
            recorder.add([0, 1], [64 * loss for loss in losses], 64, split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()
    found = analyze(uri, 1.5e11, replicates=0, write_back=True)

    client = MlflowClient(uri.removeprefix("mlflow+").partition("#")[0])
    place = client.get_experiment_by_name(uri.partition("#")[2])
    assert place is not None
    (run,) = client.search_runs([place.experiment_id], "tags.`bimix.role` = 'analysis'")
    assert run.info.run_name == f"a sweep · 150B · {found.created[:10]}"
    assert run.data.params == {
        f"mixture.{name}": f"{share:.6f}".rstrip("0") for name, share in found.recommendation.mixture.items()
    }
    assert set(Observations.from_source(uri).domains) == {"a", "b"}
