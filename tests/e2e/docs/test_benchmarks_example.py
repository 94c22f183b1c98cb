"""examples/benchmarks in its short form: a sweep judged by tasks, a mixture chosen by them, runs that check it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, open_source
from tests.warm import program

_EXAMPLE = Path(__file__).parents[3] / "examples" / "benchmarks"
_RUNS, _CHECKS = 14, 3
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

    assert {record.name for record in records} == {f"pilot-{number:02}" for number in range(1, _RUNS + 1)}
    for record in records:
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
    # All runs answer the same 64: their mean is as uncertain as one run's, ±0.054.
    assert last["coin_toss"].mean() == pytest.approx(0.25, abs=0.12)
    assert last["coin_toss_choice"].mean() == pytest.approx(0.25, abs=0.05)


def test_the_mixtures_are_checked_by_runs_with_other_seeds(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    records = {record.name: record for record in open_source(f"jsonl:{folder / 'checks'}").records()}

    for name in ("by-loss", "by-accuracy"):
        mixture = Mixture.from_yaml(folder / name / "mixture.yaml")
        trained = [record for run, record in records.items() if run.startswith(f"{name}-")]
        assert len(trained) == _CHECKS
        for record in trained:
            assert record.manifest.mixture is not None
            assert record.manifest.mixture.array(mixture.domains) == pytest.approx(
                mixture.array(mixture.domains), abs=1e-5
            )
        assert (folder / name / "report.html").stat().st_size
        assert f"\n{name} against the reference" in printed
    assert len(records) == 3 * _CHECKS


def test_the_command_that_is_printed_asks_the_same(ran: tuple[Path, str]) -> None:
    folder, printed = ran
    found = re.search(r"^Next: bimix (.*)$", printed, re.MULTILINE)
    assert found is not None

    done = subprocess.run(
        [program("bimix"), *shlex.split(found[1])], capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    again = Mixture.from_yaml(folder / "again" / "mixture.yaml")
    mixture = Mixture.from_yaml(folder / "by-accuracy" / "mixture.yaml")
    assert dict(again) == pytest.approx(dict(mixture), abs=1e-6)
