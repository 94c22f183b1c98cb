"""MLflow's runs read every way there is: the same records, whatever the server cuts off, and nothing changed by it."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from bimix_integrations.trackers.mlflow import MlflowSource
from bimix_integrations.trackers.mlflow.stores import bulk
from bimix_integrations.trackers.mlflow.stores.experiments import Choice
from bimix_integrations.trackers.mlflow.stores.server import Server
from bimix_integrations.trackers.mlflow.stores.store import Store
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from bimix_tracking import Observations, Wanted
from bimix_tracking.data.histories import INFINITE, REPEATED
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from tests.adapters.services import MlflowServer

TAGS = {"bimix.role": "train", "bimix.schema": "1", "bimix.sweep": "s"}
TAGS |= {"bimix.domains": json.dumps({"a": "a", "b": "b"}), "bimix.mixture": json.dumps({"a": 0.25, "b": 0.75})}


def client_of(uri: str) -> MlflowClient:
    return MlflowClient(uri.removeprefix("mlflow+").partition("#")[0])


def run(uri: str, name: str, points: Sequence[Metric], *, status: str = "FINISHED", **tags: str) -> str:
    client, experiment = client_of(uri), uri.partition("#")[2]
    found = client.get_experiment_by_name(experiment)
    number = client.create_experiment(experiment) if found is None else found.experiment_id
    run_id = client.create_run(number, run_name=name, tags=TAGS | tags).info.run_id
    client.log_batch(run_id, metrics=points)
    if status != "RUNNING":
        client.set_terminated(run_id, status)
    return str(run_id)


def curve(steps: int, level: float = 2.0) -> list[Metric]:
    return [
        Metric(name, value, 1000 + step, step)
        for step in range(1, steps + 1)
        for name, value in (
            ("bimix/tokens", 100.0 * step),
            ("bimix_eval_loss/a", level + 1 / step),
            ("bimix_eval_loss/b", level + 2 / step),
            ("bimix_share/a", 0.25),
            ("bimix_share/b", 0.75),
        )
    ]


@pytest.fixture
def uri(store: str, request: pytest.FixtureRequest) -> str:
    """Return a source of an experiment whose name nobody would give, and nobody has used."""
    return f'{store}#it\'s "{request.node.name}"; DROP TABLE metrics; --'


def every_way(uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sequence[RunRecord]]:
    """Yield what is read by each way that there is to this store: ours, then those through MLflow's own client."""
    yield MlflowSource(uri).records()

    def by_mlflow(self: Store) -> Server:
        return Server(lambda: self.client, self.shown, http=self.http)

    monkeypatch.setattr(Store, "reader", by_mlflow)
    yield MlflowSource(uri).records()

    def no_bulk(*_: Any) -> None:
        raise bulk.NoBulkError

    monkeypatch.setattr(bulk, "read", no_bulk)
    yield MlflowSource(uri).records()


