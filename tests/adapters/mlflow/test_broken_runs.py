"""One broken run of an experiment is one run: it is excluded with its reason, and the others are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bimix_integrations.trackers.mlflow import MlflowSource, artifacts
from mlflow.entities import Metric
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from bimix_tracking import Observations, Wanted, open_source, recommended_mixture
from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import WriteBack
from tests.adapters.services import MlflowServer

MIXTURE = {"a": 0.25, "b": 0.75}
TAGS = {"bimix.role": "train", "bimix.schema": "1", "bimix.sweep": "s"}
TAGS |= {"bimix.domains": json.dumps({"a": "a", "b": "b"}), "bimix.mixture": json.dumps(MIXTURE)}
ROWS = [
    {"bimix/step": step, "bimix/tokens": 100.0 * step, "bimix_eval_loss/a": 2 + 1 / step, "bimix_eval_loss/b": 3.0}
    for step in (1, 2, 3)
]


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri.removeprefix("mlflow+").partition("#")[0])


def run(uri: str, name: str, *, location: str | None = None, **tags: str | None) -> str:
    client, experiment = client_of(uri), uri.partition("#")[2]
    found = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment, location) if found is None else found.experiment_id
    kept = {key: value for key, value in (TAGS | tags).items() if value is not None}
    run_id = str(client.create_run(number, run_name=name, tags=kept).info.run_id)
    points = [
        Metric(name, value, 1, int(row["bimix/step"]))
        for row in ROWS
        for name, value in row.items()
        if name != "bimix/step"
    ]
    client.log_batch(run_id, metrics=points)
    client.set_terminated(run_id)
    return run_id


def curves(rows: Sequence[dict[str, float]] = ROWS, mixture: dict[str, float] = MIXTURE) -> str:
    manifest = RunManifest(("a", "b"), Mixture(mixture), sweep="s").to_dict()
    return json.dumps({"schema": 1, "manifest": manifest, "rows": rows})


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of a database that the tests share: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('broken')}/mlflow.db"


@pytest.fixture(params=["sqlite", "server", "postgres"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a source of an experiment that nobody has used."""
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts of a database without a server into the working directory
    return f"mlflow+{request.getfixturevalue(request.param)}#{request.node.name}"


BAD_TAGS: dict[str, dict[str, str | None]] = {
    "no JSON": {"bimix.mixture": "{"},
    "nested deep": {"bimix.domains": "[" * 4000},
    "in percent": {"bimix.mixture": '{"a": 25, "b": 75}'},
    "NaN": {"bimix.mixture": '{"a": NaN, "b": 0.75}'},
    "a list": {"bimix.mixture": "[0.25, 0.75]"},
    "of text": {"bimix.mixture": '{"a": "x", "b": 0.75}'},
    "numbers for names": {"bimix.domains": "[1, 2]"},
    "domains null": {"bimix.domains": "null"},
    "a newer schema": {"bimix.schema": "99"},
    "no schema": {"bimix.schema": "x"},
    "model size": {"bimix.model_size": "big"},
    "schedule": {"bimix.schedule": "[[1, 2, 3]]"},
    "schedule of numbers": {"bimix.schedule": "7"},
    "targets of numbers": {"bimix.targets": "[7]"},
    "targets cut off": {"bimix.targets": '[{"name": "mmlu"'},
    "unknown domain": {"bimix.mixture": '{"a": 0.25, "c": 0.75}'},
    "no domains": {"bimix.domains": None, "bimix.mixture": None},
}


def test_a_broken_manifest_excludes_its_run_and_no_other(uri: str) -> None:
    run(uri, "good")
    for name, tags in BAD_TAGS.items():
        run(uri, name, **tags)

    records = {record.name: record for record in MlflowSource(uri).records()}

    assert records.keys() == {"good", *BAD_TAGS}
    assert len(records["good"].rows) == 3
    for name in BAD_TAGS:
        ((reason, count),) = records[name].exclusions.items()
        assert reason.startswith("the run cannot be read: "), name
        assert len(reason) < 500
        assert (count, records[name].rows) == (1, [])
    assert len(open_source(uri).states()) == 1 + len(BAD_TAGS)
    obs = Observations.from_source(uri)
    assert obs.runs == ("good",)
    assert {note.run for note in obs.notes} == set(BAD_TAGS)


