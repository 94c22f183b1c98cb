"""Nothing is rewritten in place: killed or without room, what was acknowledged is there, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bimix_tracking import DomainLossRecorder, open_source, open_tracker, replay
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import SourceError
from bimix_tracking.files import atomic_file
from bimix_tracking.recording import replaying
from bimix_tracking.recording.journal import Journal
from bimix_tracking.recording.outbox import Outbox
from bimix_tracking.tracking.jsonl_tracker import JsonlTracker
from bimix_tracking.tracking.ports import Row, Wanted
from tests.core.files import killed_rewrites
from tests.core.memory import Tracker

MANIFEST = RunManifest(("a",))


def killed(kind: str, folder: Path) -> list[dict[str, object]]:
    command = [sys.executable, "-m", killed_rewrites.__name__, str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def acknowledged(said: object) -> tuple[set[int], set[int]]:
    """Return the rows that must be there, and those that may be."""
    assert isinstance(said, list)
    must, may = set[int](), set[int]()
    for text in said:
        what, number = text.split()
        if what == "made":
            must.add(int(number))
        elif what == "mark":  # at the tracker: the journal may drop it
            must -= set(range(int(number)))
        else:
            may |= {row for row in must if row >= int(number)}
            must -= may
    return must, may


def test_a_journal_that_is_killed_at_any_step_has_each_row_once(tmp_path: Path) -> None:
    lives = killed("journal", tmp_path)
    assert len(lives) > 60
    for life in lives:
        folder = Path(str(life["folder"])) / "j"
        must, _ = acknowledged(life["said"])
        if not (folder / "delivery.json").exists():
            assert not must
            continue
        journal = Journal.open(folder)
        rows = journal.rows(0, 99)
        steps = [row.step for row in rows]
        assert steps == sorted(set(steps)), life
        assert must <= set(steps), life
        assert rows == [killed_rewrites.row(step) for step in steps]
        # A row's number is its step: what is delivered is never more than the tracker has.
        assert journal.delivered <= 4
        assert journal.rows(journal.delivered, 99) == [row for row in rows if row.step >= journal.delivered]
        journal.append(killed_rewrites.row(journal.written))
        assert journal.rows(0, 99)[-1].step == journal.written - 1
        journal.remove()


def test_a_run_that_is_killed_at_any_step_of_its_resume_has_each_row_once(tmp_path: Path) -> None:
    lives = killed("resumed", tmp_path)
    assert len(lives) > 15
    for life in lives:
        folder = Path(str(life["folder"]))
        must, _ = acknowledged(life["said"])
        again = JsonlTracker(f"jsonl:{folder}")
        again.resume("r", 99)
        again.start(MANIFEST)
        again.log([killed_rewrites.row(50)])
        rows = [json.loads(line) for line in (folder / "r" / "rows.jsonl").read_text().splitlines()]
        steps = [int(row["bimix/step"]) for row in rows[:-1]]
        assert steps == sorted(set(steps)), life
        assert set(range(killed_rewrites.CHECKPOINT)) | must <= set(steps)


def spoilt(tmp_path: Path, rows: int = 5, delivered: int = 0) -> Journal:
    journal = Journal(tmp_path / "spool" / "j", tracker="memory:", key="k")
    journal.begin(MANIFEST.to_dict())
    for step in range(rows):
        journal.append(killed_rewrites.row(step))
    journal.mark(delivered, "r")
    journal.close()
    return journal


@pytest.mark.parametrize(
    ("marks", "rows"),
    [
        ({"delivered": 4}, 2),
        ({"delivered": 99, "dropped": 50}, 5),
        ({"dropped": 3, "delivered": 1}, 5),
        ({"before": -3, "delivered": -1}, 5),
        ({"delivered": 10**30}, 0),
    ],
)
def test_marks_and_rows_that_disagree_are_clamped_and_nothing_spins(
    marks: dict[str, int], rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = spoilt(tmp_path)
    mark, lines = journal.directory / "delivery.json", journal.directory / "rows.jsonl"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | marks))
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(keepends=True)[:rows]))
    tracker = Tracker()
    monkeypatch.setattr(replaying, "open_tracker", lambda _: tracker)

    (sent,) = replay(journal.directory)

    assert sent.error is None
    delivered = max(marks.get("delivered", 0), 0)
    assert [row["bimix/step"] for row in tracker.rows] == list(range(min(delivered, rows), rows))


def test_a_run_that_is_gone_keeps_its_journal_until_it_is_sent_elsewhere(tmp_path: Path) -> None:
    journal = spoilt(tmp_path, delivered=5)
    mark = journal.directory / "delivery.json"
    uri = f"jsonl:{tmp_path / 'runs'}"
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"tracker": uri}))

    (kept,) = replay(tmp_path / "spool")
    assert "there is no run 'r' any more" in str(kept)
    assert "--tracker" in str(kept)
    (sent,) = replay(tmp_path / "spool", tracker=uri)

    assert (sent.rows, sent.error) == (5, None)
    (state,) = open_source(uri).states()
    assert state.status == "failed"


def test_broken_lines_are_skipped_counted_and_kept_and_all_rows_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = spoilt(tmp_path, delivered=1)
    path = journal.directory / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:20] + b"\xff\n"
    lines.insert(4, b'{"bimix/step": 3}\n')
    path.write_bytes(b"".join([*lines, b'{"bimix/step": 9, "cut o']))
    tracker = Tracker()
    monkeypatch.setattr(replaying, "open_tracker", lambda _: tracker)

    (sent,) = replay(journal.directory)

    assert [row["bimix/step"] for row in tracker.rows] == [1, 3, 4]
    assert "2 damaged lines were skipped" in str(sent)
    assert f"see {journal.directory / 'broken.jsonl'}" in str(sent)
    assert [found.name for found in journal.directory.iterdir()] == ["broken.jsonl"]


def test_a_journal_that_has_fewer_rows_than_it_counts_does_not_spin() -> None:
    class Odd(Journal):
        def __init__(self) -> None:
            pass

        closed, delivered, written = False, 0, 3

        def waiting(self, first: int) -> int:
            return 3

        def rows(self, first: int, most: int) -> list[Row]:
            return []

    with pytest.raises(SourceError, match="fewer rows than it counts"):
        Outbox(Tracker(), Odd()).send()


def test_rows_after_a_line_that_a_full_disk_cut_off_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = JsonlTracker(f"jsonl:{tmp_path}", run_name="r")
    tracker.start(MANIFEST)
    tracker.log([killed_rewrites.row(0)])
    whole = atomic_file.write

    def full(file: int, data: bytes) -> None:
        os.write(file, data[:30])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file, "write", full)
    with pytest.raises(OSError, match="No space"):
        tracker.log([killed_rewrites.row(1), killed_rewrites.row(2)])
    monkeypatch.setattr(atomic_file, "write", whole)
    path = tmp_path / "r" / "rows.jsonl"
    assert len(path.read_bytes().splitlines()) == 1
    with path.open("ab") as file:
        file.write(b'{"bimix/step": 7, "x": ')  # of a process that was killed
    tracker.log([killed_rewrites.row(3)])

    assert [json.loads(line)["bimix/step"] for line in path.read_text().splitlines()] == [0, 3]


def test_a_resume_that_the_disk_has_no_room_for_loses_nothing_and_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recorder() -> DomainLossRecorder:
        return DomainLossRecorder(["a", "b"], {"a": 0.5, "b": 0.5}, open_tracker(f"jsonl:{tmp_path}", run_name="r"))

    first = recorder()
    for step in range(1, 9):
        first.add([0, 1], [1.0, 1.0])
        first.log_train(step)
        if step == 4:
            state = first.state_dict()
    del first
    whole = atomic_file.write

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    second = recorder()
    monkeypatch.setattr(atomic_file, "write", full)
    with pytest.warns(UserWarning, match="No space left"):
        second.load_state_dict(state)
    path = tmp_path / "r" / "rows.jsonl"
    assert len(path.read_text().splitlines()) == 8
    monkeypatch.setattr(atomic_file, "write", whole)
    for step in range(5, 7):
        second.add([0, 1], [1.0, 1.0])
        second.log_train(step)
    second.finish()

    assert [json.loads(line)["bimix/step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


def test_a_resume_over_garbage_skips_it(tmp_path: Path) -> None:
    tracker = JsonlTracker(f"jsonl:{tmp_path}", run_name="r")
    tracker.start(MANIFEST)
    tracker.log([killed_rewrites.row(step) for step in range(3)])
    tracker.release()
    with (tmp_path / "r" / "rows.jsonl").open("ab") as file:
        file.write(b'\xff\n[]\n{"bimix/step": "x"}\n\n{"bimix/step": 8}\n{"cut')

    again = JsonlTracker(f"jsonl:{tmp_path}")
    assert again.resume("r", 2) == [{"bimix/step": 2.0, "x": 1 / 3}, {"bimix/step": 8.0}]
    again.start(MANIFEST)
    again.finish()
    (record,) = open_source(f"jsonl:{tmp_path}", wanted=Wanted(unfinished=True)).records()
    assert len(record.rows) == 2