def test_every_way_gives_the_same_and_counts_what_it_mended(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    again = [Metric("bimix_eval_loss/a", 9.0, 5000, 3), Metric("bimix_eval_loss/b", math.nan, 1, 7)]
    run(uri, "one", [*curve(6), *again, Metric("bimix_eval_loss/a", math.inf, 1, 7), Metric("loss", 1.0, 1, 1)])
    run(uri, "two", curve(4))
    first, *others = every_way(uri, monkeypatch)

    assert first[0].rows[2] == {
        "bimix/step": 3,
        "bimix/tokens": 300,
        "bimix_eval_loss/a": 9.0,
        "bimix_eval_loss/b": 2 + 2 / 3,
        "bimix_share/a": 0.25,
        "bimix_share/b": 0.75,
    }
    assert first[0].exclusions == {REPEATED: 1, INFINITE: 1}
    assert math.isnan(first[0].rows[6]["bimix_eval_loss/b"])
    for other in others:
        assert [(record.run_id, record.manifest, record.exclusions) for record in other] == [
            (record.run_id, record.manifest, record.exclusions) for record in first
        ]
        assert [repr(row) for row in other[1].rows] == [repr(row) for row in first[1].rows]
        assert len(other[0].rows) == 7


def test_which_runs_are_read(uri: str) -> None:
    run(uri, "done", curve(3))
    for level, status in ((2.1, "RUNNING"), (2.2, "FAILED"), (2.3, "KILLED")):
        run(uri, status.lower(), curve(2, level), status=status)
    client_of(uri).delete_run(run(uri, "deleted", curve(3)))
    parent = run(uri, "parent", [], **{"bimix.role": "sweep"})
    run(uri, "child", curve(3, 2.4), **{"mlflow.parentRunId": parent, "bimix.sweep": "t"})

    obs = Observations.from_source(uri)
    assert obs.runs == ("done", "child")
    assert sorted(str(note) for note in obs.notes) == [
        f"excluded: the run is not finished (it is {status}) (run '{status.lower()}'; 1×)"
        for status in ("FAILED", "KILLED", "RUNNING")
    ]
    everything = Observations.from_source(MlflowSource(uri, wanted=Wanted(unfinished=True)))
    assert set(everything.runs) == {"done", "running", "failed", "killed", "child"}
    under = Wanted(filter=f"tags.`mlflow.parentRunId` = '{parent}'")
    assert Observations.from_source(MlflowSource(uri, wanted=under)).runs == ("child",)
    states = {state.name: (state.status, state.sweep, state.ended is None) for state in MlflowSource(uri).states()}
    assert states == {
        "done": ("finished", "s", False),
        "running": ("running", "s", True),
        "failed": ("failed", "s", False),
        "killed": ("failed", "s", False),
        "child": ("finished", "t", False),
    }
    with pytest.raises(SourceError, match='no finished training run that match "tags'):
        MlflowSource(uri, wanted=Wanted(filter="tags.x = 'y'")).records()
    with pytest.raises(SourceError, match=r"MLflow says: .*Invalid"):
        MlflowSource(uri, wanted=Wanted(filter="nonsense")).records()


def test_a_run_of_unclear_origin_is_no_matter_until_it_is_asked_for(tmp_path: Path) -> None:
    uri = f"mlflow+sqlite:///{tmp_path}/m.db#x"
    run(uri, "ours", curve(3))
    client = client_of(uri)
    experiment = client.get_experiment_by_name("x")
    assert experiment is not None
    unclear = client.create_run(experiment.experiment_id, run_name="unclear").info.run_id
    client.log_metric(unclear, "eval/a/loss", 1.0)
    client.log_metric(unclear, "metrics/b/LanguageCrossEntropy", 1.0)
    client.set_terminated(unclear)

    assert [record.name for record in MlflowSource(uri).records()] == ["ours"]
    records = MlflowSource(uri, wanted=Wanted(foreign=ForeignRuns(tokens_per_step=1))).records()
    (reason,) = next(record for record in records if record.name == "unclear").exclusions
    assert "metric 'eval/a/loss' looks like Levanter's loss" in reason
    assert [len(record.rows) for record in records if record.name == "ours"] == [3]


def test_runs_of_other_tools_are_read_with_a_file_of_their_mixtures(uri: str) -> None:
    client = client_of(uri)
    experiment = client.create_experiment(uri.partition("#")[2])
    mixtures = {}
    for name, share in (("x", 0.3), ("y", 0.6)):
        run_id = client.create_run(experiment, run_name=name).info.run_id
        points = [
            Metric(metric, value, 1, step)
            for step in (10, 20, 30)
            for metric, value in (
                ("eval_code_loss", 3 - share + 1 / step),
                ("eval_code_runtime", 1.0),
                ("eval_web_loss", 3 + share + 1 / step),
                ("eval_web_runtime", 1.0),
                ("loss", 3.0),
            )
        ]
        client.log_batch(run_id, metrics=points)
        client.set_terminated(run_id)
        mixtures[name] = Mixture({"code": share, "web": 1 - share})

    told = Wanted(foreign=ForeignRuns(mixtures=mixtures, tokens_per_step=1000))
    obs = Observations.from_source(MlflowSource(uri, wanted=told))

    assert obs.domains == ("code", "web")
    assert obs.losses["tokens"].unique().tolist() == [10_000, 20_000, 30_000]
    assert "kept: " in str(obs.notes[0])
    with pytest.raises(ObservationsError, match="--mixtures"):
        Observations.from_source(uri)


@pytest.mark.parametrize(
    ("runs", "steps"), [(6, 6000), (2, 26_000)], ids=["many-runs-one-window", "one-run-above-the-cap"]
)
def test_what_the_bulk_endpoint_cuts_off_is_read_all_the_same(
    shared_server: MlflowServer, runs: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimix_tracking.data.thinning.MOST", 10**6)  # all that was read is to be seen
    uri = f"mlflow+{shared_server.address}#cut-{runs}"
    last = Metric("bimix_eval_loss/a", 2 + 1 / steps, steps, steps)
    ids = [run(uri, f"run-{number}", [last]) for number in range(runs)]
    with closing(sqlite3.connect(shared_server.store.removeprefix("sqlite:///"), timeout=60)) as database, database:
        # As the server writes them, which would take half a minute.
        database.executemany(
            "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES (?, ?, ?, ?, ?, false)",
            ((run_id, last.key, 2 + 1 / s, s, s) for run_id in ids for s in range(1, steps)),
        )

    records = MlflowSource(uri).records()

    assert [record.run_id for record in records] == ids
    for record in records:
        assert [row["bimix/step"] for row in record.rows] == list(range(1, steps + 1))
        assert [row["bimix_eval_loss/a"] for row in record.rows] == [2 + 1 / s for s in range(1, steps + 1)]


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on to a server, but those to `/ajax-api`, which it doesn't know: as other makers' servers do."""

    target = ""
    asked: list[str]

    def forward(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/ajax-api"):
            return self.answer(404, b"not here")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        request = urllib.request.Request(self.target + self.path, body, method=self.command)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=30) as found:
                return self.answer(found.status, found.read())
        except urllib.error.HTTPError as error:
            return self.answer(error.code, error.read())

    do_GET = do_POST = forward  # noqa: N815  # the library's names

    def answer(self, code: int, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        pass


def test_a_server_without_the_bulk_endpoint_is_read_page_by_page(server: str) -> None:
    uri = f"mlflow+{server}#without-bulk"
    run(uri, "one", curve(5))
    asked: list[str] = []
    handler = type("Handler", (Proxy,), {"target": server, "asked": asked})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        (through,) = MlflowSource(f"mlflow+http://127.0.0.1:{proxy.server_address[1]}#without-bulk").records()
    finally:
        proxy.shutdown()
        proxy.server_close()

    (direct,) = MlflowSource(uri).records()
    assert through.rows == direct.rows
    assert any("get-history-bulk" in path for path in asked)
    assert any("metrics/get-history?" in path for path in asked)


CONDITIONS = (
    "",
    "params.model = '122M'",
    "params.model != '122M' and metrics.`bimix/tokens` >= 300",
    "tags.team LIKE 'da%' AND attributes.run_name ILIKE 'T%'",
    "attributes.status = 'FINISHED' and tags.team IS NULL",
    "datasets.name = 'pile' and dataset.context = 'train'",
    "run_id IN ('{first}', 'another')",
    "attributes.start_time > 0",
)


def test_runs_are_those_that_mlflow_itself_finds(store: str) -> None:
    uri = f"{store}#found"
    first = run(uri, "one", curve(6), team="data", **{"mlflow.note.content": "a\nb"})
    client = client_of(uri)
    client.log_param(first, "model", "122M")
    used = mlflow.entities.DatasetInput(
        mlflow.entities.Dataset("pile", "d", "local", "here"),
        [mlflow.entities.InputTag("mlflow.data.context", "train")],
    )
    client.log_inputs(first, [used])
    second = run(uri, "two", [*curve(3), Metric("x", math.nan, 1, 1), Metric("x", math.inf, 1, 2)], status="RUNNING")
    client.log_param(second, "model", "1B")
    client.delete_run(run(uri, "deleted", curve(3)))
    ours, theirs = Store(uri).reader(), Server(lambda: client, "there", http=False)
    experiment = ours.experiment(Choice("found"))
    assert experiment == theirs.experiment(Choice("found")) == theirs.experiment(Choice(id=experiment.id))
    assert experiment == ours.experiment(Choice(id=experiment.id))

    for condition in CONDITIONS:
        asked = condition.format(first=first)
        found, expected = (reader.runs(experiment, asked).runs for reader in (ours, theirs))
        assert [repr(r.info) for r in found] == [repr(r.info) for r in expected], asked
        for one, other in zip(found, expected, strict=True):
            assert (one.data.tags, one.data.params) == (other.data.tags, other.data.params)
            assert repr(sorted(one.data.metrics.items())) == repr(sorted(other.data.metrics.items()))
    tagged = [[r.info.run_id for r in reader.tagged(experiment, "team", "data")] for reader in (ours, theirs)]
    assert tagged == [[first], [first]]
    deleted = run(uri, "gone", [])
    client.delete_run(deleted)
    assert [reader.run(number) for reader in (ours, theirs) for number in (deleted, "nobody")] == [None] * 4


def test_reading_changes_nothing_and_no_name_is_sql(tmp_path: Path) -> None:
    uri = f"mlflow+sqlite:///{tmp_path}/it's a file.db#x' OR '1'='1"
    run(uri, "one", curve(5), **{"bimix.sweep": "'; DROP TABLE metrics; --"})
    (file,) = tmp_path.glob("*.db")
    before = hashlib.sha256(file.read_bytes()).hexdigest()

    assert len(MlflowSource(uri).records()[0].rows) == 5
    reader = Store(uri).reader()
    assert reader.histories(["' OR '1'='1"], ["' OR '1'='1"]) == {}
    assert reader.run("' OR '1'='1") is None
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