def test_where_no_run_can_be_read_the_error_tells_why(uri: str) -> None:
    for name, tags in list(BAD_TAGS.items())[:3]:
        run(uri, name, **tags)

    with pytest.raises(SourceError, match=r"has no run to read: run 'no JSON' \(.*: the run cannot be read: .*'in per"):
        MlflowSource(uri).records()


BAD_CURVES: dict[str, bytes] = {
    "empty": b"",
    "truncated": curves().encode()[:-20],
    "not UTF-8": b"\xff\xfe" + curves().encode(),
    "nested deep": b"[" * 200_000,
    "a list": b"[1]",
    "rows of text": curves([{"bimix/step": "x"}]).encode(),  # type: ignore[dict-item]  # that is the point
    "a mixture in percent": curves().replace("0.25", "25").encode(),
    "another mixture": curves(mixture={"a": 0.5, "b": 0.5}).encode(),
    "a row less": curves(ROWS[:-1]).encode(),
    "another loss": curves([*ROWS[:-1], ROWS[-1] | {"bimix_eval_loss/b": 1.0}]).encode(),
    "rows twice": curves([*ROWS, *ROWS]).encode(),
    "more tokens": curves([row | {"bimix/tokens": 1e9} for row in ROWS]).encode(),
    "another schema": curves().replace('"schema": 1', '"schema": 99').encode(),
}


def test_curves_that_are_broken_or_disagree_give_way_to_the_histories(uri: str, tmp_path: Path) -> None:
    file = tmp_path / "curves.json"
    for name, content in {"good": curves().encode(), **BAD_CURVES}.items():
        run_id = run(uri, name)
        file.write_bytes(content)
        client_of(uri).log_artifact(run_id, str(file), "bimix")

    records = MlflowSource(uri).records()

    assert [record.name for record in records] == ["good", *BAD_CURVES]
    for record in records:
        assert list(record.rows) == ROWS, record.name
        assert record.manifest == RunManifest(("a", "b"), Mixture(MIXTURE), sweep="s")
        assert record.exclusions == {}


