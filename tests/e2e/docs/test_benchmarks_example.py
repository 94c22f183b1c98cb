"""examples/benchmarks in its short form: a sweep judged by tasks, a mixture chosen by them, runs that check it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, open_source
from tests.warm import program

_EXAMPLE = Path(__file__).parents[3] / "examples" / "benchmarks"
_RUNS = 14
_CHECKED = ("today", "by-accuracy", "guarded")
_FOLLOWS = {"next_code": "python", "next_verse": "bible", "next_step": "metamath"}
_TASKS = (*_FOLLOWS, "coin_toss")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the example and return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("benchmarks")
    done = subprocess.run(
        [program("python", training=True), str(_EXAMPLE), "--short", "--out", "results"],
        cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr
    assert {path.name for path in folder.iterdir()} == {"results"}
    return folder / "results", done.stdout


@pytest.fixture(scope="module")
def last(ran: tuple[Path, str]) -> pd.DataFrame:
    """Return each run's values at its end and its proportions, as the analysis read them."""
    obs = Observations.from_csv(ran[0] / "by-accuracy" / "observations.csv")
    rows = obs.losses.sort_values("tokens").drop_duplicates(["run", "domain"], keep="last")
    return rows.pivot_table("value", "run", "domain").join(obs.mixtures.add_suffix(" share"))


def test_every_run_has_losses_and_at_its_end_each_target(ran: tuple[Path, str]) -> None:
    records = open_source(f"jsonl:{ran[0] / 'runs'}").records()

    checks = {f"{name}-{seed}" for name in _CHECKED for seed in (101, 102, 103)}
    assert {record.name for record in records} == {f"pilot-{number:02}" for number in range(1, _RUNS + 1)} | checks
    for record in records:
        assert record.manifest.sweep == ("check" if record.name in checks else "benchmarks")
        kinds = {target.name: str(target.kind) for target in record.manifest.targets}
        assert kinds == {
            f"{task}{suffix}": kind
            for task in _TASKS
            for suffix, kind in {"": "accuracy", "_bpb": "bpb", "_choice": "score"}.items()
        }
        assert {target.task for target in record.manifest.targets} == set(_TASKS)
    losses = Observations.from_csv(ran[0] / "by-accuracy" / "observations.csv").losses
    measured = losses.groupby("domain")["tokens"].nunique()
    assert (measured[list(_FOLLOWS.values())] > 3).all()
    assert (measured.drop(list(_FOLLOWS.values())) == 1).all()


def test_tasks_follow_their_domain_and_the_coin_none(last: pd.DataFrame) -> None:
    assert len(last) == _RUNS
    for task, domain in _FOLLOWS.items():
        # 64 questions tell accuracies apart by chance only: bits per byte have the digits.
        assert last[f"{task}_bpb"].corr(last[f"{domain} share"], method="spearman") < -0.7
        assert last[domain].corr(last[f"{domain} share"], method="spearman") < -0.7
    assert last["next_step"].corr(last["metamath share"], method="spearman") > 0.5
    assert last["next_step"].mean() > 0.33
    # 14 times 64 tosses: a standard error of 0.0145.
    assert last["coin_toss"].mean() == pytest.approx(0.25, abs=0.06)
    assert last["coin_toss_choice"].mean() == pytest.approx(0.25, abs=0.02)


def test_the_mixtures_are_checked_by_runs_with_other_seeds(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    records = {record.name: record for record in open_source(f"jsonl:{folder / 'runs'}").records()}
    mixtures = {name: Mixture.from_yaml(folder / name / "mixture.yaml") for name in ("by-accuracy", "guarded")}
    mixtures["today"] = Mixture.from_yaml(folder / "plan" / "mixtures" / "pilot-01.yaml")

    for name, mixture in mixtures.items():
        for seed in (101, 102, 103):
            trained = records[f"{name}-{seed}"].manifest.mixture
            assert trained is not None
            assert dict(trained) == pytest.approx(dict(mixture), abs=1e-5)
    for name in ("by-accuracy", "guarded"):
        assert (folder / name / "report.html").stat().st_size
        assert f"\n{name} against today's mixture" in printed


def test_the_guards_are_told_with_what_was_allowed_predicted_and_observed(ran: tuple[Path, str]) -> None:
    number = r"[+−]\d\.\d{3}"
    for guard in ("python<=+8%", "next_code>=-4pp"):
        (line,) = (line for line in ran[1].splitlines() if line.startswith(f"Guard {guard}: "))
        told = re.fullmatch(
            rf".*: ({number}) allowed, ({number}) predicted, {number} ± \d\.\d{{3}} observed: (held|did not hold)", line
        )
        assert told is not None
        allowed, predicted = (float(found.replace("−", "-")) for found in told.groups()[:2])
        assert (predicted - allowed) * (1 if ">=" in guard else -1) > -0.001
    # Guards keep the mixture nearer to today's.
    python = {name: Mixture.from_yaml(ran[0] / name / "mixture.yaml")["python"] for name in ("by-accuracy", "guarded")}
    assert python["guarded"] > python["by-accuracy"]


def test_the_command_that_is_printed_asks_the_same(ran: tuple[Path, str], tmp_path: Path) -> None:
    folder, printed = ran
    (command,) = (line for line in printed.splitlines() if line.startswith("bimix ") and "--guard=" in line)
    for run in (folder / "runs").glob("pilot-*"):  # there were no others when it was asked
        shutil.copytree(run, tmp_path / "runs" / run.name)
    moved = command.replace(str(folder / "runs"), str(tmp_path / "runs")).replace("/guarded", "/again")

    done = _bimix(moved)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    again = Mixture.from_yaml(folder / "again" / "mixture.yaml")
    assert dict(again) == pytest.approx(dict(Mixture.from_yaml(folder / "guarded" / "mixture.yaml")), abs=1e-4)


def test_the_next_command_verifies_the_guarded_mixture(ran: tuple[Path, str]) -> None:
    found = re.search(r"^Next: (bimix verify .*)$", ran[1], re.MULTILINE)
    assert found is not None

    done = _bimix(found[1])

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (ran[0] / "verified" / "verification.json").stat().st_size


def _bimix(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("bimix"), *shlex.split(command)[1:]], capture_output=True, text=True, timeout=300, check=False
    )
