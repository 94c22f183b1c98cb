"""A run has one living writer; who comes second has a run of its own, and is told."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import subprocess
import sys
import warnings
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from bimix_tracking import DomainLossRecorder, Observations, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.files import writer_lock
from bimix_tracking.recording.delivery import Delivery
from bimix_tracking.tracking import ports
from bimix_tracking.tracking.ports import Row
from tests.core.memory import Tracker

MANIFEST = RunManifest(("a",))
both = pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "20")


def steps_of(tracker: object) -> list[float]:
    assert isinstance(tracker, Tracker)
    return [row["s"] for row in tracker.rows]


def feed(delivery: Delivery, *steps: int) -> None:
    for step in steps:
        delivery.add({"s": float(step)}, step, MANIFEST)


def saved(delivery: Delivery) -> dict[str, object]:
    state: dict[str, object] = json.loads(json.dumps(delivery.state_dict()))
    return state


@both
def test_of_two_resumes_of_one_checkpoint_the_second_has_a_run_of_its_own(remote: bool) -> None:
    made = Delivery(Tracker(remote=remote))
    feed(made, 1, 2)
    state = saved(made)
    del made
    first, second = Delivery(Tracker(remote=remote)), Delivery(Tracker(remote=remote))
    first.load_state_dict(state)
    feed(first, 3)
    with pytest.warns(UserWarning, match=rf"run {state['run_id']} is not resumed.*continues in a new run"):
        second.load_state_dict(state)
    feed(second, 3)
    feed(first, 4)
    feed(second, 4)
    first.finish(MANIFEST, {})
    second.finish(MANIFEST, {})

    assert isinstance(first.tracker, Tracker)
    assert isinstance(second.tracker, Tracker)
    assert first.tracker.resumed == (state["run_id"], 2)
    assert second.tracker.resumed is None
    assert first.key == state["key"] != second.key
    assert {3.0, 4.0} <= set(steps_of(first.tracker))
    assert steps_of(second.tracker) == [3.0, 4.0]
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


@both
def test_who_made_a_checkpoint_that_another_goes_on_from_has_a_run_of_its_own_from_there_on(remote: bool) -> None:
    made, resumed = Delivery(Tracker(remote=remote)), Delivery(Tracker(remote=remote))
    feed(made, 1, 2)
    resumed.load_state_dict(saved(made))
    feed(resumed, 3)
    old = made.tracker
    with pytest.warns(UserWarning, match="was taken over by a recorder that loaded its checkpoint"):
        feed(made, 30)
    feed(resumed, 4)
    made.finish(MANIFEST, {})
    resumed.finish(MANIFEST, {})

    assert 30.0 not in steps_of(old)
    assert steps_of(made.tracker) == [30.0]
    assert {3.0, 4.0} <= set(steps_of(resumed.tracker))


class Alone:
    """A third party's tracker that makes no other of its place."""

    remote, certain, run_id, run_name, uri = False, True, "theirs", None, "alone:"

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.ended = False

    def adopt_active(self) -> None: ...

    def resume(self, *_: object) -> list[dict[str, float]]:
        return []

    def start(self, manifest: RunManifest) -> None: ...

    def log(self, rows: list[Row]) -> None:
        self.steps += [row.step for row in rows]

    def write_artifact(self, path: str, text: str) -> None: ...

    def finish(self, *, ended: bool = True) -> None:
        self.ended = ended


def test_a_tracker_that_makes_no_other_is_opened_again_by_its_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Alone] = []

    def open_(uri: str) -> Alone:
        assert uri == "alone:"
        opened.append(Alone())
        return opened[-1]

    monkeypatch.setattr(ports, "open_tracker", open_)
    first = Alone()
    recorder = DomainLossRecorder(["a"], tracker=first)  # type: ignore[arg-type]  # that is the test
    recorder.add([0], [1.0])
    recorder.log_train(1)
    made, resumed = Delivery(Alone()), Delivery(Alone())  # type: ignore[arg-type]
    feed(made, 1)
    resumed.load_state_dict(saved(made))

    recorder.restart()
    recorder.add([0], [1.0])
    recorder.log_train(7)
    with pytest.warns(UserWarning, match=r"was taken over by a recorder.*continues in a new run"):
        feed(made, 30)

    assert (first.steps, first.ended) == ([1], False)
    assert [found.steps for found in opened] == [[7], [30]]
    recorder.finish()
    made.finish(MANIFEST, {})
    resumed.finish(MANIFEST, {})