def test_a_large_artifact_is_not_fetched(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = run(uri, "run")
    client_of(uri).log_text(run_id, curves() + " " * 2000, CURVES)
    monkeypatch.setattr(artifacts, "LARGEST", 1000)

    (record,) = MlflowSource(uri).records()

    assert list(record.rows) == ROWS


@pytest.mark.parametrize(
    ("location", "needed"),
    [
        ("s3://bucket/x", "pip install boto3"),
        ("gs://bucket/x", "pip install google-cloud-storage"),
        ("nonsense://x", "Could not find a registered artifact repository"),
        ("/dev/null/x", ""),
    ],
)
def test_a_store_of_artifacts_that_cannot_be_read_is_no_matter_where_there_are_histories(
    uri: str, location: str, needed: str
) -> None:
    for name in ("one", "two"):
        run(uri, name, location=location)
    analysis = run(uri, "analysis", **{"bimix.role": "analysis"})
    client = client_of(uri)
    experiment = client.get_experiment_by_name(uri.partition("#")[2])
    assert experiment is not None
    client.set_experiment_tag(experiment.experiment_id, "bimix.recommended", analysis)

    records = MlflowSource(uri).records()

    assert [list(record.rows) for record in records] == [ROWS, ROWS]
    if not location.startswith("/dev"):  # there it is a folder, with nothing in it
        with pytest.raises(SourceError, match=rf"artifacts of run .* cannot be read: .*{needed}"):
            recommended_mixture(uri)


def test_an_analysis_that_cannot_be_written_names_what_is_missing(uri: str, tmp_path: Path) -> None:
    source = run(uri, "one", location="s3://bucket/x")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mixture.yaml").write_text("mixture: {a: 1.0}", encoding="utf-8")
    manifest = RunManifest(("a", "b"), Mixture(MIXTURE), role="analysis")
    analysis = WriteBack(tmp_path / "files", manifest, {}, "", [source], "k")

    with pytest.raises(SourceError, match=r"cannot be written: a package is missing\. Run: pip install boto3"):
        open_source(uri).write_back(analysis)

    assert open_source(uri).find_analysis("k") is None
    assert open_source(uri).find_analysis() is None
    assert "bimix.analysis_run_id" not in client_of(uri).get_run(source).data.tags


def test_a_manifest_that_only_an_artifact_holds_names_what_is_missing(uri: str) -> None:
    run(uri, "good", location="s3://bucket/x")
    run(uri, "long", **{"bimix.domains": None, "bimix.mixture": None})
    run(uri, "half", **{"bimix.mixture": None})

    good, long, half = MlflowSource(uri).records()

    assert len(good.rows) == 3
    assert "a package is missing. Run: pip install boto3" in next(iter(long.exclusions))
    assert "pip install boto3" in next(iter(half.notes))
    assert half.manifest.mixture is None


def test_a_folder_of_artifacts_that_may_not_be_read_is_no_matter(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client_of(uri).log_text(run(uri, "run"), curves(), CURVES)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(artifacts, "get_artifact_repository", refuse)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    (record,) = MlflowSource(uri).records()

    assert list(record.rows) == ROWS


def test_metrics_of_another_tool_that_are_ambiguous_exclude_their_run(uri: str) -> None:
    run(uri, "good")
    client = client_of(uri)
    experiment = client.get_experiment_by_name(uri.partition("#")[2])
    assert experiment is not None
    unclear = client.create_run(experiment.experiment_id, run_name="unclear").info.run_id
    client.log_metric(unclear, "eval/a/loss", 1.0)
    client.log_metric(unclear, "metrics/b/LanguageCrossEntropy", 1.0)
    client.set_terminated(unclear)
    source = MlflowSource(uri, wanted=Wanted(foreign=ForeignRuns(tokens_per_step=1)))

    records = {record.name: record for record in source.records()}

    assert "Give a `pattern` in the mixtures file" in next(iter(records["unclear"].exclusions))
    assert len(records["good"].rows) == 3
    assert {state.name for state in source.states()} == {"good", "unclear"}


def test_runs_of_another_kind_are_told_by_their_metrics(uri: str) -> None:
    client = client_of(uri)
    experiment = client.create_experiment(uri.partition("#")[2])
    run_id = client.create_run(experiment).info.run_id
    for number in range(12):
        client.log_metric(run_id, f"ppl-{number:02}", 1.0)
    client.set_terminated(run_id)

    with pytest.raises(SourceError, match=r"Metrics seen: 'ppl-00', .*'ppl-07' and 4 more; .*`pattern` in --mixtures"):
        MlflowSource(uri).records()


def test_a_server_that_dies_in_mid_read_is_no_broken_run(
    own_server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"mlflow+{own_server.address}#s"
    for name in ("one", "two"):
        client_of(uri).log_text(run(uri, name), curves(), CURVES)
    run(uri, "long", **{"bimix.domains": None, "bimix.mixture": None})

    def dying(*args: Any, **options: Any) -> Any:
        own_server.stop()
        return get_artifact_repository(*args, **options)

    with monkeypatch.context() as curves_first:
        curves_first.setattr(artifacts, "get_artifact_repository", dying)
        with pytest.raises(SourceError, match="no MLflow server answers"):
            MlflowSource(uri).records()
    own_server.start()
    monkeypatch.setattr(MlflowSource, "_from_curves", lambda *_: None)
    monkeypatch.setattr(artifacts, "get_artifact_repository", dying)  # now it is asked for a manifest
    with pytest.raises(SourceError, match="no MLflow server answers"):
        MlflowSource(uri).records()
