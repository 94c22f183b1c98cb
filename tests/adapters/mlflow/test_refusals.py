"""What MLflow refuses for good is told from an outage; artifacts are optional, and a manifest needs none."""

from __future__ import annotations

import copy
import dataclasses
import errno
import itertools
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests
from bimix_integrations.trackers.mlflow import MlflowTracker
from bimix_integrations.trackers.mlflow.refusals import RefusedForGoodError, artifact_is_refused, for_good
from bimix_integrations.trackers.mlflow.tags import fields_of, of_manifest
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, Observations, open_source
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import BimixError, RefusedError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.ports import Row
from tests.adapters.services import MlflowServer

_names = (f"refused-{number}" for number in itertools.count())
_MANIFEST = RunManifest(("a", "b"), Mixture({"a": 0.5, "b": 0.5}), eval_set="e", tokenizer="t")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the tracking URI of a database that these tests share: MLflow takes seconds to make one."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('refusals')}/m.db"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture(params=["sqlite", "server"])
def store(request: pytest.FixtureRequest) -> str:
    """Return a tracking URI: the texts of a server's errors are others than those of a database."""
    return str(request.getfixturevalue("database" if request.param == "sqlite" else "server"))


def row(step: int, **metrics: Any) -> Row:
    numbers = {"bimix/tokens": 10.0 * step, "bimix_eval_loss/a": 3.0 / step, "bimix_eval_loss/b": 2.0 / step}
    return Row(step, 1e9 + step, numbers | metrics)


def opened(tracking_uri: str, experiment: str | None = None, manifest: RunManifest = _MANIFEST) -> MlflowTracker:
    tracker = MlflowTracker(f"mlflow+{tracking_uri}#{experiment or next(_names)}")
    tracker.start(manifest)
    return tracker


def refused(tracker: MlflowTracker, rows: list[Row]) -> RefusedForGoodError:
    with pytest.raises(RefusedError) as told:
        tracker.log(rows)
    assert isinstance(told.value, RefusedForGoodError)
    return told.value


@pytest.mark.parametrize(
    "bad",
    [{"reward/mean@1": 1.0}, {"a" * 251: 1.0}, {"../up": 1.0}, {"reward": None}, {"reward": "high"}, {"reward": [1]}],
    ids=["letter", "long", "path", "none", "text", "list"],
)
def test_one_bad_name_or_value_is_a_refusal_and_without_it_the_rest_is_taken(store: str, bad: dict[str, Any]) -> None:
    tracker = opened(store)
    rows = [row(1), row(2, **bad), row(3)]

    assert not refused(tracker, rows).whole
    assert not refused(tracker, rows[1:2]).whole
    tracker.log([rows[0], row(2), rows[2]])
    tracker.finish()

    (record,) = open_source(tracker.uri).records()
    assert [found["bimix/step"] for found in record.rows] == [1, 2, 3]


