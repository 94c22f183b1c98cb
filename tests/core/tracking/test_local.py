"""Plain files: a run written is the run read, tables are read as sources, and broken files are said or counted."""

from __future__ import annotations

import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import DomainLossRecorder, Observations, open_source, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.tracking.local import JsonlTracker
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import Row, Wanted, WriteBack
from tests.core.proxies import begin

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
    assert [(note.run, note.count) for note in obs.notes if note.action == "excluded"] == [("one", 6)]


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
    with pytest.raises(ObservationsError, match=r"column 'loss/a' must hold a number, got 'diverged'"):
        open_source(f"csv:{path}").observations()


def test_nothing_is_written_back_into_a_table(tmp_path: Path) -> None:
    analysis = WriteBack(tmp_path, RunManifest(("a",), role="analysis"), {}, "note", [], "key")

    with pytest.raises(SourceError, match="use --out DIR"):
        open_source(f"csv:{tmp_path}/sweep.csv").write_back(analysis)


def test_a_table_has_no_runs_and_no_analysis_to_ask_for(tmp_path: Path) -> None:
    table = open_source(f"csv:{tmp_path}/sweep.csv")

    for ask in (table.states, table.records):
        with pytest.raises(SourceError, match="no runs to group, wait for or watch; name the tracker"):
            ask()
    with pytest.raises(SourceError, match="a table holds no analysis"):
        table.find_analysis()


