"""MLflow, both ways, on a real SQLite store and a real server."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from bimix_integrations.trackers.mlflow import MlflowSource, MlflowTracker
from bimix_integrations.trackers.mlflow.stores.server import Server
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from bimix_tracking import (
    Analysis,
    DomainLossRecorder,
    Mixture,
    Observations,
    Wanted,
    analyze,
    analyze_groups,
    open_source,
    open_tracker,
    recommended_mixture,
)
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.data.metric_names import slug
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import Row

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

HOSTILE = ["c++", "C#", "web/en", "<script>alert(1)</script>", "ä"]
_names = (f"experiment-{number}" for number in itertools.count())


@pytest.fixture
def uri(store: str) -> str:
    """Return a source of an experiment nobody has used."""
    return f"{store}#{next(_names)}"


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri.removeprefix("mlflow+").partition("#")[0])


def runs_of(uri: str, role: str) -> Sequence[Run]:
    client = client_of(uri)
    experiment = client.get_experiment_by_name(uri.partition("#")[2])
    assert experiment is not None
    found: Sequence[Run] = client.search_runs([experiment.experiment_id], f"tags.`bimix.role` = '{role}'")
    return found


SIZES = ("122M", "122000000", "7e9")


def train(
    uri: str, mixture: dict[str, float], name: str, *, evaluations: int = 5, finish: bool = True, **manifest: Any
) -> DomainLossRecorder:
    """Log a run whose losses follow the law: nothing here is fitted, so a made-up loop will do."""
    recorder = DomainLossRecorder(
        list(mixture), mixture, open_tracker(uri, run_name=name), sweep="s", tokenizer="t", **manifest
    )
    tokens = np.array([round(1000 * share) for share in mixture.values()])
    for step in range(1, evaluations + 1):
        recorder.add(np.arange(len(mixture)), 3.0 * tokens, tokens)
        recorder.log_train(step)
        seen = 1000 * step
        laws = enumerate(mixture.values())
        losses = [(i % 5 + 1) * r ** -(0.1 + 0.05 * (i % 5)) * (20 / seen**0.5 + 1) for i, r in laws]
        recorder.add(np.arange(len(mixture)), 64 * np.array(losses), 64, split="eval")
        recorder.log_eval(step)
    if finish:
        recorder.finish()
    return recorder


def sweep(uri: str, domains: Sequence[str]) -> None:
    for number, heavy in enumerate(domains):
        weights = {domain: 4.0 if domain == heavy else 1.0 for domain in domains}
        train(uri, dict(Mixture.normalized(weights)), f"run-{number}")


def test_what_was_logged_comes_back_the_same_as_from_plain_files(uri: str, tmp_path: Path) -> None:
    sweep(uri, HOSTILE)
    sweep(f"jsonl:{tmp_path}/files", HOSTILE)

    from_mlflow = Observations.from_source(uri)
    from_files = Observations.from_source(f"jsonl:{tmp_path}/files")

    assert set(from_mlflow.domains) == set(HOSTILE)
    assert from_mlflow.notes == ()
    assert len(from_mlflow.losses) == 5 * 5 * 5
    pd.testing.assert_frame_equal(from_mlflow.mixtures, from_files.mixtures)
    pd.testing.assert_frame_equal(from_mlflow.losses, from_files.losses)


def test_histories_give_what_the_artifact_gives(uri: str) -> None:
    sweep(uri, ["a", "b"])
    whole = Observations.from_source(uri)
    for run in runs_of(uri, "train"):
        # An artifact that isn't of the run's last state must not be believed.
        stale = {"schema": 1, "manifest": RunManifest(domains=("a", "b")).to_dict(), "rows": []}
        client_of(uri).log_text(run.info.run_id, json.dumps(stale), "bimix/curves.json")

    from_histories = Observations.from_source(uri)

    pd.testing.assert_frame_equal(whole.losses, from_histories.losses)
    pd.testing.assert_frame_equal(whole.mixtures, from_histories.mixtures)


def test_of_a_server_the_curves_are_enough(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"mlflow+{server}#{next(_names)}"
    sweep(uri, HOSTILE)
    whole = Observations.from_source(uri)

    def slow(*_: Any) -> Any:
        raise AssertionError("a history was asked for")

    monkeypatch.setattr(Server, "histories", slow)
    monkeypatch.setattr(Server, "history", slow)

    assert Observations.from_source(uri).data_hash == whole.data_hash


def test_a_point_logged_again_after_a_resume_counts_once_and_newest(uri: str) -> None:
    train(uri, {"a": 0.3, "b": 0.7}, "resumed")
    train(uri, {"a": 0.6, "b": 0.4}, "other")
    run_id = next(run.info.run_id for run in runs_of(uri, "train") if run.info.run_name == "resumed")
    client_of(uri).log_metric(run_id, "bimix_eval_loss/a", 9.0, step=5)

    obs = Observations.from_source(uri)

    last = obs.losses.query("run == 'resumed' and domain == 'a' and step == 5")
    assert last["loss"].tolist() == [9.0]


def test_every_metric_and_tag_of_a_run_is_there(uri: str) -> None:
    train(uri, {"c++": 0.25, "web": 0.75}, "run")

    (run,) = runs_of(uri, "train")

    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert json.loads(run.data.tags["bimix.domains"]) == {slug("c++"): "c++", "web": "web"}
    assert json.loads(run.data.tags["bimix.mixture"]) == {"c++": 0.25, "web": 0.75}
    assert run.data.tags["bimix.schema"] == "1"
    assert run.data.tags["bimix.tokenizer"] == "t"
    assert run.data.tags["bimix.sweep"] == "s"
    assert run.data.params == {f"mixture.{slug('c++')}": "0.25", "mixture.web": "0.75"}
    expected = {"bimix/tokens"}  # a step's chart would say nothing: MLflow has the step of each point
    for quantity in ("train_loss", "eval_loss", "eval_tokens", "tokens", "share", "nominal"):
        expected |= {f"bimix_{quantity}/{short}" for short in (slug("c++"), "web")}
    assert set(run.data.metrics) == expected
    assert run.data.metrics["bimix/tokens"] == 5000
    assert run.data.metrics["bimix_share/web"] == 0.75


def test_a_mixture_too_long_for_a_tag_comes_back_whole(uri: str) -> None:
    domains = [f"domain number {number} of a list of {'very ' * 20}long names" for number in range(60)]
    mixture = dict.fromkeys(domains, 1 / 60)
    train(uri, mixture, "long", evaluations=2)
    (run,) = runs_of(uri, "train")
    client_of(uri).log_text(
        run.info.run_id, '{"schema": 1, "manifest": {"domains": ["x"]}, "rows": []}', "bimix/curves.json"
    )

    obs = Observations.from_source(uri)

    assert obs.domains == tuple(domains)
    assert "bimix.mixture" not in run.data.tags


def test_the_active_run_is_adopted_and_left_to_its_owner(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.removeprefix("mlflow+").partition("#")[0])
    mlflow.set_experiment(uri.partition("#")[2])
    with mlflow.start_run(run_name="mine") as mine:
        recorder = DomainLossRecorder(["a", "b"], {"a": 0.5, "b": 0.5}, MlflowTracker())
        recorder.start()
        recorder.add([0, 1], [1.0, 2.0], split="eval")
        recorder.log_eval(1)
        recorder.finish()

        assert client_of(uri).get_run(mine.info.run_id).info.status == "RUNNING"

    (run,) = runs_of(uri, "train")
    assert run.info.run_id == mine.info.run_id
    assert run.data.metrics["bimix_eval_loss/b"] == 2.0


def test_analysis_is_written_back_with_lineage(uri: str, tmp_path: Path) -> None:
    sweep(uri, HOSTILE)

    found = analyze(uri, tokens=1e6, replicates=20, out=tmp_path / "out", write_back=True)

    (run,) = runs_of(uri, "analysis")
    client = client_of(uri)
    files = {file.path for file in client.list_artifacts(run.info.run_id, "bimix")}
    names = (
        "mixture.yaml",
        "fit.json",
        "validation.json",
        "observations.csv",
        "lineage.json",
        "exports",
        "recommendation.json",
        "report.html",
        "report.md",
    )
    assert files == {f"bimix/{name}" for name in names}
    assert {file.name for file in (tmp_path / "out").iterdir()} == set(names)
    assert run.data.tags["mlflow.note.content"].startswith("**Not checked: the law fitted to all 5 runs")
    assert "<script>" not in run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"
    assert found.location is not None
    assert run.info.run_id in found.location
    assert run.data.metrics[f"bimix_recommended/{slug('c++')}"] == found.recommendation.mixture["c++"]
    local = client.download_artifacts(run.info.run_id, "bimix", str(tmp_path))
    assert Mixture.from_yaml(Path(local) / "mixture.yaml") == found.recommendation.mixture
    provenance = yaml.safe_load((Path(local) / "mixture.yaml").read_text(encoding="utf-8"))["provenance"]
    assert provenance["data_hash"] == found.observations.data_hash
    lineage = json.loads((Path(local) / "lineage.json").read_text(encoding="utf-8"))
    trained = runs_of(uri, "train")
    assert {entry["id"] for entry in lineage["runs"]} == {source.info.run_id for source in trained}
    assert {source.data.tags["bimix.analysis_run_id"] for source in trained} == {run.info.run_id}
    again = Observations.from_csv(Path(local) / "observations.csv")
    assert again.data_hash == found.observations.data_hash


def test_the_same_analysis_twice_is_one_and_the_newest_is_the_recommended_one(uri: str) -> None:
    sweep(uri, ["a", "b"])
    first, second, third = (
        analyze(uri, tokens=tokens, law="bimix", replicates=0, write_back=True) for tokens in (1e6, 2e6, 1e6)
    )

    written = runs_of(uri, "analysis")
    assert len(written) == 2
    assert first.location == third.location != second.location
    marked = [run for run in written if run.data.tags.get("bimix.recommended") == "true"]
    assert [run.data.metrics["bimix/target_tokens"] for run in marked] == [1e6]
    assert recommended_mixture(uri) == first.recommendation.mixture
    with pytest.raises(SourceError, match="holds no analysis"):
        recommended_mixture(uri, key="0' or '1' = '1")


def test_runs_are_shown_under_their_analysis_if_asked_and_under_no_other(uri: str) -> None:
    sweep(uri, ["a", "b"])
    older = runs_of(uri, "train")[0].info.run_id
    client_of(uri).set_tag(older, "mlflow.parentRunId", "somebody")

    analyze(uri, tokens=1e6, law="bimix", replicates=0, write_back=True, nest=True)

    (analysis,) = runs_of(uri, "analysis")
    parents = {run.info.run_id: run.data.tags["mlflow.parentRunId"] for run in runs_of(uri, "train")}
    assert parents.pop(older) == "somebody"
    assert set(parents.values()) == {analysis.info.run_id}


def test_runs_of_another_model_size_are_analysed_apart(uri: str) -> None:
    for size in (1000, 2000):
        for share in (0.2, 0.5, 0.7):
            train(uri, {"a": share, "b": 1 - share}, f"{size}-{share}", model_size=size)

    with pytest.raises(ObservationsError, match=r"differ in model size.*--group-by model_size"):
        analyze(uri, tokens=1e6)
    found = analyze_groups(uri, 1e6, by="model_size", write_back=True, law="bimix", replicates=0)

    assert list(found) == ["1000", "2000"]
    assert all(isinstance(one, Analysis) and len(one.observations.runs) == 3 for one in found.values())
    assert len(runs_of(uri, "analysis")) == 2


def test_a_size_that_only_a_param_says_is_the_run_s(uri: str) -> None:
    for number, share in enumerate((0.2, 0.5, 0.7)):
        train(uri, {"a": share, "b": 1 - share}, f"run-{number}")
    client = client_of(uri)
    for run, size in zip(sorted(runs_of(uri, "train"), key=lambda run: str(run.info.run_name)), SIZES, strict=True):
        client.log_param(run.info.run_id, "model_size", size)
        client.log_param(run.info.run_id, "max_steps", 10)

    obs = Observations.from_source(open_source(uri, wanted=Wanted(pool_sizes=True)))
    assert obs.sizes == {"run-0": 122e6, "run-1": 122e6, "run-2": 7e9}
    assert obs.schedules == dict.fromkeys(obs.runs, 10_000.0)  # 5 of 10 steps
    with pytest.raises(ObservationsError, match=r"differ in model size.*122M: run-0, run-1"):
        Observations.from_source(uri)
    given = Wanted(foreign=ForeignRuns(model_size={"run-2": "122M"}))
    assert Observations.from_source(open_source(uri, wanted=given)).model_sizes == (122e6,)


def test_an_unfinished_run_is_left_out_and_named(uri: str) -> None:
    sweep(uri, ["a", "b"])
    recorder = train(uri, {"a": 0.5, "b": 0.5}, "still going", finish=False)

    obs = Observations.from_source(uri)
    recorder.finish()  # or the end of the process would wait for a store that is gone

    assert "still going" not in obs.runs
    assert [str(note) for note in obs.notes] == [
        "excluded: the run is not finished (it is RUNNING) (run 'still going'; 1×)"
    ]


def test_a_run_without_evaluation_is_left_out_and_named(uri: str) -> None:
    sweep(uri, ["a", "b"])
    train(uri, {"a": 0.5, "b": 0.5}, "blind", evaluations=0)

    obs = Observations.from_source(uri)

    assert [str(note) for note in obs.notes] == ["excluded: the run has no evaluation (run 'blind'; 1×)"]


def test_deleted_runs_are_never_read(uri: str) -> None:
    sweep(uri, ["a", "b", "c"])
    gone = next(run for run in runs_of(uri, "train") if run.info.run_name == "run-1")
    client_of(uri).delete_run(gone.info.run_id)

    assert Observations.from_source(uri).runs == ("run-0", "run-2")


def test_runs_on_other_evaluation_data_are_not_pooled(uri: str) -> None:
    train(uri, {"a": 0.5, "b": 0.5}, "one")
    recorder = DomainLossRecorder(["a", "b"], {"a": 0.2, "b": 0.8}, open_tracker(uri, run_name="two"), tokenizer="t")
    recorder.add([0, 1], [1.0, 2.0], split="eval")
    recorder.log_eval(1)
    recorder.finish()

    with pytest.raises(ObservationsError, match=r"differ in eval set.*'sums:.*one.*'sums:.*two"):
        Observations.from_source(uri)


def test_a_missing_experiment_is_named_with_those_there_are(uri: str) -> None:
    sweep(uri, ["a", "b"])
    there = uri.partition("#")[2]

    with pytest.raises(SourceError, match=rf"no experiment 'nowhere'.*'{there}'"):
        Observations.from_source(uri.replace(there, "nowhere"))


def test_an_empty_experiment_says_what_is_in_it(uri: str) -> None:
    client = client_of(uri)
    client.create_run(client.create_experiment(uri.partition("#")[2]))

    with pytest.raises(SourceError, match=r"no finished training run.*0 unfinished, 1 others"):
        Observations.from_source(uri)


def test_a_deleted_experiment_is_said_to_be_deleted(uri: str) -> None:
    sweep(uri, ["a", "b"])
    experiment = client_of(uri).get_experiment_by_name(uri.partition("#")[2])
    assert experiment is not None
    client_of(uri).delete_experiment(experiment.experiment_id)

    with pytest.raises(SourceError, match=r"is deleted: restore it"):
        Observations.from_source(uri)


def test_an_unreachable_server_is_told_without_its_password(closed_port: int) -> None:
    source = open_source(f"mlflow+http://user:secret@127.0.0.1:{closed_port}#sweep")

    with pytest.raises(SourceError, match=r"no MLflow server answers at http://127.0.0.1:\d+ ") as told:
        source.observations()

    assert "secret" not in str(told.value)


def test_training_goes_on_when_the_server_is_down(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.5")
    uri = f"mlflow+http://127.0.0.1:{closed_port}#sweep"

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        train(uri, {"a": 0.3, "b": 0.7}, "run")

    failed, kept_at = (str(warning.message) for warning in warned)
    assert "no MLflow server answers" in failed
    assert "10 rows and the run's end are kept in" in kept_at
    kept = Observations.from_source(f"jsonl:{os.environ['BIMIX_SPOOL']}")
    assert len(kept.losses) == 10


def test_artifacts_of_an_embedded_store_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    train(f"mlflow+sqlite:///{tmp_path}/new/mlflow.db#sweep", {"a": 0.3, "b": 0.7}, "run")

    assert list(elsewhere.iterdir()) == []
    assert list((tmp_path / "new" / "mlartifacts").rglob("curves.json"))


def test_the_default_store_is_the_one_mlflow_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/env.db")
    train("mlflow:sweep", {"a": 0.3, "b": 0.7}, "one")
    train("mlflow:sweep", {"a": 0.7, "b": 0.3}, "two")

    assert set(MlflowSource("mlflow:sweep").observations().runs) == {"one", "two"}


def test_without_a_store_in_the_uri_it_is_the_one_that_mlflow_has_when_training_begins(tmp_path: Path) -> None:
    tracker = open_tracker("mlflow:late", run_name="r")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/late.db")
    tracker.adopt_active()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/later.db")
    tracker.start(RunManifest(("a",), Mixture({"a": 1.0})))
    tracker.log([Row(1, 0.0, {"bimix/step": 1.0, "bimix/tokens": 5.0, "bimix_eval_loss/a": 2.0})])
    tracker.finish()

    assert len(Observations.from_source(f"mlflow+sqlite:///{tmp_path}/late.db#late").losses) == 1