def test_what_no_database_can_hold_is_a_refusal(database: str) -> None:
    tracker = opened(database)

    assert not refused(tracker, [row(2**70)]).whole
    assert not refused(tracker, [Row(1, float("nan"), {"bimix/tokens": 1.0})]).whole


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_run_that_is_gone_takes_nothing_any_more(store: str, what: str) -> None:
    tracker = opened(store)
    client = MlflowClient(store)
    if what == "run":
        client.delete_run(str(tracker.run_id))
    else:
        client.delete_experiment(client.get_run(str(tracker.run_id)).info.experiment_id)

    told = refused(tracker, [row(1)])
    assert told.whole
    assert copy.copy(told).whole  # as another process gets it
    with pytest.raises(RefusedError, match=r"must be in the 'active' state"):
        tracker.finish()
    if what == "experiment":
        with pytest.raises(RefusedError, match=r"experiment 'refused-\d+' at .* is deleted"):
            opened(store, tracker.uri.partition("#")[2])


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}, "refused"),
        (403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"}, "whole"),
        (403, "<html>forbidden</html>", "whole"),
        (404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}, "whole"),
        (404, "<html>default backend</html>", "outage"),
        (401, {"error_code": "UNAUTHENTICATED", "message": "expired"}, "outage"),
        (401, "You are not authenticated", "outage"),
        (429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow"}, "outage"),
        (500, "oops", "outage"),
        (503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "database is locked"}, "outage"),
        (400, {"error_code": "BAD_REQUEST", "message": "QueuePool limit of size 5 overflow 10 reached"}, "outage"),
        (400, {"error_code": "BAD_REQUEST", "message": "(psycopg2.errors.NumericValueOutOfRange)"}, "refused"),
    ],
)  # fmt: skip
def test_a_server_s_answers(status: int, body: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    text = body if isinstance(body, str) else json.dumps(body)
    with answering(status, text) as address:
        tracker = MlflowTracker(f"mlflow+{address}#x")
        tracker.run_id = "0" * 32
        with pytest.raises((RefusedError, MlflowException)) as told:
            tracker.log([row(1)])

    whole = getattr(told.value, "whole", None)
    assert {None: "outage", False: "refused", True: "whole"}[whole] == kind


class answering:  # noqa: N801  # read as a word
    """A server that has one answer for everything."""

    def __init__(self, status: int, text: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST  # noqa: N815  # the name is its base's

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_what_a_database_doesn_t_do_just_now_is_an_outage() -> None:
    locked = MlflowException("(sqlite3.OperationalError) database is locked", databricks_pb2.TEMPORARILY_UNAVAILABLE)
    closed = MlflowException("(psycopg2.InterfaceError) connection already closed", databricks_pb2.BAD_REQUEST)
    too_long = MlflowException("(psycopg2.errors.StringDataRightTruncation)", databricks_pb2.BAD_REQUEST)

    assert [for_good(error) for error in (locked, closed, too_long)] == [False, False, True]


class NoCredentialsError(Exception):
    """As botocore calls it."""


class EndpointConnectionError(Exception):
    """As botocore calls it."""


def answered(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("no", response=response)


@pytest.mark.parametrize(
    ("error", "for_ever"),
    [
        (ModuleNotFoundError("No module named 'boto3'", name="boto3"), True),
        (NoCredentialsError("Unable to locate credentials"), True),
        (EndpointConnectionError("Could not connect to the endpoint URL"), False),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (TimeoutError("timed out"), False),
        (requests.ConnectionError("refused"), False),
        (answered(403), True),
        (answered(413), True),
        (answered(503), False),
        (answered(429), False),
        (MlflowException("denied", databricks_pb2.PERMISSION_DENIED), True),
        (MlflowException("API request failed: too many 500 error responses"), False),
    ],
    ids=str,
)
def test_of_artifacts_what_is_no_outage_is_a_refusal(error: Exception, for_ever: bool) -> None:
    assert artifact_is_refused(error) == for_ever


@pytest.mark.parametrize(
    ("root", "said"), [("s3://bucket/x", "pip install boto3"), ("/proc/x", "No such file"), ("gs://b/x", "pip install")]
)
def test_without_a_place_for_artifacts_a_run_ends_and_is_read_from_its_histories(
    database: str, root: str, said: str
) -> None:
    name = next(_names)
    MlflowClient(database).create_experiment(name, artifact_location=root)
    tracker = opened(database, name)
    tracker.log([row(1), row(2)])
    with pytest.raises(RefusedError, match=rf"artifacts of run {tracker.run_id} .* cannot be written: .*{said}"):
        tracker.write_artifact("bimix/curves.json", "{}")
    tracker.finish()

    (record,) = open_source(tracker.uri).records()
    assert (len(record.rows), record.exclusions, record.notes) == (2, {}, {})
    assert open_source(tracker.uri).states()[0].status == "finished"


@pytest.fixture(scope="module")
def broken_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server that serves artifacts, and cannot write them itself."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "files").write_text("no folder", encoding="utf-8")
    started = MlflowServer(folder)
    yield started.address
    started.stop()


def test_a_server_that_cannot_keep_artifacts_is_tried_a_few_times_without_waiting(broken_artifacts: str) -> None:
    tracker = opened(broken_artifacts, manifest=dataclasses.replace(_MANIFEST, mixture=None))
    tracker.log([row(1)])
    kinds = []
    for _ in range(3):
        with pytest.raises(BimixError, match=r"cannot be written: HTTPError: 500") as told:
            tracker.write_artifact("bimix/curves.json", "{}")
        kinds.append(isinstance(told.value, RefusedError))
    tracker.finish()

    assert kinds == [False, False, True]
    (record,) = open_source(tracker.uri).records()
    assert (len(record.rows), record.exclusions, record.notes) == (1, {}, {})


@pytest.mark.parametrize(("where", "count"), [("database", 200), ("database", 1000), ("server", 300)])
def test_metrics_and_manifest_of_many_domains_need_no_artifact(
    request: pytest.FixtureRequest, where: str, count: int
) -> None:
    store, name = request.getfixturevalue(where), next(_names)
    domains = [f"crawl of the year 2026, part {number}, 日本語" for number in range(count)]
    MlflowClient(store).create_experiment(name, artifact_location="/proc/x")
    mixture = dict.fromkeys(domains, 1 / count)
    recorder = DomainLossRecorder(domains, mixture, schedule={5: mixture}, tokenizer="t", eval_set="e")
    tracker = opened(store, name, dataclasses.replace(recorder.manifest, eval_set=None))
    recorder.add(range(count), [3.0] * count, split="eval")
    recorder.add(range(count), [3.0] * count)
    tracker.log([Row(1, 1e9, recorder.log_train(1)), Row(1, 1e9, recorder.log_eval(1))])
    tracker.start(recorder.manifest)  # it has grown
    tracker.finish()

    run = MlflowClient(store).get_run(str(tracker.run_id))
    tags = run.data.tags
    assert RunManifest.from_dict(fields_of(tags)) == recorder.manifest
    assert len(run.data.metrics) == 6 * count + 1
    assert max(map(len, tags.values())) <= 4000
    assert (tags["bimix.tokenizer"], tags["bimix.eval_set"]) == ("t", "e")
    if where == "database":
        (record,) = open_source(tracker.uri).records()
        assert (record.manifest, record.exclusions, record.notes) == (recorder.manifest, {}, {})
        assert Observations.from_source(tracker.uri).domains == tuple(domains)


def test_parts_of_a_manifest_that_are_not_whole_are_not_read() -> None:
    tags = of_manifest(RunManifest(tuple(f"domain {number} of a long list" for number in range(500))))
    missing = {name: value for name, value in tags.items() if name != "bimix.manifest.1"}
    older = tags | {"bimix.manifest.1": tags["bimix.manifest.1"].replace("1", "2")}

    assert RunManifest.from_dict(fields_of(tags)).domains[499] == "domain 499 of a long list"
    for broken in (missing, older, tags | {"bimix.manifest": "[]"}, tags | {"bimix.manifest": '{"parts": 10e9}'}):
        with pytest.raises(BimixError, match="are not whole"):
            fields_of(broken)


def test_a_manifest_in_an_artifact_is_still_read(database: str) -> None:
    client = MlflowClient(database)
    name = next(_names)
    experiment = client.create_experiment(name, artifact_location=Path(database[10:]).parent.as_uri() + "/old")
    manifest = RunManifest(tuple(f"domain {number} of a long list" for number in range(300)))
    manifest = dataclasses.replace(manifest, mixture=Mixture(dict.fromkeys(manifest.domains, 1 / 300)))
    run_id = client.create_run(experiment, tags={"bimix.schema": "1", "bimix.role": "train"}).info.run_id
    client.log_text(run_id, json.dumps(manifest.to_dict()), "bimix/manifest.json")
    client.log_metric(run_id, "bimix_eval_loss/a", 3.0, step=1)
    client.set_terminated(run_id)

    (record,) = open_source(f"mlflow+{database}#{name}").records()
    assert record.manifest == manifest
