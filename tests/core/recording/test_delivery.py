"""Delivery: whatever a tracker, a disk or a process does, each row arrives, in order, and training doesn't wait."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import DomainLossRecorder, Observations
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.recording import sender
from bimix_tracking.recording.delivery import Delivery
from bimix_tracking.recording.journal import Journal
from bimix_tracking.recording.outbox import Outbox
from bimix_tracking.recording.replaying import replay
from bimix_tracking.recording.spool import journals
from bimix_tracking.tracking.ports import Row
from tests.core.memory import Tracker

DOMAINS = ("code", "web", "math")
MANIFEST = RunManifest(DOMAINS)
both = pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "20")
    monkeypatch.setattr(sender, "_FIRST_PAUSE", 0.05)


def feed(recorder: DomainLossRecorder, steps: range) -> None:
    for step in steps:
        recorder.add([0, 1, 2], [3.0 / step, 2.0, 1.0], [step, 1, 2])
        if step % 2 == 0:
            recorder.log_train(step)
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0 * step], split="eval")
            recorder.log_eval(step)


def train(recorder: DomainLossRecorder) -> None:
    feed(recorder, range(1, 10))
    recorder.finish(9)


def recorder_of(tracker: Tracker) -> DomainLossRecorder:
    return DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3), tracker)


def left(directory: str | None = None) -> Path:
    """Return the one journal there is."""
    (folder,) = journals(Path(directory or os.environ["BIMIX_SPOOL"]))
    return folder


@both
@pytest.mark.parametrize("fails", ["start", "log", "artifact", "finish"])
def test_a_tracker_that_fails_neither_stops_training_nor_loses_a_row(
    fails: str, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.5")
    recorder = recorder_of(Tracker(fails, remote=remote))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recorder)

    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert f"the tracker failed (ConnectionError: no {fails}). Training continues" in said[0]
    assert f"bimix replay {left()}" in said[1]
    kept = Observations.from_source(f"jsonl:{left().parent}")
    assert sorted(set(kept.losses["step"])) == [2, 4, 6, 8]


@both
@pytest.mark.parametrize("fails", ["start", "log", "artifact", "finish"])
def test_a_tracker_that_recovers_gets_every_row_in_order(fails: str, remote: bool) -> None:
    steady, shaky = Tracker(remote=remote), Tracker(fails, times=1, remote=remote)

    train(recorder_of(steady))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recorder_of(shaky))

    if remote or fails in ("start", "log"):
        assert shaky.rows == steady.rows
        assert shaky.files == steady.files
        assert not Path(os.environ["BIMIX_SPOOL"]).exists()
    else:  # a local tracker is asked once at the end, not again and again
        assert shaky.rows == steady.rows
        assert left().exists()
    assert "the tracker failed" in str(caught[0].message)


def test_training_does_not_wait_for_a_slow_tracker() -> None:
    go_on = threading.Event()

    class Slow(Tracker):
        def log(self, rows: Sequence[Row]) -> None:
            go_on.wait(20)
            super().log(rows)

    tracker = Slow(remote=True)
    recorder = recorder_of(tracker)
    feed(recorder, range(1, 10))  # would hang here, and the test with it
    assert tracker.rows == []
    go_on.set()
    recorder.finish(9)

    assert [row["bimix/step"] for row in tracker.rows] == [2, 2, 4, 4, 6, 6, 8, 8, 9]
    assert tracker.ended


def test_what_the_end_could_not_wait_for_is_sent_by_the_thread_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.2")
    go_on = threading.Event()

    class Slow(Tracker):
        def finish(self, *, ended: bool = True) -> None:
            go_on.wait(20)
            super().finish()

    tracker = Slow(remote=True)
    recorder = recorder_of(tracker)
    feed(recorder, range(1, 10))
    run = recorder._delivery._run
    assert run is not None
    sender = run.sender
    assert sender is not None
    with pytest.warns(UserWarning, match="are kept in"):
        recorder.finish(9)
    go_on.set()
    sender._thread.join(20)

    assert tracker.ended
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


def test_a_journal_is_there_before_the_tracker_and_gone_after_the_end() -> None:
    tracker = Tracker(remote=True)
    recorder = recorder_of(tracker)
    feed(recorder, range(1, 4))
    rows = (left() / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["bimix/step"] for line in rows] == [2, 2]
    recorder.finish(3)

    assert not Path(os.environ["BIMIX_SPOOL"]).exists()
    recorder.add([0], [1.0], split="eval")
    recorder.log_eval(3)  # an evaluation after the end
    recorder.finish()
    assert [row["bimix/step"] for row in tracker.rows] == [2, 2, 3, 3]
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


@both
def test_a_disk_that_takes_nothing_does_not_end_training_either(
    remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.5")
    (tmp_path / "bimix-spool").write_text("a file where the folder should be", encoding="utf-8")
    tracker = Tracker("log", remote=remote)
    recorder = recorder_of(tracker)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(recorder)

    assert "9 rows are lost with this process" in str(caught[-1].message)


def test_without_a_place_for_a_journal_a_tracker_that_works_gets_everything(tmp_path: Path) -> None:
    (tmp_path / "bimix-spool").write_text("a file where the folder should be", encoding="utf-8")
    tracker = Tracker(remote=True)
    recorder = recorder_of(tracker)
    with pytest.warns(UserWarning, match=r"no journal can be written .* set BIMIX_SPOOL"):
        train(recorder)

    assert [row["bimix/step"] for row in tracker.rows] == [2, 2, 4, 4, 6, 6, 8, 8, 9]
    assert tracker.ended


FULL = """
import resource, sys, warnings
from tests.core.memory import Tracker
from bimix_tracking import DomainLossRecorder
warnings.simplefilter("ignore")
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond the limit fails, as on a full disk
tracker = Tracker(remote=True)
recorder = DomainLossRecorder(["a"], {"a": 1.0}, tracker)
for step in range(1, 60):
    if step == 20:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    recorder.add([0], [1.0])
    recorder.log_train(step)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.finish()
