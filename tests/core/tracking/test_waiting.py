"""Waiting for a sweep and watching for sweeps, on a clock of the test's own: sleeping lets the next thing happen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bimix_tracking import DomainLossRecorder, open_source, recommended_mixture
from bimix_tracking.analysis.watching import Event, Watch, analysis_of
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.errors import BimixError, ObservationsError, SourceError, WaitTimeoutError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.local import JsonlSource
from bimix_tracking.tracking.ports import RunState
from bimix_tracking.tracking.waiting import wait_for
from tests.core.proxies import RECOMMENDED, analyses, begin, train

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")


class Days:
    """A clock; sleeping on it lets the next thing happen, and after the last thing, nothing ever."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.time = 1000.0
        self.slept: list[float] = []
        self._next: Iterator[Callable[[], object]] = iter(happenings)

    def clock(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.slept.append(seconds)
        next(self._next, lambda: None)()


class Told(JsonlSource):
    """A folder whose runs are in the states that a test tells: plain files know of no failures."""

    def __init__(self, folder: Path, **told: str) -> None:
        super().__init__(f"jsonl:{folder}")
        self.told = [
            RunState(name, name, "s", status, None if status == "running" else 100.0)  # type: ignore[arg-type]  # literals
            for name, status in told.items()
        ]

    def states(self) -> list[RunState]:
        return self.told


def test_the_runs_are_waited_for_from_before_the_folder_is_there(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}/sweep"
    going: list[DomainLossRecorder] = []

    def finish(number: int) -> None:
        going[number].finish()

    days = Days(
        lambda: going.append(begin(uri, "one")),
        lambda: going.append(begin(uri, "two")),
        lambda: finish(0),
        lambda: finish(1),
    )
    told: list[tuple[str, int, int]] = []

    states = wait_for(uri, 2, every=7, progress=lambda *p: told.append(p), clock=days.clock, sleep=days.sleep)

    assert [(state.name, state.status) for state in states] == [("one", "finished"), ("two", "finished")]
    assert all(state.ended == pytest.approx((tmp_path / "sweep" / state.name / "FINISHED").stat().st_mtime)
               for state in states)  # fmt: skip
    assert days.slept == [7, 7, 7, 7]
    assert [done for what, done, _ in told if what == "waiting for runs to finish"] == [0, 0, 1, 2]
    (note,) = [what for what, _, _ in told if "cannot be read" in what]
    assert note == f"the source cannot be read, looking again every 7 s: {uri}: there is no folder {tmp_path}/sweep"


def test_a_source_that_is_away_for_a_moment_is_asked_again_and_said_once(tmp_path: Path) -> None:
    folder, away = tmp_path / "sweep", tmp_path / "away"
    run = begin(f"jsonl:{folder}", "one")
    days = Days(
        lambda: folder.rename(away),
        lambda: None,
        lambda: away.rename(folder),
        run.finish,
    )
    notes: list[str] = []

    wait_for(f"jsonl:{folder}", 1, progress=lambda what, *_: notes.append(what), clock=days.clock, sleep=days.sleep)

    assert len([note for note in notes if "cannot be read" in note]) == 1
    assert len(days.slept) == 4


def test_when_the_time_is_over_the_text_says_how_far_the_sweep_is(tmp_path: Path) -> None:
    source = Told(tmp_path, a="finished", b="running", c="failed", d="running")
    days = Days(lambda: None, source.told.pop)

    with pytest.raises(WaitTimeoutError) as raised:
        wait_for(source, 4, timeout=100, every=30, clock=days.clock, sleep=days.sleep)

    assert str(raised.value) == (
        "1 of 4 runs had finished after 100 s: running 'b'; failed 'c'; nothing has changed for 40 s. Wait longer "
        "(--timeout), look after those runs, or analyse the 1 finished ones (without --wait)"
    )
    assert days.slept == [30, 30, 30, 10]
    assert isinstance(raised.value, SourceError)  # exit code 4


def test_a_source_that_stays_away_is_named_when_the_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(WaitTimeoutError, match=r"0 of 1 runs of sweep 's' had .* last time: .*there is no folder"):
        wait_for(f"jsonl:{tmp_path}/nowhere", 1, sweep="s", timeout=0)


def test_runs_that_failed_are_waited_for_others_and_that_is_said(tmp_path: Path) -> None:
    source = Told(tmp_path, a="finished", b="failed", c="running")
    days = Days(lambda: source.told.append(RunState("d", "d", "s", "running")))
    notes: set[str] = set()

    with pytest.raises(WaitTimeoutError):
        wait_for(source, 3, timeout=60, progress=lambda what, *_: notes.add(what), clock=days.clock, sleep=days.sleep)

    assert "failed 'b': 3 finished runs need others to be started" in notes


def test_only_the_runs_of_the_sweep_count(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "another", (0.2, 0.5), "other")
    days = Days(lambda: train(uri, "mine", (0.2, 0.5)))
    notes: set[str] = set()

    states = wait_for(
        uri, 2, sweep="mine", progress=lambda what, *_: notes.add(what), clock=days.clock, sleep=days.sleep
    )

    assert [state.name for state in states] == ["run-0", "run-1"]
    assert "no run of sweep 'mine' yet; choose from 'another'" in notes


@pytest.mark.parametrize("wrong", [{"runs": 0}, {"every": 0}, {"every": float("nan")}, {"timeout": -1}])
def test_what_cannot_be_waited_for_is_refused(wrong: dict[str, float], tmp_path: Path) -> None:
    asked = {"runs": 2} | wrong
    with pytest.raises(BimixError, match="cannot wait for"):
        wait_for(f"jsonl:{tmp_path}", **asked)  # type: ignore[arg-type]  # that is the question
    with pytest.raises(SourceError, match="no source for"):
        wait_for("nowhere:sweep", 2)
    with pytest.raises(WaitTimeoutError, match="a table has no runs to group, wait for or watch"):
        wait_for(f"csv:{tmp_path}/sweep.csv", 2, timeout=0)


class Watched:
    """A watch of a folder, with what it said and what it analysed."""

    def __init__(self, source: JsonlSource, **options: float) -> None:
        self.said: list[Event] = []
        self.analysed: list[set[str]] = []
        self.time = 1e9
        self.error: Exception | None = None
        self.watch = Watch(
            source,
            self._analyse,
            self.said.append,
            now=lambda: self.time,
            **options,  # type: ignore[arg-type]  # runs
        )

    def _analyse(self, records: Sequence[RunRecord]) -> str:
        self.analysed.append({record.name for record in records})
        if self.error is not None:
            raise self.error
        return "done"

    def look(self) -> list[str]:
        """Look, and return what was said since the last time."""
        before = len(self.said)
        self.watch.look()
        return [event.text for event in self.said[before:]]


def end(folder: Path, when: float, *names: str) -> None:
    for name in names:
        os.utime(folder / name / "FINISHED", (when, when))


def test_a_sweep_of_so_many_runs_is_analysed_when_they_are_there_and_when_there_are_more(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    watched = Watched(JsonlSource(uri), runs=2)

    assert watched.look() == []  # no run yet
    train(uri, "a", (0.2,), "a")
    begin(uri, "killed", sweep="a")  # running for ever
    train(uri, "b", (0.2, 0.5), "b")
    said = watched.look()

    assert said == [
        "sweep 'a': 1 finished, running 'killed'; waiting of 2",
        "sweep 'b': 2 finished; analysing",
        "sweep 'b': done",
    ]
    assert watched.look() == []
    begin(uri, "a-more", 0.3, sweep="a").finish()
    watched.look()
    begin(uri, "b-more", 0.3, sweep="b").finish()
    watched.look()
    watched.look()
    assert watched.analysed == [{"b-0", "b-1"}, {"a-0", "a-more", "killed"}, {"b-0", "b-1", "b-more"}]


def test_without_a_number_a_sweep_must_come_to_rest(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    watched = Watched(JsonlSource(uri), settle=600)
    train(uri, "s", (0.2, 0.5))
    end(tmp_path, watched.time - 5000, "run-0", "run-1")

    assert watched.look() == ["sweep 's': 2 finished; waiting of at least 3"]
    last = begin(uri, "run-2", 0.7, sweep="s")
    (line,) = watched.look()
    assert line.startswith("sweep 's': 2 finished, running 'run-2'; waiting until those end (a killed run may be")
    last.finish()
    end(tmp_path, watched.time - 100, "run-2")
    assert watched.look() == ["sweep 's': 3 finished; waiting to stay so for 600 s"]
    watched.time += 499
    assert watched.look() == []
    watched.time += 1
    assert watched.look() == ["sweep 's': 3 finished; analysing", "sweep 's': done"]
    assert watched.look() == []
    assert len(watched.analysed) == 1


def test_where_a_tracker_knows_no_end_a_sweep_rests_since_it_was_seen_to(tmp_path: Path) -> None:
    source = Told(tmp_path, a="finished", b="finished", c="finished", d="failed")
    source.told = [dataclasses.replace(state, ended=None) for state in source.told]
    train(f"jsonl:{tmp_path}")
    watched = Watched(source, settle=600)

    assert watched.look() == ["sweep 's': 3 finished, failed 'd'; waiting to stay so for 600 s"]
    watched.time += 600
    assert watched.look()[-1] == "sweep 's': done"


def test_a_sweep_that_cannot_be_analysed_is_told_once_and_tried_again_when_it_has_grown(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "s\nforged")
    watched = Watched(JsonlSource(uri), runs=3)
    watched.error = ObservationsError("the runs differ in tokenizer")

    assert watched.look()[1:] == [
        "sweep 's\\nforged' cannot be analysed until its runs change: the runs differ in tokenizer"
    ]
    assert watched.said[-1].bad
    assert watched.look() == []
    begin(uri, "fourth", sweep="s\nforged").finish()
    watched.error = ZeroDivisionError("mlflow+http://me:hunter2@host#x")
    (_, bug) = watched.look()
    assert "by a bug of bimix-tracking: Traceback" in bug
    assert "mlflow+http://host#x" in bug
    assert "hunter2" not in bug
    assert watched.look() == []


def test_a_source_that_fails_is_told_once_and_tried_again_each_time(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}/sweep"
    watched = Watched(JsonlSource(uri), runs=3)

    assert watched.look() == [f"the source cannot be read or written: {uri}: there is no folder {tmp_path}/sweep"]
    assert watched.look() == []
    train(uri, "s")
    watched.error = SourceError("disk full")
    assert watched.look() == ["sweep 's': 3 finished; analysing", "the source cannot be read or written: disk full"]
    assert watched.look() == []
    train(uri, "t", prefix="t")  # what cannot be written of one sweep doesn't keep the next one from its turn
    assert watched.look() == ["sweep 't': 3 finished; analysing"]
    watched.error = None
    assert watched.look() == ["sweep 's': done", "sweep 't': done", "the source can be read and written again"]
    assert len(watched.analysed) == 6


class Failing(JsonlSource):
    """A folder that raises, wherever a test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"jsonl:{folder}")
        self.fails: dict[str, Exception] = {}

    def states(self) -> list[RunState]:
        if "states" in self.fails:
            raise self.fails["states"]
        return super().states()

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        if "records" in self.fails:
            raise self.fails["records"]
        return super().records(progress)


BUGS = [AttributeError("'list' has no 'get'"), RecursionError("deep"), MemoryError(), KeyError("x")]


@pytest.mark.parametrize("where", ["states", "records"])
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
def test_a_watch_outlives_whatever_its_source_raises(where: str, bug: Exception, tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}", "s")
    source = Failing(tmp_path)
    source.fails[where] = bug
    watched = Watched(source, runs=3)

    *_, said = watched.look()

    assert said.startswith("the source cannot be read, by a bug of bimix-tracking: Traceback")
    assert type(bug).__name__ in said
    assert watched.said[-1].bad
    assert watched.look() == []  # told once, and tried again
    source.fails[where] = OSError(5, "Input/output error")
    assert watched.look() == ["the source cannot be read or written: [Errno 5] Input/output error"]
    source.fails.clear()
    assert watched.look()[-2:] == ["sweep 's': done", "the source can be read and written again"]


def test_trouble_in_a_row_makes_the_pauses_longer_up_to_ten_minutes_and_its_end_short_again(tmp_path: Path) -> None:
    source = Failing(tmp_path)
    source.fails["states"] = AttributeError("x")
    watched = Watched(source)
    pauses = []
    for _ in range(30):
        pauses.append(watched.watch.pause(30))
        watched.look()
    source.fails.clear()
    watched.look()

    assert pauses[:6] == [30, 60, 120, 240, 480, 600]
    assert pauses[-1] == 600
    assert watched.watch.pause(30) == 30
    assert watched.watch.pause(3600) == 3600


def test_a_watch_goes_on_though_nobody_can_be_told_and_tells_it_when_somebody_can(tmp_path: Path) -> None:
    train(f"jsonl:{tmp_path}", "s")
    heard: list[str] = []
    deaf = True

    def tell(event: Event) -> None:
        if deaf:
            raise OSError(28, "No space left on device")
        heard.append(event.text)

    analysed: list[int] = []

    def analyse(records: Sequence[RunRecord]) -> str:
        analysed.append(len(records))
        return "done"

    watch = Watch(JsonlSource(f"jsonl:{tmp_path}"), analyse, tell, runs=3)
    watch.look()
    assert analysed == [3]
    deaf = False
    begin(f"jsonl:{tmp_path}", "going", sweep="t")
    watch.look()
    assert heard == ["sweep 't': 0 finished, running 'going'; waiting of 3"]
    with pytest.raises(KeyboardInterrupt):
        Watch(JsonlSource(f"jsonl:{tmp_path}"), _interrupted, tell, runs=3).look()


def _interrupted(_: Sequence[RunRecord]) -> str:
    raise KeyboardInterrupt


def test_a_broken_run_is_named_and_keeps_no_sweep_from_its_analysis(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "a", prefix="a")
    train(uri, "b", prefix="b")
    for name in ("curves.json", "manifest.json"):
        (tmp_path / "b-2" / name).write_text("[" * 200_000, encoding="utf-8")
    watched = Watched(JsonlSource(uri), runs=3)

    named, *others = watched.look()
    assert named == (
        "run 'b-2' is excluded, of whichever sweep it is: it cannot be read: manifest.json: it is nested too deep; "
        "curves.json: it is nested too deep"
    )
    assert others == [
        "sweep 'b': 2 finished; waiting of 3",
        "sweep 'a': 3 finished; analysing",
        "sweep 'a': done",
    ]
    assert not any(event.bad for event in watched.said)
    assert watched.look() == []
    notes: list[str] = []
    wait_for(uri, 5, progress=lambda what, *_: notes.append(what))
    assert "run 'b-2' cannot be read: manifest.json: it is nested too deep" in "".join(notes)


def test_what_an_analysis_had_to_exclude_is_in_its_line(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "s", (0.2, 0.35, 0.5, 0.7))
    (tmp_path / "run-1" / "curves.json").unlink()
    (tmp_path / "run-1" / "rows.jsonl").unlink()
    (tmp_path / "run-1" / "rows.jsonl").mkdir()
    source = open_source(uri)

    said = analysis_of(source, 1e9, replicates=0)(source.records())

    assert said.startswith("3 runs analysed")
    assert said.endswith("; excluded 'run-1': the run cannot be read: rows.jsonl is not a regular file")


def test_what_makes_no_sense_cannot_be_watched_for(tmp_path: Path) -> None:
    for wrong in ({"runs": 0}, {"settle": -1.0}, {"settle": float("nan")}):
        with pytest.raises(BimixError, match="cannot be watched for"):
            Watched(JsonlSource(f"jsonl:{tmp_path}"), **wrong)


def test_an_analysis_is_made_once_however_often_a_watch_begins_anew(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path}"
    train(uri, "other", (0.3, 0.6), "other")
    train(uri, "s")
    source = open_source(uri)
    runs = [record for record in source.records() if record.manifest.sweep == "s"]

    first = analysis_of(source, 1e9, replicates=0)(runs)
    (made,) = analyses(tmp_path)
    key = made.name
    assert first.startswith(f"3 runs analysed (key {key}): Not checked: the law fitted to all 3 runs")
    assert f"Recommended: code 0.7292, web 0.2708; {made}" in first
    again = analysis_of(open_source(uri), 1e9, replicates=0)(runs)
    assert again == f"already analysed (key {key})"
    assert recommended_mixture(uri)["code"] == pytest.approx(RECOMMENDED, abs=1e-6)
    analysis_of(source, 2e9, replicates=0)(runs)  # another question
    assert len(analyses(tmp_path)) == 2
