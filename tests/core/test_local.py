"""Plain files: a run written is the run read, tables are read as sources, and broken files are said or counted."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import DomainLossRecorder, Observations, open_source, open_tracker
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.local import JsonlTracker
from bimix_tracking.manifest import RunManifest
from bimix_tracking.tracking import WriteBack

DOMAINS = ("c++", "web/en", "ä")


def train(folder: Path, name: str, first: float) -> list[dict[str, float]]:
    """Train for three steps and return the rows that the recorder made."""
    mixture = dict(zip(DOMAINS, (first, (1 - first) / 2, (1 - first) / 2), strict=True))
    recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(f"jsonl:{folder}", run_name=name))
    rows = []
    for step in (1, 2, 3):
        recorder.add([0, 1, 2], [3.0, 2.0, 1.0], [40, 30, 30])
        recorder.add([0, 1, 2], [3.0 + first / step, 2.0, 1.0 / step], split="eval")
        rows += [recorder.log_train(step), recorder.log_eval(step)]
    recorder.finish()
    return rows


def test_the_lines_of_a_run_are_the_rows_of_its_recorder(tmp_path: Path) -> None:
    rows = train(tmp_path, "one", 0.2)

    lines = (tmp_path / "one" / "rows.jsonl").read_text(encoding="utf-8").splitlines()

    assert [json.loads(line) for line in lines] == rows
    obs = Observations.from_source(f"jsonl:{tmp_path}")
    got = obs.losses.set_index(["step", "domain"])["loss"]
    for step in (1, 2, 3):
        assert [got[step, d] for d in DOMAINS] == [3.0 + 0.2 / step, 2.0, 1.0 / step]
    assert obs.losses["tokens"].unique().tolist() == [100, 200, 300]


def test_a_line_without_numbers_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    train(tmp_path, "one", 0.2)
    whole = Observations.from_source(f"jsonl:{tmp_path}")
    (tmp_path / "one" / "curves.json").unlink()
    with (tmp_path / "one" / "rows.jsonl").open("a", encoding="utf-8") as rows:
        rows.write('{"bimix/step": null}\n[]\n{"bimix/step": "four"}\n{"bimix/step": {}}\n\n{"bimix_eval_loss/ä": 1}\n')

    obs = Observations.from_source(f"jsonl:{tmp_path}")

    pd.testing.assert_frame_equal(obs.losses, whole.losses)
    assert [(note.run, note.count) for note in obs.notes if note.action == "set aside"] == [("one", 6)]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("curves.json", b"\xff\xfe"),
        ("curves.json", b'{"manifest": {"domains": ["a"]}, "rows": 3}'),
        ("curves.json", b'{"manifest": {"domains": ["a"]}, "rows": [{"bimix/step": null}]}'),
        ("curves.json", b'{"manifest": {"domains": ["a"], "model_size": []}}'),
        ("curves.json", b'{"manifest": {"domains": ["a"], "schema": 99}}'),
        ("manifest.json", b"not json"),
    ],
)
def test_a_run_that_cannot_be_read_is_named(file: str, content: bytes, tmp_path: Path) -> None:
    train(tmp_path, "good", 0.2)
    train(tmp_path, "bad", 0.3)
    if file == "manifest.json":
        (tmp_path / "bad" / "curves.json").unlink()
    (tmp_path / "bad" / file).write_bytes(content)

    with pytest.raises(SourceError, match="run 'bad' cannot be read"):
        Observations.from_source(f"jsonl:{tmp_path}")


def test_progress_counts_the_runs(tmp_path: Path) -> None:
    train(tmp_path, "one", 0.2)
    train(tmp_path, "two", 0.3)
    told: list[tuple[str, int, int]] = []

    Observations.from_source(f"jsonl:{tmp_path}", progress=lambda *progress: told.append(progress))

    assert told == [("reading runs", 1, 2), ("reading runs", 2, 2)]


def test_a_table_is_a_source_of_the_same_numbers(tmp_path: Path) -> None:
    for name, first in (("one", 0.2), ("two", 0.6)):
        train(tmp_path / "runs", name, first)
    pulled = Observations.from_source(f"jsonl:{tmp_path / 'runs'}")
    pulled.to_csv(tmp_path / "sweep.csv")

    read = Observations.from_source(f"csv:{tmp_path / 'sweep.csv'}")

    assert read.domains == DOMAINS
    assert read.data_hash == pulled.data_hash
    assert read.source == f"csv:{tmp_path / 'sweep.csv'}"


def test_a_table_without_runs_takes_each_mixture_for_one(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text("tokens,proportion/a,proportion/b,loss/a\n1e6,0.2,0.8,3\n2e6,0.2,0.8,2.5\n1e6,0.5,0.5,2\n", "utf-8")

    assert Observations.from_csv(path).runs == ("mixture-1", "mixture-2")


def test_a_table_that_is_not_there_or_holds_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        open_source(f"csv:{tmp_path}/nowhere.csv").observations()
    path = tmp_path / "sweep.csv"
    path.write_text("tokens,proportion/a,loss/a\n1e6,1,diverged\n", encoding="utf-8")
    with pytest.raises(ObservationsError, match=r"column 'loss/a' must hold numbers: .*'diverged'"):
        open_source(f"csv:{path}").observations()


def test_nothing_is_written_back_into_a_table(tmp_path: Path) -> None:
    analysis = WriteBack(tmp_path, RunManifest(("a",), role="analysis"), {}, "note", [], "key")

    with pytest.raises(SourceError, match="use --out DIR"):
        open_source(f"csv:{tmp_path}/sweep.csv").write_back(analysis)


def test_an_artifact_lands_in_its_run_and_nowhere_else(tmp_path: Path) -> None:
    tracker = JsonlTracker(f"jsonl:{tmp_path}", run_name="one")
    tracker.start(RunManifest(("a",)))
    (tmp_path / "outside").mkdir()
    (tmp_path / "one" / "link").symlink_to(tmp_path / "outside")

    tracker.write_artifact("bimix/figures/curves.svg", "<svg/>")

    assert (tmp_path / "one" / "figures" / "curves.svg").read_text(encoding="utf-8") == "<svg/>"
    for path in ("bimix/../x", "link/x", ".", "bimix/"):
        with pytest.raises(SourceError, match="is no name of a file inside"):
            tracker.write_artifact(path, "text")
    assert list((tmp_path / "outside").iterdir()) == []


def test_runs_without_a_name_do_not_share_a_folder(tmp_path: Path) -> None:
    one, other = (JsonlTracker(f"jsonl:{tmp_path}") for _ in range(2))

    assert one.directory.parent == other.directory.parent == tmp_path
    assert one.directory != other.directory


def test_a_resumed_run_drops_the_rows_that_will_come_again(tmp_path: Path) -> None:
    whole, first, killed = (
        DomainLossRecorder(DOMAINS, dict.fromkeys(DOMAINS, 1 / 3), open_tracker(f"jsonl:{tmp_path}", run_name=name))
        for name in ("whole", "cut", "cut")
    )

    def feed(recorder: DomainLossRecorder, steps: range) -> None:
        for step in steps:
            recorder.add([0, 1, 2], [3.0, 2.0 / step, 1.0])
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0 / step], split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)

    feed(whole, range(1, 7))
    feed(first, range(1, 4))
    state = json.loads(json.dumps(first.state_dict()))
    feed(first, range(4, 6))  # after the checkpoint, before the kill
    killed.load_state_dict(state)
    feed(killed, range(4, 7))
    whole.finish()
    killed.finish()

    assert (tmp_path / "cut" / "rows.jsonl").read_text() == (tmp_path / "whole" / "rows.jsonl").read_text()
    assert (tmp_path / "cut" / "curves.json").read_text() == (tmp_path / "whole" / "curves.json").read_text()


def test_a_second_run_of_a_name_puts_the_first_one_aside(tmp_path: Path) -> None:
    train(tmp_path, "one", 0.2)
    again = train(tmp_path, "one", 0.4)

    rows = [json.loads(line) for line in (tmp_path / "one" / "rows.jsonl").read_text().splitlines()]
    assert rows == again
    assert len(list((tmp_path / "one").glob("rows.jsonl.*.old"))) == 1
    assert len(Observations.from_source(f"jsonl:{tmp_path}").mixtures) == 1


def test_after_a_change_of_the_mixture_a_run_is_no_run_of_one_mixture(tmp_path: Path) -> None:
    for name, schedule in (("plain", {}), ("annealed", {4: {"c++": 0.6, "web/en": 0.2, "ä": 0.2}})):
        mixture = {"c++": 0.4, "web/en": 0.3, "ä": 0.3}
        tracker = open_tracker(f"jsonl:{tmp_path}", run_name=name)
        recorder = DomainLossRecorder(DOMAINS, mixture, tracker, schedule=schedule)
        for step in (2, 4, 6, 8):
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0], [40, 30, 30])
            recorder.add([0, 1, 2], [3.0, 2.0, 1.0 / step], split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()

    obs = Observations.from_source(f"jsonl:{tmp_path}")

    assert sorted(obs.losses[obs.losses["run"] == "annealed"]["step"].unique()) == [2, 4]
    assert sorted(obs.losses[obs.losses["run"] == "plain"]["step"].unique()) == [2, 4, 6, 8]
    (note,) = (note for note in obs.notes if "changed" in note.reason)
    assert (note.run, note.count) == ("annealed", 2)
    assert note.reason == "evaluated after the mixture changed at step 4: a law has one a run"


def test_realised_shares_off_the_mixture_are_in_the_notes(tmp_path: Path) -> None:
    train(tmp_path, "as-told", 0.4)
    train(tmp_path, "other", 0.1)

    notes = Observations.from_source(f"jsonl:{tmp_path}").notes

    assert {(note.run, note.domain) for note in notes if note.action == "used as told"} == {
        ("other", domain) for domain in DOMAINS
    }
    assert any(note.reason == "its share of the tokens was 0.4, the mixture says 0.1" for note in notes)
