"""Beside a run of the host's: a run of its own, or rows in a logger's that move none; what the environment says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
from bimix_integrations.trackers.wandb import WandbOfflineSource, WandbSource, WandbTracker, guest

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES
from bimix_tracking.errors import RefusedError, SourceError
from bimix_tracking.tracking.ports import Row, WriteBack
from tests.adapters.wandb.test_wandb import MANIFEST, numbers, rows, written
from tests.adapters.wandb.wandb_server import WandbServer, look_again

pytestmark = pytest.mark.usefixtures("no_run_left")


@pytest.fixture(name="said")
def _said(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Let a test say something in the environment; `look_again` has the SDK see it."""
    yield monkeypatch
    monkeypatch.undo()
    look_again()


def begun(
    uri: str = "wandb:", *, shares: bool = False, key: str | None = None, name: str | None = None
) -> WandbTracker:
    """Return a tracker with its run open, as `Delivery` opens it: noted by one thread, opened by another."""
    tracker = WandbTracker(uri, run_name=name)
    tracker.key = key
    if shares:
        tracker.share()
    tracker.adopt_active()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(tracker.start, MANIFEST).result()
    return tracker


def ended(tracker: WandbTracker) -> WandbTracker:
    tracker.write_artifact(CURVES, "{}")
    tracker.finish()
    return tracker


def told(run: Any) -> dict[str, Any]:
    """Return what a run's config says of its training."""
    found: dict[str, Any] = run.config["bimix"]["value"]
    return found


def test_beside_a_host_that_logs_by_step_ours_is_a_run_of_its_own(server: WandbServer) -> None:
    host = wandb.init(project="beside", name="driver", notes="its own")
    first = begun()
    for step in range(1, 6):
        host.log({"loss": 1 / step}, step=step)
        first.log(rows(step, step))
    ended(first)
    second = ended(begun(name="another"))
    assert wandb.run is host
    host.log({"loss": 0.0}, step=6)
    host.finish()

    by_id = {run.name: run for run in server.of("beside")}
    theirs, one, two = by_id.pop(host.id), by_id.pop(str(first.run_id)), by_id.pop(str(second.run_id))
    assert not by_id
    assert [(row["_step"], row["loss"]) for row in theirs.rows] == [(s, 1 / s) for s in range(1, 6)] + [(6, 0.0)]
    assert (theirs.display_name, theirs.group, theirs.notes) == ("driver", None, "its own")
    assert "bimix" not in theirs.config
    assert one.values(metric_names.STEP) == [1, 2, 3, 4, 5]
    assert (one.name, one.group, one.job_type) == (first.key, f"driver-{host.id}", "bimix-train")
    assert one.display_name == f"driver-{one.name[:8]}"
    assert (two.display_name, two.group) == ("another", one.group)
    assert told(one)["host"] == {"run_id": host.id, "path": "local/beside"}
    assert {record.run_id for record in WandbSource("wandb:beside").records()} == {one.name, two.name}


def test_a_run_of_another_project_than_the_one_named_is_left_alone(server: WandbServer) -> None:
    host = wandb.init(project="of-the-host")
    tracker = begun("wandb:ours", shares=True)
    tracker.log(rows(1, 1))
    tracker.finish()

    assert wandb.run is host
    assert server.only("ours").values(metric_names.STEP) == [1]
    assert told(server.only("ours"))["host"]["path"] == "local/of-the-host"


def test_a_host_that_opens_its_run_after_ours_gets_its_own(server: WandbServer) -> None:
    tracker = begun("wandb:first")
    host = wandb.init(project="second", reinit="finish_previous")  # nor is ours ended by it
    assert (wandb.run, host.project) == (host, "second")
    tracker.log(rows(1, 1))
    tracker.finish()
    assert server.only("first").values(metric_names.STEP) == [1]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_a_run_beside_one_that_is_offline_is_offline_too(server: WandbServer, tmp_path: Path, mode: Any) -> None:
    """Its code says so, and the environment doesn't; so it is with the folder."""
    host = wandb.init(project="in-code", mode=mode, dir=tmp_path)
    tracker = begun()
    tracker.log(rows(1, 2))
    ended(tracker)
    again = WandbTracker()
    assert again.resume(tracker.run_id, 1) == []
    host.finish()
    assert not server.of("in-code")
    files = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == (2 if mode == "offline" else 0)
    if files:
        written(next(file for file in files if str(tracker.run_id) in file.name), 2, ended=True)
        records = WandbOfflineSource(f"wandb-offline:{tmp_path}").records()
        # The host's file may not be written yet: what is excluded has no rows.
        assert [record.run_id for record in records if record.rows] == [tracker.key]