@pytest.mark.parametrize("scheme", ["jsonl", "csv"])
def test_what_plain_files_cannot_be_asked_for_is_refused(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can't be filtered by 'x > 1'"):
        open_source(f"{scheme}:{tmp_path}", wanted=Wanted(filter="x > 1"))
    with pytest.raises(SourceError, match="no runs of other tools"):
        open_source(f"{scheme}:{tmp_path}", wanted=Wanted(foreign=ForeignRuns.__new__(ForeignRuns)))


def test_a_run_that_is_going_is_set_aside_unless_it_is_asked_for(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    begin(uri, "done", sweep="s").finish()
    going = begin(uri, "going", 0.3, sweep="s")

    source = open_source(uri)
    assert [(state.name, state.sweep, state.status) for state in source.states()] == [
        ("done", "s", "finished"),
        ("going", "s", "running"),
    ]
    (_, record) = source.records()
    assert (record.manifest.sweep, record.rows) == ("s", [])
    (note,) = (note for note in source.observations().notes if note.run == "going")
    assert str(note) == "excluded: the run is not finished: it is going, or died (run 'going'; 1×)"
    obs = open_source(uri, wanted=Wanted(unfinished=True)).observations()
    assert obs.runs == ("done", "going")
    assert obs.losses["run"].value_counts().to_dict() == {"done": 8, "going": 8}
    going.finish()


def test_a_run_whose_manifest_is_being_written_is_going_and_one_that_ended_without_is_named(tmp_path: Path) -> None:
    source = open_source(f"jsonl:{tmp_path}")
    (tmp_path / "young").mkdir()
    assert source.states() == []  # its tracker has made the folder, and nothing in it
    (tmp_path / "young" / "manifest.json").write_text('{"domains": ["a"', encoding="utf-8")

    (state,) = source.states()
    assert (state.name, state.status, state.sweep, state.ended) == ("young", "running", None, None)
    with pytest.raises(SourceError, match=r"no finished run in it .*, 1 unfinished"):
        source.records()
    (tmp_path / "young" / "FINISHED").touch()
    (state,) = source.states()
    assert (state.status, state.trouble is not None and "manifest.json: it is not JSON" in state.trouble) == (
        "failed",
        True,
    )


def test_a_run_of_curves_alone_has_ended_and_says_its_sweep(tmp_path: Path) -> None:
    begin(f"jsonl:{tmp_path}", "one", sweep="s").finish()
    for name in ("manifest.json", "rows.jsonl", "FINISHED"):
        (tmp_path / "one" / name).unlink()

    (state,) = open_source(f"jsonl:{tmp_path}").states()

    assert (state.sweep, state.status) == ("s", "finished")


def analysis(folder: Path, key: str, text: str) -> WriteBack:
    made = folder / f"made-{text}"
    (made / "exports").mkdir(parents=True, mode=0o700)
    (made / "mixture.yaml").write_text(text, encoding="utf-8")
    (made / "exports" / "list.txt").write_text("x", encoding="utf-8")
    return WriteBack(made, RunManifest(("a",), role="analysis"), {}, "# note", [], key)


def test_an_analysis_is_written_once_and_the_newest_is_recommended(tmp_path: Path) -> None:
    source = open_source(f"jsonl:{tmp_path / 'runs'}")
    assert source.find_analysis() is None

    place = source.write_back(analysis(tmp_path, "aaaa", "first"))
    source.write_back(analysis(tmp_path, "bbbb", "second"))

    assert (source.find_analysis(), source.find_analysis("aaaa"), source.find_analysis("cccc")) == (
        "second",
        "first",
        None,
    )
    assert source.write_back(analysis(tmp_path, "aaaa", "again")) == place == str(tmp_path / "runs/analysis/aaaa")
    assert source.find_analysis() == source.find_analysis("aaaa") == "first"
    assert sorted(path.name for path in Path(place).iterdir()) == ["exports", "mixture.yaml", "note.md"]
    assert Path(place).stat().st_mode == (tmp_path / "runs").stat().st_mode  # not its owner's only
    assert sorted(path.name for path in Path(place).parent.iterdir()) == ["aaaa", "bbbb", "recommended"]


def test_of_an_analysis_written_by_many_at_once_there_is_one_and_it_is_whole(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path / 'runs'}"
    many = [analysis(tmp_path, "aaaa", str(number)) for number in range(16)]

    with ThreadPoolExecutor(8) as pool:
        places = set(pool.map(lambda one: open_source(uri).write_back(one), many))

    (place,) = places
    assert {path.name for path in Path(place).iterdir()} == {"exports", "mixture.yaml", "note.md"}
    assert [path.name for path in Path(place).parent.iterdir() if path.name.startswith(".")] == []


def test_an_analysis_stays_in_its_folder_and_is_whole_or_not_there(tmp_path: Path) -> None:
    source = open_source(f"jsonl:{tmp_path / 'runs'}")
    for key in ("../x", "/x", ".", ""):
        with pytest.raises(SourceError, match="is not the name of a file inside"):
            source.write_back(analysis(tmp_path / f"of-{len(key)}", key, "x"))
        with pytest.raises(SourceError, match="is not the name of a file inside"):
            source.find_analysis(key)
    (tmp_path / "runs").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(SourceError, match="the analysis was not written"):
        source.write_back(analysis(tmp_path, "aaaa", "first"))
    with pytest.raises(SourceError, match="its analysis cannot be read"):
        source.find_analysis()


@pytest.mark.parametrize("file", ["recommended", "aaaa/mixture.yaml"])
def test_an_analysis_that_is_no_plain_file_is_told_and_nothing_waits_for_it(file: str, tmp_path: Path) -> None:
    source = open_source(f"jsonl:{tmp_path / 'runs'}")
    source.write_back(analysis(tmp_path, "aaaa", "first"))
    broken = tmp_path / "runs" / "analysis" / file
    for make, why in (
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/full"), "is not a regular file"),
        (lambda path: path.write_bytes(b"\xff"), "is not UTF-8"),
        (lambda path: path.write_bytes(b"x" * (2**24 + 1)), "more than the"),
    ):
        broken.unlink()
        make(broken)
        with pytest.raises(SourceError, match=f"its analysis cannot be read: .*{why}"):
            source.find_analysis()


def test_an_artifact_lands_in_its_run_and_nowhere_else(tmp_path: Path) -> None:
    tracker = JsonlTracker(f"jsonl:{tmp_path}", run_name="one")
    tracker.start(RunManifest(("a",)))
    (tmp_path / "outside").mkdir()
    (tmp_path / "one" / "link").symlink_to(tmp_path / "outside")

    tracker.write_artifact("bimix/figures/curves.svg", "<svg/>")

    assert (tmp_path / "one" / "figures" / "curves.svg").read_text(encoding="utf-8") == "<svg/>"
    for path in ("bimix/../x", "link/x", ".", "bimix/"):
        with pytest.raises(SourceError, match="is not the name of a file inside"):
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


def test_a_second_run_of_a_name_that_is_finished_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first = train(tmp_path, "one", 0.2)
    with pytest.warns(UserWarning, match="run 'one' is there and finished; this one is 'one-2', in"):
        again = train(tmp_path, "one", 0.4)

    assert rows_in(tmp_path / "one") == first
    assert rows_in(tmp_path / "one-2") == again
    assert Observations.from_source(f"jsonl:{tmp_path}").runs == ("one", "one-2")


@pytest.mark.parametrize("end", ["killed", "failed"])
def test_a_run_of_a_name_that_died_is_put_aside(end: str, tmp_path: Path) -> None:
    dead = JsonlTracker(f"jsonl:{tmp_path}", run_name="one")
    dead.start(RunManifest(("a",)))
    dead.log([Row(1, 1.0, {"x": 1.0})])
    if end == "failed":
        dead.finish(ended=False)
    del dead  # and its lock with it
    again = train(tmp_path, "one", 0.4)

    assert rows_in(tmp_path / "one") == again
    assert len(list((tmp_path / "one").glob("rows.jsonl.*.old"))) == 1
    assert Observations.from_source(f"jsonl:{tmp_path}").runs == ("one",)


def rows_in(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


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
    assert note.reason == "evaluated after the mixture changed at step 4: laws take one mixture per run"


def test_shares_of_two_domains_that_are_each_other_s_are_named_as_swapped(tmp_path: Path) -> None:
    for name, tokens in (("fine", [500, 200, 300]), ("swapped", [200, 500, 300]), ("turned", [300, 500, 200])):
        mixture = dict(zip(DOMAINS, (0.5, 0.2, 0.3), strict=True))
        recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(f"jsonl:{tmp_path}", run_name=name))
        recorder.add([0, 1, 2], [3.0 * count for count in tokens], tokens)
        recorder.add([0, 1, 2], [len(name) + 0.1, 2.1, 1.1], split="eval")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recorder.log_train(1)
            recorder.log_eval(1)
            recorder.finish()

    notes = Observations.from_source(f"jsonl:{tmp_path}").notes

    assert [(note.run, note.domain) for note in notes if "are swapped" in note.reason] == [("swapped", None)]
    assert "its realised shares of 'c++' and 'web/en' are swapped (0.2 and 0.5)" in str(notes[0])
    assert [note.domain for note in notes if note.run == "turned"] == list(DOMAINS)


def test_realised_shares_off_the_mixture_are_in_the_notes(tmp_path: Path) -> None:
    train(tmp_path, "as-told", 0.4)
    train(tmp_path, "other", 0.1)

    notes = Observations.from_source(f"jsonl:{tmp_path}").notes

    assert {(note.run, note.domain) for note in notes if note.action == "kept; nominal share used"} == {
        ("other", domain) for domain in DOMAINS
    }
    assert any(note.reason == "its realised share was 0.4, its nominal share 0.1" for note in notes)