print([int(row["bimix/step"]) for row in tracker.rows] == list(range(1, 60)), tracker.ended)
"""


def test_a_disk_that_fills_up_in_mid_run_costs_no_row() -> None:
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)

    assert done.stdout == "True True\n", done.stderr


@both
def test_an_interrupted_run_goes_on_at_its_tracker_with_what_it_hasn_t_got_yet(remote: bool) -> None:
    first = recorder_of(Tracker("log", remote=remote))
    assert first.tracker is not None
    first.tracker.run_id = "r1"
    with pytest.warns(UserWarning, match="the tracker failed"):
        feed_until_trouble(first, range(1, 6))
    state = json.loads(json.dumps(first.state_dict()))
    feed(first, range(6, 8))  # lost with the process, and made again

    tracker = Tracker(remote=remote)
    second = recorder_of(tracker)  # the journal of the first, in a notebook, is taken over
    second.load_state_dict(state)
    feed(second, range(6, 8))
    second.finish()

    assert tracker.resumed == ("r1", 4)
    assert [row["bimix/step"] for row in tracker.rows] == [2, 2, 4, 4, 6, 6]
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


def feed_until_trouble(recorder: DomainLossRecorder, steps: range) -> None:
    feed(recorder, steps)
    run = recorder._delivery._run
    sender = None if run is None else run.sender
    deadline = time.monotonic() + 20
    while sender is not None and not sender.trouble and time.monotonic() < deadline:
        time.sleep(0.01)
    assert run is not None
    recorder._delivery._tell_trouble(run)


def test_rows_after_a_checkpoint_come_back_from_the_journal() -> None:
    first = recorder_of(Tracker(remote=True))
    feed(first, range(1, 6))
    state = json.loads(json.dumps(first.state_dict()))
    feed(first, range(6, 9))

    second = Delivery(Tracker(remote=True))
    later = second.load_state_dict(state["delivery"])

    assert [row["bimix/step"] for row in later] == [6, 6, 8, 8]


def test_a_password_in_an_error_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.2")

    class Talkative(Tracker):
        uri = "memory+https://me:secret@host#x"

        def log(self, rows: Sequence[Row]) -> None:
            raise ConnectionError("no answer from https://me:secret@host/api?token=secret")

    recorder = recorder_of(Talkative(remote=True))
    with pytest.warns(UserWarning, match="tracker") as caught:
        train(recorder)

    files = [path.read_text(encoding="utf-8") for path in left().iterdir()]
    assert "no answer from https://host/api?token=***" in str(caught[0].message)
    assert not any("secret" in text for text in [*files, *(str(warning.message) for warning in caught)])


metrics = st.dictionaries(st.text("abc/", min_size=1), st.floats(allow_nan=False), max_size=4)


@given(st.lists(metrics, max_size=6), st.integers(0, 6), st.integers(0, 40))
def test_a_journal_cut_off_anywhere_is_its_first_rows(
    tmp_path_factory: pytest.TempPathFactory, made: list[dict[str, float]], delivered: int, cut: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"), tracker="memory:")
    journal.begin(MANIFEST.to_dict())
    rows = [Row(step, 5.0 + step, {"bimix/step": step, **row}) for step, row in enumerate(made)]
    for row in rows:
        journal.append(row)
    journal.mark(min(delivered, len(rows)), "r")
    journal.close()
    path = journal.directory / "rows.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: max(len(content) - cut, 0)])

    again = Journal.open(journal.directory)

    whole = again.rows(0, 100)
    assert whole == rows[: len(whole)]
    assert len(whole) == again.written == content[: max(len(content) - cut, 0)].count(b"\n")
    new = Row(99, 1.0, {"bimix/step": 99})
    again.append(new)
    assert again.rows(0, 100) == [*whole, new]
    again.remove()
    assert not journal.directory.exists()


def test_a_journal_has_a_size_and_gives_up_what_was_delivered_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", tracker="memory:", largest=520)
    journal.begin(MANIFEST.to_dict())
    rows = [Row(step, 1.0, {"bimix/step": float(step), "x": 1.5}) for step in range(20)]
    for row in rows[:6]:
        journal.append(row)
    journal.mark(4, "r")
    for row in rows[6:10]:
        journal.append(row)

    assert (tmp_path / "j" / "rows.jsonl").stat().st_size <= 520
    assert (journal.dropped, journal.written, journal.rows(4, 99)) == (4, 10, rows[4:10])
    with pytest.raises(OSError, match="has reached"):
        list(map(journal.append, rows[10:14]))
    journal.close()
    assert Journal.open(tmp_path / "j").rows(4, 2) == rows[4:6]


def test_a_journal_that_a_process_writes_is_nobody_elses(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bimix_tracking.recording.journal import Journal;"
        "j = Journal(Path(sys.argv[1])); j.begin({}); print('there', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "j")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(SourceError, match="being written by a process that still runs"):
            Journal.open(tmp_path / "j")
        other.kill()
    Journal.open(tmp_path / "j").close()


def test_a_folder_without_a_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no journal"):
        journals(tmp_path)
    (tmp_path / "delivery.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="is not a readable journal"):
        Journal.open(tmp_path)


def test_many_small_rows_go_in_few_calls() -> None:
    calls: list[int] = []

    class Counting(Tracker):
        def log(self, rows: Sequence[Row]) -> None:
            calls.append(len(rows))
            super().log(rows)

    outbox = Outbox(Counting())
    for step in range(1000):
        outbox.put(Row(step, 0.0, {str(n): 0.0 for n in range(10)}))
    outbox.put(Row(1000, 0.0, {str(n): 0.0 for n in range(5000)}))
    outbox.send()

    assert calls == [100] * 10 + [1]
    assert outbox.empty


def test_a_manifest_that_grows_while_rows_are_sent_comes_before_the_end() -> None:
    told: list[str] = []

    class Noting(Tracker):
        def start(self, manifest: RunManifest) -> None:
            told.append(f"start {manifest.eval_set}")

        def log(self, rows: Sequence[Row]) -> None:
            if "log" not in told:  # as the training thread does meanwhile
                outbox.put_manifest(dataclasses.replace(MANIFEST, eval_set="e"))
                outbox.put(Row(2, 0.0, {}))
                outbox.put_curves("{}")
            told.append("log")

        def finish(self, *, ended: bool = True) -> None:
            told.append("finish")

    outbox = Outbox(Noting())
    outbox.put_manifest(MANIFEST)
    outbox.put(Row(1, 0.0, {}))
    outbox.send()

    assert told == ["start None", "log", "start e", "log", "finish"]


@pytest.mark.skipif(os.name == "nt", reason="rights are others there")
def test_a_journal_is_its_owners_alone_whatever_the_umask_and_made_so_where_it_is_there(tmp_path: Path) -> None:
    def rights() -> dict[str, int]:
        found = [tmp_path / "spool", *(tmp_path / "spool").rglob("*")]
        return {path.name: path.stat().st_mode & 0o777 for path in found}

    folder = tmp_path / "spool" / "run"
    before = os.umask(0)
    try:
        journal = Journal(folder, tracker="memory:")
        journal.begin({"name": "r"})
        journal.append(Row(1, 1.0, {"x": 1.0}))
        journal.end("{}")
        files = ("manifest.json", "rows.jsonl", "delivery.json", "curves.json", "lock")
        assert rights() == {"spool": 0o700, "run": 0o700, **dict.fromkeys(files, 0o600)}
        journal.close()
        folder.chmod(0o755)
        for path in folder.iterdir():
            path.chmod(0o644)

        Journal.open(folder).close()

        assert rights() == {"spool": 0o700, "run": 0o700, **dict.fromkeys(files, 0o600)}
    finally:
        os.umask(before)


def test_a_replay_that_fails_says_where_credentials_are_taken_from(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", tracker="nowhere+https://host#x")
    journal.begin(MANIFEST.to_dict())
    journal.close()

    (sent,) = replay(tmp_path)
    (told,) = replay(tmp_path, tracker="nowhere+https://me:hunter2@host#x")

    assert "The journal holds no credentials" in str(sent)
    assert "PGPASSWORD" in str(sent)
    assert "--tracker" in str(sent)
    assert "holds no credentials" not in str(told)
    assert "hunter2" not in str(told)