def test_in_a_loggers_run_rows_are_guests_that_move_none(server: WandbServer) -> None:
    host = wandb.init(project="guest")
    tracker = begun(shares=True)
    assert (tracker.run_id, tracker.owned) == (host.id, False)
    for step in range(1, 4):
        host.log({"loss": 1 / step, "lr": 3})
        train = Row(step, 1000.0 + step, {metric_names.TOKENS: 1.0, f"{metric_names.TRAIN_LOSS}/c": 5.0, "lr": 4.0})
        tracker.log([train, *rows(step, step)])
    tracker.log(rows(4, 6))  # three steps and no row of the host's
    host.log({"loss": 0.25})
    ended(tracker)
    host.log({"loss": 0.2})
    host.finish()

    run = server.only("guest")
    theirs = [(row["_step"], row["loss"]) for row in run.rows if "loss" in row]
    # Until the training ends; then what waits is written, and moves what comes after.
    assert theirs == [(0, 1.0), (1, 1 / 2), (2, 1 / 3), (3, 0.25), (7, 0.2)]
    assert run.values("lr") == [3, 3, 3]
    assert run.values("bimix_more/lr") == [4, 4, 4]
    assert run.summary["lr"] == 3
    (record,) = WandbSource("wandb:guest").records()
    assert [row[metric_names.STEP] for row in record.rows] == [1, 2, 3, 4, 5, 6]
    for row in record.rows:
        assert numbers(int(row[metric_names.STEP])).items() <= row.items()
    assert [row.get(f"{metric_names.TRAIN_LOSS}/c") for row in record.rows] == [5.0] * 3 + [None] * 3
    assert len(server.artifacts.versions("guest", f"bimix-run-{host.id}")) == 1


def test_a_host_that_hardly_logs_does_not_keep_ours_waiting(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "LONGEST", 3)
    host = wandb.init(project="seldom")
    tracker = begun(shares=True)
    tracker.log(rows(1, 9))
    host.finish()  # what waits is in no row yet
    tracker.log(rows(10, 10))
    ended(tracker)

    run = server.only("seldom")
    assert (run.values(metric_names.STEP), run.state, run.display_name) == (
        [*range(1, 11)],
        "finished",
        host.name or host.id,
    )
    assert (run.group, run.job_type) == (None, None)  # opened once more, it is the host's all the same


def test_a_logger_s_run_holds_one_training(server: WandbServer) -> None:
    host = wandb.init(project="twice")
    first = begun(shares=True)
    at_once = begun(shares=True)
    assert first.run_id == host.id != at_once.run_id
    for tracker in (first, at_once):
        tracker.log(rows(1, 1))
        ended(tracker)
    third = first.another()
    third.adopt_active()
    third.start(MANIFEST)
    assert third.run_id not in {host.id, at_once.run_id}
    ended(third)
    host.finish()
    assert len({told(run)["key"] for run in server.of("twice")}) == len(server.of("twice")) == 3


def test_a_training_that_is_resumed_goes_on_in_the_logger_s_run(server: WandbServer) -> None:
    host = wandb.init(project="goes-on")
    first = begun(shares=True)
    first.log(rows(1, 2))
    host.finish(exit_code=1)
    for resumed in (host.id, None):
        host = wandb.init(project="goes-on", id=host.id, resume="must")
        tracker = WandbTracker()
        tracker.key = first.key
        tracker.share()
        assert resumed is None or tracker.resume(resumed, 2)
        tracker.adopt_active()
        tracker.start(MANIFEST)
        assert (tracker.run_id, tracker.owned) == (host.id, False)
        tracker.log(rows(1, 3))
        ended(tracker)
        host.finish()
    assert server.only("goes-on").values(metric_names.STEP) == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("shares", [False, True])
def test_a_training_that_fails_is_no_finished_run(server: WandbServer, *, shares: bool) -> None:
    project = f"fails-{shares}"
    host = wandb.init(project=project) if shares else None
    tracker = begun(f"wandb:{project}", shares=shares)
    tracker.log(rows(1, 1))
    tracker.finish(ended=False)
    if host is not None:
        host.finish()
    source = WandbSource(f"wandb:{project}")
    assert [state.status for state in source.states()] == ["failed"]
    with pytest.raises(SourceError, match="the run is not finished"):
        source.records()
    (file,) = Path(os.environ["WANDB_DIR"]).glob(f"wandb/run-*-{tracker.run_id}/run-*.wandb")
    written(file, 1)
    assert [state.status for state in WandbOfflineSource(f"wandb-offline:{file}").states()] == ["failed"]

    again = WandbTracker(f"wandb:{project}")
    again.key = tracker.key
    assert [row[metric_names.STEP] for row in again.resume(tracker.run_id, 1)] == [1]
    again.start(MANIFEST)
    again.log(rows(1, 2))
    ended(again)
    assert [state.status for state in source.states()] == ["finished"]
    assert server.only(project).values(metric_names.STEP) == [1, 2]


