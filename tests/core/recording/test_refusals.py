"""What a tracker refuses for good is left out, kept and told; what follows arrives. Troubles are told once a kind."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from bimix_tracking import replay
from bimix_tracking.data.histories import rows_of
from bimix_tracking.data.manifest import CURVES, RunManifest
from bimix_tracking.recording import replaying, sender
from bimix_tracking.recording.delivery import Delivery
from bimix_tracking.recording.delivery_warnings import Troubles
from bimix_tracking.recording.journal import Journal
from bimix_tracking.tracking.ports import Row
from tests.core.memory import Tracker

MANIFEST = RunManifest(("a",))
both = pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "20")
    monkeypatch.setattr(sender, "_FIRST_PAUSE", 0.05)


def train(delivery: Delivery, bad: int = 0) -> list[str]:
    """Deliver 40 rows and return what was told."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, 41):
            row = {"s": float(step), "good": 1.0, "more": 2.0} | ({"reward/mean@1": 1.0} if step >= bad > 0 else {})
            delivery.add(row, step, MANIFEST)
        delivery.finish(MANIFEST, {"rows": []})
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


@both
def test_one_name_that_is_refused_is_left_out_and_told_once_and_all_else_arrives(remote: bool) -> None:
    tracker = Tracker(remote=remote, refuses=lambda name, _: "@" in name)

    said = train(Delivery(tracker), bad=3)

    steps = sorted({row["s"] for row in tracker.rows if "s" in row})
    assert steps == list(range(1, 41))
    assert sum(row.get("good", 0) + row.get("more", 0) for row in tracker.rows) == 40 * 3
    assert tracker.ended
    assert len(said) == 2
    assert "refuses 'reward/mean@1'" in said[0]
    assert "no metric 'reward/mean@1'" in said[0]
    assert "refused 38 values of 1 metrics" in said[1]
    assert len(tracker.calls) < 40 + 38 + 200  # by its name, once it is known
    if remote:
        (kept,) = Path(os.environ["BIMIX_SPOOL"]).glob("*/*")
        assert kept.name == "refused.jsonl"
        assert [json.loads(line)["reward/mean@1"] for line in kept.read_text().splitlines()] == [1.0] * 38


def test_what_is_refused_by_its_name_is_kept_too_where_another_name_is_refused_beside_it() -> None:
    tracker = Tracker(remote=True, refuses=lambda name, _: "@" in name)
    delivery = Delivery(tracker)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(1, 41):
            later = {"b@1": 2.0} if step > 20 else {}
            delivery.add({"s": float(step), "a@1": 1.0, **later}, step, MANIFEST)
            until = time.monotonic() + 20
            while step == 20 and len(tracker.rows) < 20 and time.monotonic() < until:
                time.sleep(0.005)  # its name is known before the other comes
        delivery.finish(MANIFEST, {"rows": []})

    (kept,) = Path(os.environ["BIMIX_SPOOL"]).glob("*/refused.jsonl")
    found = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sorted(row["bimix/step"] for row in found if "a@1" in row) == list(range(1, 41))
    assert sorted(row["bimix/step"] for row in found if "b@1" in row) == list(range(21, 41))
    assert sorted(row["s"] for row in tracker.rows if "s" in row) == list(range(1, 41))


def test_a_value_that_is_refused_does_not_take_the_name_s_other_values_along() -> None:
    tracker = Tracker(remote=True, refuses=lambda name, value: name == "s" and value in (3, 4, 5))

    train(Delivery(tracker))

    assert sorted(row["s"] for row in tracker.rows if "s" in row) == [1, 2, *range(6, 41)]


@both
@pytest.mark.parametrize("what", ["artifact", "finish"])
def test_a_refused_artifact_or_end_is_told_once_and_the_metrics_count(what: str, remote: bool) -> None:
    tracker = Tracker(remote=remote, refused=[what])

    said = train(Delivery(tracker))

    assert len(tracker.rows) == 40
    assert tracker.ended == (what == "artifact")
    (one,) = said
    assert f"never a {what}" in one
    assert (CURVES in tracker.files) == (what == "finish")
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


