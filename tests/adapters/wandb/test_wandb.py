"""A run into W&B: the unmodified SDK and its sidecar, against a server on loopback, a dead one, and none."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wandb
from bimix_integrations.trackers.wandb import WandbOfflineSource, WandbSource, WandbTracker
from bimix_integrations.trackers.wandb import tracker as tracker_module
from bimix_integrations.trackers.wandb.offline.run_file import read_file
from bimix_integrations.trackers.wandb.rows import is_ours

from bimix_tracking import open_tracker
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.ports import Row
from tests.adapters.wandb.wandb_server import KEY, WandbServer, look_again

HOSTILE = ("c", "c++", "a.b/c", 'x"; drop', "日本語", "<b>*</b>")
MIXTURE = {name: 1 / len(HOSTILE) for name in HOSTILE}
MANIFEST = RunManifest(HOSTILE, Mixture(MIXTURE), sweep="pilot", tokenizer="t", model_size=10**12)

pytestmark = pytest.mark.usefixtures("no_run_left")


def rows(first: int, last: int, *, at: float = 0.0) -> list[Row]:
    """Return evaluations of all domains, at steps first … last."""
    return [Row(step, 1000.0 + step + at, numbers(step)) for step in range(first, last + 1)]


def numbers(step: int) -> dict[str, float]:
    losses = {
        metric_names.key(metric_names.EVAL_LOSS, name): 3.0 + place + 1 / step for place, name in enumerate(HOSTILE)
    }
    return {metric_names.STEP: step, metric_names.TOKENS: 100.0 * step, **losses}


def comparable(row: Mapping[str, float]) -> dict[str, str]:
    """Return the row so that NaN is NaN, and 1 is 1.0."""
    return {name: repr(float(value)) for name, value in row.items()}


def started(project: str, *, run_id: str | None = None, kept: int = 0) -> WandbTracker:
    tracker = open_tracker(f"wandb:{project}", run_name="a run")
    assert isinstance(tracker, WandbTracker)
    if run_id is not None:
        tracker.resume(run_id, kept)
    tracker.start(MANIFEST)
    return tracker


def read(project: str) -> list[dict[str, float]]:
    (record,) = WandbSource(f"wandb:local/{project}").records()
    return [dict(row) for row in record.rows]


def test_a_run_comes_back_whole_whatever_its_domains_and_values(server: WandbServer) -> None:
    tracker = started("round")
    logged = rows(1, 5)
    bad = {
        metric_names.key(metric_names.EVAL_LOSS, "c"): math.nan,
        metric_names.key(metric_names.EVAL_LOSS, "c++"): math.inf,
    }
    logged[2] = logged[2]._replace(metrics={**logged[2].metrics, **bad})
    tracker.log(logged[:2])
    tracker.start(MANIFEST)  # the manifest has grown
    tracker.log(logged[2:])
    tracker.finish()
    tracker.finish()

    assert wandb.run is None
    (record,) = WandbSource("wandb:local/round").records()
    assert record.manifest == MANIFEST
    assert list(record.manifest.mixture or ()) == list(HOSTILE)
    assert list(map(comparable, record.rows)) == [
        comparable({**row.metrics, metric_names.TIME: row.time}) for row in logged
    ]
    run = server.only("round")
    assert (run.state, run.display_name, tracker.uri) == ("finished", "a run", "wandb:local/round")
    assert run.config["bimix"]["value"]["slugs"][metric_names.slug("c++")] == "c++"
    defined = json.dumps(run.config["_wandb"]["value"]["m"])
    assert all(name in defined for name in numbers(1))


def test_of_a_resumed_run_the_newest_rows_count_once(server: WandbServer) -> None:
    first = started("resumed")
    first.log(rows(1, 4))
    first.finish()
    tracker = WandbTracker("wandb:resumed")
    later = tracker.resume(first.run_id or "", 2)
    assert [row[metric_names.STEP] for row in later] == [1, 2, 3, 4]
    tracker.start(MANIFEST)
    tracker.log(rows(2, 3))  # a replay: the server has these
    tracker.log(rows(3, 3, at=0.5))
    changed = {**numbers(4), metric_names.key(metric_names.EVAL_LOSS, "c"): 2.5}
    tracker.log([Row(4, 2000.0, changed), *rows(5, 5)])
    tracker.finish()

    assert server.only("resumed").values(metric_names.STEP) == [1, 2, 3, 4, 3, 4, 5]
    (record,) = WandbSource("wandb:resumed").records()
    assert [row[metric_names.STEP] for row in record.rows] == [1, 2, 3, 4, 5]
    assert record.rows[3][metric_names.key(metric_names.EVAL_LOSS, "c")] == 2.5
    assert list(record.exclusions.values()) == [1]  # one value was another one


KILLED = """
import os, signal, sys
from tests.adapters.wandb.test_wandb import MANIFEST, rows, started
tracker = started("{project}")
tracker.log(rows(1, 300))
print(tracker.run_id, os.environ["WANDB_DIR"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def alone() -> dict[str, str]:
    """Return the environment of a process with a sidecar of its own."""
    root = Path(__file__).parents[3]
    paths = os.pathsep.join([str(root), str(root / "integrations")])
    kept = {name: value for name, value in os.environ.items() if name not in {"WANDB_SERVICE", "WANDB_MODE"}}
    return kept | {"PYTHONPATH": paths}


def killed(project: str) -> tuple[str, Path]:
    """Return the id and the folder of a run whose process was killed with all rows still in its sidecar."""
    command = [sys.executable, "-c", KILLED.format(project=project)]
    done = subprocess.run(command, env=alone(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_id, folder = done.stdout.split()
    (file,) = Path(folder).glob(f"wandb/run-*-{run_id}/run-{run_id}.wandb")
    written(file, 100)
    return run_id, file.parent


def written(file: Path, rows: int, *, ended: bool = False) -> None:
    """Wait until the sidecar, which is a process of its own, has written so many rows, and how the run ended."""
    deadline = time.monotonic() + 60
    while len((found := read_file(file, is_ours)).rows) < rows or (ended and found.exit_code is None):
        assert time.monotonic() < deadline, file
        time.sleep(0.05)


def test_rows_of_a_killed_process_arrive_when_they_are_sent_again(server: WandbServer) -> None:
    run_id, folder = killed("killed")
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(folder)]
    subprocess.run(command, env=alone(), capture_output=True, text=True, check=True, timeout=120)
    arrived = server.only("killed").values(metric_names.STEP)
    assert arrived == list(range(1, len(arrived) + 1))  # but for the last 32 KiB of the file
    assert 100 < len(arrived) < 301
    tracker = started("killed", run_id=run_id, kept=300)
    tracker.log(rows(1, 302))
    tracker.finish()

    assert server.only("killed").values(metric_names.STEP) == list(range(1, 303))
    assert [row[metric_names.STEP] for row in read("killed")] == list(range(1, 303))


def test_two_runs_at_a_time_are_two_runs(server: WandbServer) -> None:
    def train(first: int) -> None:
        tracker = started("two")
        tracker.log(rows(first, first + 20))
        tracker.finish()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(train, (1, 101)))

    assert sorted(run.values(metric_names.STEP) for run in server.of("two")) == [[*range(1, 22)], [*range(101, 122)]]


def test_a_rate_limit_is_waited_for(server: WandbServer) -> None:
    server.refused = (3, 429, {"RateLimit-Reset": "1", "Retry-After": "1"})
    tracker = started("limited")
    tracker.log(rows(1, 3))
    tracker.finish()

    assert server.refused[0] == 0
    assert server.only("limited").values(metric_names.STEP) == [1, 2, 3]


def test_a_dead_server_is_told_at_once(server: WandbServer, monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://me:{KEY}@127.0.0.1:{closed_port}")
    for call in (lambda: started("dead"), lambda: WandbTracker("wandb:e/dead").resume("abc", 1)):
        with pytest.raises(SourceError, match="no W&B server answers") as told:
            call()
        assert KEY not in str(told.value)
        assert str(closed_port) in str(told.value)
    assert not server.of("dead")


def test_rows_that_a_dying_server_didn_t_take_are_on_the_disk(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "FLUSH_SECONDS", 1.0)
    tracker = started("dying")
    server.stop()
    try:
        tracker.log(rows(1, 3))
        with pytest.raises(SourceError, match="wandb sync --include-online") as told:
            tracker.finish()
    finally:
        server.start()
    with pytest.raises(SourceError, match="wandb sync"):  # it is not as if they had been taken
        tracker.finish()
    with pytest.raises(SourceError, match="wandb sync"):
        tracker.log(rows(1, 3))
    folder = str(told.value).rpartition(" ")[2]
    written(next(Path(folder).glob("run-*.wandb")), 3)
    (record,) = WandbOfflineSource(f"wandb-offline:{folder}").records()
    assert [row[metric_names.STEP] for row in record.rows] == [1, 2, 3]


def test_offline_a_run_is_files_that_are_read_and_synced(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    look_again()
    before = server.operations.total()
    tracker = started("offline")
    tracker.log(rows(1, 3))
    assert WandbTracker("wandb:offline").resume(tracker.run_id or "", 1) == []
    tracker.write_artifact(CURVES, "{}")
    tracker.finish()
    assert server.operations.total() == before
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written(file, 3)

    (record,) = WandbOfflineSource(f"wandb-offline:{tmp_path}").records()
    assert (record.manifest, [row[metric_names.STEP] for row in record.rows]) == (MANIFEST, [1, 2, 3])
    with pytest.raises(SourceError, match="WANDB_MODE is offline"):
        WandbSource("wandb:local/offline").records()
    command = [sys.executable, "-m", "wandb", "sync", str(file.parent)]
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=alone())
    monkeypatch.undo()
    look_again()
    assert [row[metric_names.STEP] for row in read("offline")] == [1, 2, 3]


def test_disabled_nothing_is_written_and_nothing_fails(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = started("disabled")
    tracker.log(rows(1, 3))
    tracker.write_artifact(CURVES, "{}")
    tracker.finish()
    assert not server.of("disabled")


def test_the_api_key_is_in_nothing_that_was_sent(server: WandbServer) -> None:
    tracker = started("secret")
    tracker.log(rows(1, 1))
    tracker.write_artifact(CURVES, "{}")
    tracker.finish()
    sent = [json.dumps([run.config, run.rows, run.summary]) for run in server.of("secret")]
    assert not any(KEY in text for text in sent)
    assert not any(KEY.encode() in blob for blob in server.blobs.values())