def test_an_analysis_is_no_run_of_the_host_s(server: WandbServer, said: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said.setenv("WANDB_RUN_ID", "job12345")
    said.setenv("WANDB_SWEEP_ID", "s1")
    look_again()
    trained = ended(begun("wandb:analysed-there"))
    (tmp_path / "mixture.yaml").write_text("mixture: {}")
    analysis = WriteBack(tmp_path, replace(MANIFEST, role="analysis"), {}, "note", [str(trained.run_id)], "k", "one")
    location = WandbSource("wandb:analysed-there").write_back(analysis)
    assert not location.endswith("job12345")
    assert [(run.job_type, run.sweep) for run in server.of("analysed-there")] == [
        (None, None),
        ("bimix-analysis", None),
    ]


@pytest.mark.parametrize(("error", "kept"), [(ValueError, [1, 3]), (TimeoutError, [1, 2, 3])])
def test_of_a_guest_s_rows_one_that_is_refused_holds_no_others(error: type[Exception], kept: list[int]) -> None:
    host = wandb.init(mode="disabled")
    wrote, errors = list[float](), [error()]

    def write(run: wandb.Run, row: Mapping[str, float], closes: bool) -> None:
        assert (run, closes) == (host, True)
        if row[metric_names.STEP] == 2 and errors:
            raise errors.pop()
        wrote.append(row[metric_names.STEP])

    waiting = guest.GuestRows(write)
    for step in (1, 2, 3):
        waiting.put({metric_names.STEP: step})
    with pytest.raises(error):
        waiting.pass_on(host)
    waiting.close(host)
    assert wrote == kept


SURROUNDINGS = {
    "WANDB_RUN_ID": "job12345", "WANDB_RESUME": "must", "WANDB_NOTES": "the job's", "WANDB_JOB_TYPE": "driver",
    "WANDB_NAME": "job", "WANDB_TAGS": "night", "WANDB_RUN_GROUP": "nightly",
}  # fmt: skip


@pytest.mark.parametrize("hosted", [False, True])
def test_what_the_environment_says_of_a_run_is_the_hosts(
    server: WandbServer, said: pytest.MonkeyPatch, *, hosted: bool
) -> None:
    project = f"surroundings-{hosted}"
    server.run(project, "job12345", create=True)  # it must be there
    for name, value in SURROUNDINGS.items():
        said.setenv(name, value)
    look_again()
    host = wandb.init(project=project) if hosted else None
    trackers = [begun(f"wandb:{project}", key=f"{number}" * 32) for number in (1, 2)]
    for tracker in trackers:
        tracker.log(rows(1, 1))
        ended(tracker)
    settings = wandb.setup().settings
    assert (settings.run_id, settings.resume, settings.run_name) == ("job12345", "must", "job")
    if host is not None:
        host.finish()

    theirs, *ours = server.of(project)
    assert [run.name for run in ours] == ["1" * 32, "2" * 32]
    assert theirs.values(metric_names.STEP) == []
    for run in ours:
        said_of_ours = ("job-" + run.name[:8], "bimix-train", "beside run job12345") if hosted else (
            "job", "driver", "the job's"
        )  # fmt: skip
        assert (run.display_name, run.job_type, run.notes) == said_of_ours
        assert (run.group, run.tags) == ("nightly", ["night"])
        assert told(run)["host"]["run_id"] == "job12345"


@pytest.mark.filterwarnings("ignore:unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK's own
@pytest.mark.parametrize("hosted", [False, True])
def test_a_run_beside_one_of_a_sweep_is_found_by_the_sweep(
    server: WandbServer, said: pytest.MonkeyPatch, tmp_path: Path, *, hosted: bool
) -> None:
    project = f"swept-{hosted}"
    (tmp_path / "parameters.yaml").write_text("wandb_version: 1\nlr: {value: 0.5}\n")
    said.setenv("WANDB_SWEEP_ID", "s1")
    said.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "parameters.yaml"))
    said.setenv("WANDB_RUN_ID", "agent1")
    said.setenv("WANDB_PROJECT", project)
    look_again()
    host = wandb.init(project=project) if hosted else None
    assert host is None or (host.id, host.sweep_id, host.config["lr"]) == ("agent1", "s1", 0.5)
    tracker = begun(key="a" * 32)
    tracker.log(rows(1, 1))
    ended(tracker)
    if host is not None:
        host.log({"loss": 1.0})
        host.finish()
    assert wandb.setup().settings.sweep_id == "s1"

    (ours,) = [run for run in server.of(project) if run.name == "a" * 32]
    # Without a run of the host's, ours is the job's: the sweep's page has it, under an id of its own.
    assert (ours.sweep, "lr" in ours.config) == ((None, False) if hosted else ("s1", True))
    assert told(ours)["host"]["sweep"] == "s1"
    said.delenv("WANDB_PROJECT")
    found = WandbSource(f"wandb:local/{project}/sweeps/s1").records()
    assert [record.run_id for record in found] == ["a" * 32]
    with pytest.raises(SourceError, match="no finished training run"):
        WandbSource(f"wandb:local/{project}/sweeps/s2").records()


