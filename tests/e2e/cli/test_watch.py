"""`bimix watch` as a team runs it: a process that is killed and started again while runs arrive."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bimix_tracking import recommended_mixture
from tests.core.proxies import RECOMMENDED, analyses, begin, train
from tests.warm import program

# Its sweeps are small, and their mixtures come with warnings.
pytestmark = pytest.mark.filterwarnings("ignore::bimix_tracking.errors.RecommendationWarning")

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d (.*)")


class Watcher:
    """A `bimix watch` that writes to a log file."""

    def __init__(self, sweeps: Path, log: Path, bimix: str, *options: str) -> None:
        self.log = log
        command = [bimix, "watch", f"jsonl:{sweeps}", "--tokens", "1e9", "--replicates", "0", *options]
        with log.open("w") as file:
            self.process = subprocess.Popen([*command, "--every", "0.1"], stdout=file, stderr=subprocess.STDOUT)

    def said(self) -> list[str]:
        """Return the lines without their times, whole ones only: each must be a line of ours."""
        found = [
            _LINE.fullmatch(line.rstrip("\n"))
            for line in self.log.read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        assert None not in found, self.log.read_text()
        return [match.group(1) for match in found if match]

    def until(self, done: Callable[[list[str]], bool]) -> None:
        """Wait until its lines are as expected, for two minutes at most."""
        over = time.monotonic() + 120
        while not done(self.said()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < over, self.log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture(name="watch")
def _watch(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    """Return what starts watchers, none of which outlives the test."""
    started: list[Watcher] = []

    def start(*options: str, bimix: str | None = None) -> Watcher:
        log = tmp_path / f"log-{len(started)}"
        started.append(Watcher(tmp_path / "sweeps", log, bimix or program("bimix"), *options))
        return started[-1]

    yield start
    for watcher in started:
        watcher.process.kill()
        watcher.process.wait()


def any_of(text: str) -> Callable[[list[str]], bool]:
    return lambda said: any(text in line for line in said)


def test_each_sweep_is_analysed_once_though_the_watch_is_killed(tmp_path: Path, watch: Callable[..., Watcher]) -> None:
    sweeps = tmp_path / "sweeps"
    uri = f"jsonl:{sweeps}"

    # As a user starts it: when a kill of that has returned, nothing of it runs.
    first = watch("--runs", "3", bimix=str(Path(sys.executable).with_name("bimix")))
    first.until(any_of("the source cannot be read or written"))  # no run has begun yet
    train(uri, "a", prefix="a")
    first.until(any_of("sweep 'a': 3 runs analysed"))
    train(uri, "b", (0.2, 0.5), "b")
    first.until(any_of("sweep 'b': 2 finished; waiting of 3"))
    begin(uri, "b-2", 0.7, sweep="b").finish()
    first.until(any_of("sweep 'b': 3 finished; analysing"))
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    train(uri, "c", prefix="c")  # while nobody looks
    begin(uri, "d-0", sweep="d")  # going, for ever

    second = watch("--runs", "3")
    second.until(lambda said: all(any_of(f"sweep '{name}': ")(said) for name in "abcd"))
    second.until(any_of("sweep 'c': 3 runs analysed"))
    begin(uri, "e-0", sweep="e").finish()  # it has looked again when it has seen this
    second.until(any_of("sweep 'e': 1 finished; waiting of 3"))

    assert any_of("sweep 'a': already analysed")(second.said())
    made = [line for watcher in (first, second) for line in watcher.said() if " runs analysed (key " in line]
    whole = analyses(sweeps)
    assert len(whole) == 3
    assert {folder.name for folder in whole} >= {line.partition("(key ")[2][:16] for line in made}
    assert all((folder / "mixture.yaml").exists() and (folder / "note.md").exists() for folder in whole)
    assert recommended_mixture(uri)["code"] == pytest.approx(RECOMMENDED, abs=1e-6)
    assert second.stop(signal.SIGTERM) == 0
    assert second.said()[-1] == "stopped by SIGTERM"


def test_ctrl_c_ends_it_and_a_sweep_at_rest_needs_no_number(tmp_path: Path, watch: Callable[..., Watcher]) -> None:
    sweeps = tmp_path / "sweeps"
    train(f"jsonl:{sweeps}")

    watcher = watch("--settle", "0", "--law", "bimix")
    watcher.until(any_of("runs of no sweep: 3 runs analysed"))

    assert watcher.stop(signal.SIGINT) == 0
    assert watcher.said()[-1] == "stopped by SIGINT"
    (made,) = analyses(sweeps)
    assert '"law": "bimix"' in (made / "fit.json").read_text()


def test_from_cron_the_exit_code_says_how_it_went(tmp_path: Path, watch: Callable[..., Watcher]) -> None:
    sweeps = tmp_path / "sweeps"
    away = watch("--once", "--runs", "3")
    assert away.process.wait(120) == 4
    train(f"jsonl:{sweeps}", "good", prefix="good")
    for name in ("one", "two", "three"):
        begin(f"jsonl:{sweeps}", name, sweep="of one mixture").finish()

    bad, worse = watch("--once", "--runs", "3"), watch("--once", "--runs", "3", "--law", "nonsense")

    assert (bad.process.wait(120), worse.process.wait(120)) == (3, 2)
    said = bad.log.read_text()
    assert "sweep 'of one mixture' cannot be analysed until its runs change" in said
    assert said.endswith("error: not every sweep could be analysed\n")
    assert "Traceback" not in said
    assert len(analyses(sweeps)) == 1


def test_sweeps_in_mlflow_are_analysed_once_too(tmp_path: Path) -> None:
    uri = f"mlflow+sqlite:///{tmp_path}/mlflow.db#pilots"
    train(uri, "a")
    going = begin(uri, "going", sweep="b")
    command = [program("bimix"), "watch", uri, "--tokens", "1e9", "--replicates", "0", "--settle", "0", "--once"]

    said = [subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout for _ in range(2)]

    assert [re.findall(r"sweep 'a': (3 runs analysed|already analysed) \(key", text) for text in said] == [
        ["3 runs analysed"],
        ["already analysed"],
    ]
    assert all("sweep 'b': 0 finished, running 'going'; waiting until those end" in text for text in said)
    assert recommended_mixture(uri)["code"] == pytest.approx(RECOMMENDED, abs=1e-6)
    going.finish()