@both
@pytest.mark.parametrize("when", [1, 20])
def test_a_run_that_is_refused_keeps_all_its_rows_for_another_tracker(
    when: int, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deleted(Tracker):
        def log(self, rows: Sequence[Row]) -> None:
            if rows[-1].step >= when:
                self.refused = ("start", "log")
            super().log(rows)

    tracker = Deleted(remote=remote)
    said = train(Delivery(tracker))

    assert sum("never a start" in text for text in said) == 1
    assert "--tracker" in said[-1] or not remote
    assert tracker.calls.count("start") < 50
    other = Tracker()
    other.uri = "memory:other"
    monkeypatch.setattr(replaying, "open_tracker", lambda _: other)
    (sent,) = replay(os.environ["BIMIX_SPOOL"], tracker="memory:other")
    assert sent.error is None
    assert other.resumed is None or other.resumed[0] is None
    assert {row["s"] for row in tracker.rows} | {row["s"] for row in other.rows} == set(range(1, 41))
    assert other.ended
    assert other.manifests == [MANIFEST]


def test_rows_that_only_the_old_tracker_has_are_said_by_a_replay_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", tracker="memory:", key="k", name="n")
    journal.before = 7
    journal.begin(MANIFEST.to_dict())
    journal.append(Row(8, 1.0, {"s": 8.0}))
    journal.mark(1, "r")
    journal.close()
    other = Tracker()
    other.uri = "memory:other"
    monkeypatch.setattr(replaying, "open_tracker", lambda _: other)

    (sent,) = replay(tmp_path, tracker="memory:other")

    assert "the 7 rows before these are only at memory:" in str(sent)
    assert "is marked as failed (resuming reopens it)" in str(sent)
    assert (other.rows, other.key, other.run_name, other.failed) == (
        [{"bimix/step": 8, "s": 8.0}],
        "k",
        "n",
        True,
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_run_that_was_killed_before_its_first_row_is_failed_by_a_replay(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j", tracker="memory:", key="k")
    journal.begin(MANIFEST.to_dict())
    journal.mark(0, "r" if known else None)
    journal.close()
    tracker = Tracker()
    monkeypatch.setattr(replaying, "open_tracker", lambda _: tracker)

    (sent,) = replay(tmp_path)

    assert tracker.resumed == ("r" if known else None, 0)
    assert (tracker.key, tracker.failed, sent.error) == ("k", True, None)
    assert not tmp_path.exists()


def test_a_tracker_of_the_protocol_before_is_written_all_the_same() -> None:
    class Old:
        remote, certain, run_id, uri = True, True, None, "old:"
        rows = 0
        __slots__ = ()

        def adopt_active(self) -> None: ...

        def start(self, manifest: RunManifest) -> None: ...

        def log(self, rows: list[Row]) -> None:
            type(self).rows += len(rows)

        def write_artifact(self, path: str, text: str) -> None: ...

        def finish(self) -> None: ...

    assert train(Delivery(Old())) == []  # type: ignore[arg-type]  # that is the test
    assert Old.rows == 40


def test_each_kind_of_trouble_is_told_and_one_that_comes_and_goes_is_no_flood() -> None:
    troubles = Troubles()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(100):
            troubles.failed(ConnectionError(f"no answer from 0x{number:x} after {number} s"))
            troubles.failed(ValueError("x" * number))
            troubles.unwritten(OSError("disk full"))
            if number % 2:
                troubles.written()
        for lost in range(1, 1000):
            troubles.lost(lost)

    said = [str(warning.message) for warning in caught]
    assert sum("ConnectionError" in text for text in said) == 1
    assert sum("ValueError" in text for text in said) == 3
    assert sum("disk full" in text for text in said) == 6  # of 50 times: 1, 2, 4, 8, 16, 32
    assert [text.split()[0] for text in said if "rows are lost" in text] == ["1", "10", "100"]


def test_the_times_of_rows_rise_whatever_the_clock_does_and_across_a_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 100.0, 50.0, *[10.0] * 20])
    monkeypatch.setattr("bimix_tracking.recording.delivery.time.time", lambda: next(clock))
    tracker, again = Tracker(), Tracker()
    first, second = Delivery(tracker), Delivery(again)
    for step in (1, 2, 3):
        first.add({"s": 1.0}, step, MANIFEST)
    second.load_state_dict(first.state_dict())
    second.add({"s": 2.0}, 3, MANIFEST)

    times = tracker.times_of + again.times_of
    assert all(int(later * 1000) > int(one * 1000) for one, later in itertools.pairwise(times))
    points = [(3, tracker.times_of[-1], 1.0), (3, again.times_of[-1], 2.0)]
    assert rows_of({"s": points})[0] == [{"bimix/step": 3.0, "s": 2.0}]


ENDS = """
import os, sys, warnings
from tests.core.memory import Tracker
from bimix_tracking.recording.delivery import Delivery
from bimix_tracking.data.manifest import RunManifest
warnings.simplefilter("error")
class Told(Tracker):
    def finish(self, *, ended=True):
        print("ended" if ended else "failed", len(self.rows), flush=True)
trackers = [Told(remote=remote) for remote in (False, True)]
deliveries = [Delivery(tracker) for tracker in trackers]
unused = Delivery(Told(remote=True))
for delivery in deliveries:
    delivery.add({"s": 1.0}, 1, RunManifest(("a",)))
if sys.argv[1] == "fork":
    if os.fork() == 0:
        sys.exit()
    os.wait()
if sys.argv[1] == "finish":
    for delivery in deliveries:
        delivery.finish(RunManifest(("a",)), {})
if sys.argv[1] == "fail":
    for delivery in deliveries:
        delivery.fail(RunManifest(("a",)))
        delivery.finish(RunManifest(("a",)), {})  # a `finally` after it changes nothing
if sys.argv[1] == "raise":
    1 / 0
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [("raise", "failed 1"), ("exit", "failed 1"), ("fork", "failed 1"), ("fail", "failed 1"), ("finish", "ended 1")],
)
def test_a_run_that_nobody_ends_has_failed_when_the_interpreter_exits(how: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS, how], capture_output=True, text=True, check=False)

    assert done.stdout.splitlines() == [told] * 2, done.stderr
    assert ("Error" in done.stderr) == (how == "raise")
    assert not Path(os.environ["BIMIX_SPOOL"]).exists()


def test_a_failure_that_the_tracker_does_not_hear_of_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_FLUSH_SECONDS", "0.2")
    delivery = Delivery(Tracker("log", remote=True))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        delivery.add({"s": 1.0}, 1, MANIFEST)
        delivery.fail(MANIFEST)
    assert "1 rows and the run's end are kept in" in str(caught[-1].message)
    (folder,) = Path(os.environ["BIMIX_SPOOL"]).iterdir()
    assert (folder / "FAILED").exists()
    tracker = Tracker()
    monkeypatch.setattr(replaying, "open_tracker", lambda _: tracker)

    (sent,) = replay(folder)

    assert (tracker.rows, tracker.failed, sent.ended, sent.error) == (
        [{"bimix/step": 1, "s": 1.0}],
        True,
        False,
        None,
    )