def test_a_tracker_that_cannot_be_opened_again_is_nobody_elses_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_(uri: str) -> Alone:
        raise SourceError(f"{uri} is no more")

    monkeypatch.setattr(ports, "open_tracker", open_)
    alone = Alone()
    made, resumed = Delivery(alone), Delivery(Alone())  # type: ignore[arg-type]  # that is the test
    feed(made, 1)
    resumed.load_state_dict(saved(made))

    with (
        pytest.warns(UserWarning, match="alone: is no more"),
        pytest.warns(UserWarning, match="can't open another, and stops writing"),
    ):
        feed(made, 30)

    assert alone.steps == [1]
    assert made.tracker is None


def test_a_resumed_recorder_that_is_gone_does_not_keep_the_next_from_going_on() -> None:
    made = Delivery(Tracker())
    feed(made, 1)
    state = saved(made)
    for _ in range(3):  # a notebook's tries
        again = Delivery(Tracker())
        again.load_state_dict(state)
        feed(again, 2)
        assert isinstance(again.tracker, Tracker)
        assert again.tracker.resumed == (state["run_id"], 1)
        del again
        gc.collect()


OTHER = """
import json, sys
from bimix_tracking import DomainLossRecorder, open_tracker
recorder = DomainLossRecorder(["a", "b"], {"a": 0.5, "b": 0.5}, open_tracker(sys.argv[1], run_name="same"))
recorder.add([0, 1], [1.0, 1.0])
recorder.add([0, 1], [1.0, 1.0], split="eval")
recorder.log_train(1)
recorder.log_eval(1)
print(json.dumps(recorder.state_dict()), flush=True)
sys.stdin.read()
"""


def test_of_two_processes_that_write_one_name_or_resume_one_run_the_second_has_its_own(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    command = [sys.executable, "-c", OTHER, uri]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        state = json.loads(other.stdout.readline())
        recorder = DomainLossRecorder(["a", "b"], {"a": 0.2, "b": 0.8}, open_tracker(uri, run_name="same"))
        with pytest.warns(UserWarning, match=r"'same' is being written.*'same-2'"):
            recorder.start()
        second = DomainLossRecorder(["a", "b"], {"a": 0.5, "b": 0.5}, open_tracker(uri, run_name="same"))
        with pytest.warns(UserWarning, match="is not resumed"):
            second.load_state_dict(state)
        with pytest.warns(UserWarning, match="'same-3'"):
            second.start()
        other.kill()
        other.wait()
    third = DomainLossRecorder(["a", "b"], {"a": 0.5, "b": 0.5}, open_tracker(uri, run_name="same"))
    third.load_state_dict(state)  # killed with -9: its lock is gone with it
    for one in (recorder, second, third):
        one.add([0, 1], [1.0, 1.0])
        one.add([0, 1], [1.0, 1.0], split="eval")
        one.log_train(2)
        one.log_eval(2)
        one.finish()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["same", "same-2", "same-3"]
    steps = {run: set(rows["step"]) for run, rows in Observations.from_source(uri).losses.groupby("run")}
    assert steps == {"same": {1, 2}, "same-2": {2}, "same-3": {1, 2}}  # its curves have what it made before


def _wait(there: Barrier, over: Event) -> None:
    there.wait(20)
    over.wait(20)


@pytest.mark.skipif(os.name == "nt", reason="there are no locks")
def test_a_forked_worker_that_outlives_its_trainer_does_not_keep_the_lock(tmp_path: Path) -> None:
    held = writer_lock.lock(tmp_path / "lock")
    assert held is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking with threads, Python 3.12 and later
        context = multiprocessing.get_context("fork")
        there, over = context.Barrier(2), context.Event()
        worker = context.Process(target=_wait, args=(there, over))
        worker.start()
        there.wait(20)
    assert writer_lock.lock(tmp_path / "lock") is None
    held.forget()  # as when the trainer is killed: nothing is removed
    again = writer_lock.lock(tmp_path / "lock")
    over.set()
    worker.join()

    assert again is not None
    again.release()
    assert not (tmp_path / "lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="there are no locks")
def test_a_folder_of_locks_that_is_another_s_or_a_link_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder = tmp_path / f"bimix-locks-{os.getuid()}"
    folder.symlink_to(tmp_path / "elsewhere")
    assert writer_lock.lock_training("k") is not None
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    assert writer_lock.lock_training("k") is not None
    assert not list((tmp_path / "elsewhere").iterdir()) + list(folder.iterdir())

    folder.chmod(0o700)
    first = writer_lock.lock_training("k")
    assert first is not None
    assert writer_lock.lock_training("k") is None
    assert writer_lock.lock_training("other") is not None
    first.release()
    assert writer_lock.lock_training("k") is not None