def test_a_run_is_found_by_its_key_where_nobody_noted_its_id(server: WandbServer) -> None:
    first = begun("wandb:by-key", key="b" * 32)
    first.log(rows(1, 2))
    first.finish(ended=False)
    tracker = WandbTracker("wandb:by-key")
    tracker.key = "b" * 32
    assert [row[metric_names.STEP] for row in tracker.resume(None, 0)] == [1, 2]
    tracker.start(MANIFEST)
    tracker.log(rows(1, 3))
    ended(tracker)
    assert server.only("by-key").values(metric_names.STEP) == [1, 2, 3]

    other = WandbTracker("wandb:by-key")
    other.key = "c" * 32
    assert other.resume(None, 0) == []
    other.start(MANIFEST)
    assert other.run_id == "c" * 32
    ended(other)


def test_a_deleted_run_is_told_and_another_is_opened(server: WandbServer) -> None:
    ended(begun("wandb:deleted", key="d" * 32))
    server.run("deleted", "e", create=True)
    del server.runs["local", "deleted", "d" * 32]
    tracker = WandbTracker("wandb:deleted")
    tracker.key = "d" * 32
    with pytest.raises(RefusedError, match=f"has no run {'d' * 32} any more"):
        tracker.resume("d" * 32, 2)
    tracker.start(MANIFEST)
    assert tracker.run_id not in {None, "d" * 32}
    ended(tracker)


def test_a_host_s_run_that_must_be_resumed_is_looked_for_where_the_host_is(server: WandbServer) -> None:
    """Lightning opens its run after the checkpoint was read: no project is known then, and nothing is said of it."""
    first = begun("wandb:must", key="f" * 32)
    first.log(rows(1, 2))
    ended(first)
    tracker = WandbTracker()
    assert tracker.resume(first.run_id, 2) == []
    host = wandb.init(project="must", id=first.run_id, resume="must")
    tracker.adopt_active()
    tracker.start(MANIFEST)
    assert (tracker.run_id, tracker.owned) == (host.id, False)
    tracker.log(rows(3, 3))
    ended(tracker)
    host.finish()
    assert server.only("must").values(metric_names.STEP) == [1, 2, 3]


def test_in_a_disabled_run_of_a_logger_nothing_fails(server: WandbServer) -> None:
    wandb.init(project="disabled-host", mode="disabled")
    tracker = begun(shares=True)
    tracker.log(rows(1, 3))
    ended(tracker)
    assert not server.of("disabled-host")


@pytest.mark.parametrize("status", [403, 404])
def test_no_right_to_a_project_is_no_outage(server: WandbServer, status: int) -> None:
    server.refused = (1000, status, {})
    with pytest.raises(RefusedError):
        WandbTracker("wandb:local/forbidden").start(MANIFEST)


@pytest.mark.usefixtures("server")
def test_a_project_of_no_possible_name_is_refused() -> None:
    with pytest.raises(RefusedError):
        WandbTracker("wandb:a%25b").start(MANIFEST)


def test_no_name_of_a_metric_is_dropped_or_taken_for_another(server: WandbServer) -> None:
    tracker = begun("wandb:names")
    names = ["", "_step", "_timestamp", "_runtime", "_wandb", "reward/mean@1", "a.b", "a*", "x" * 5000, "日本 語"]
    tracker.log(
        [Row(1, 1000.0, {metric_names.TOKENS: 1.0} | {name: float(n) for n, name in enumerate(names)}), *rows(2, 2)]
    )
    ended(tracker)
    (row, _) = server.only("names").rows
    assert sorted(value for value in row.values() if value in range(10)) == [0, 0, 1, 1, 1, *range(2, 10)]
    assert row["_timestamp"] > 1e9
    assert [row["a*"], row["bimix_more/_step"], row["bimix_more/"]] == [7, 1, 0]
    assert [row[metric_names.STEP] for row in WandbSource("wandb:names").records()[0].rows] == [1, 2]
