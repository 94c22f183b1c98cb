"""`bimix plan` as a script meets it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture
from tests.warm import program


def plan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program("bimix"), "plan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_pilot_is_planned_and_its_script_runs_it(tmp_path: Path) -> None:
    done = plan(
        "c++", "web", "math", "--runs", 7, "--tokens", "1e9", "--available", "c++=5e7", "--out", tmp_path / "plan",
        "--command", "echo {name} {index}",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "alpha" in done.stdout
    files = sorted((tmp_path / "plan" / "mixtures").iterdir())
    assert len(files) == 7
    assert all(Mixture.from_yaml(file)["c++"] <= 0.2 + 1e-6 for file in files)
    script = subprocess.run(["bash", tmp_path / "plan" / "runs.sh"], capture_output=True, text=True, check=True)
    assert script.stdout.splitlines()[0] == "pilot-01 0"


def test_the_runs_after_a_sweep_are_planned(tmp_path: Path) -> None:
    lucky = np.exp(0.005 * np.random.default_rng(0).standard_normal(5))
    rows = [
        {"run": f"r{i}", "step": s / 1000, "tokens": s, "proportion/a": a, "proportion/b": 1 - a,
         "loss/a": a**-0.1 * (90 / s**0.5 + 3) * luck, "loss/b": (1 - a) ** -0.2 * (40 / s**0.4 + 1) / luck}
        for i, (a, luck) in enumerate(zip((0.3, 0.4, 0.5, 0.6, 0.7), lucky, strict=True))
        for s in (1e3, 4e3, 1.6e4, 6.4e4)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "sweep.csv", index=False)

    done = plan("--after", f"csv:{tmp_path}/sweep.csv", "--runs", 2, "--tokens", "1e5")

    assert done.returncode == 0, done.stderr
    assert "next-02" in done.stdout
    assert "lead over its rivals has an error of" in " ".join(done.stdout.split())


def test_runs_are_chosen_among_the_mixtures_of_a_file_and_then_more_of_them(tmp_path: Path) -> None:
    shares = np.random.default_rng(0).uniform(0.2, 0.8, 14).round(3)
    pd.DataFrame({"proportion/a": shares, "proportion/b": 1 - shares}).to_csv(tmp_path / "pool.csv", index=False)

    done = plan("--pool", tmp_path / "pool.csv", "--runs", 5, "--out", tmp_path / "plan", "--bound", "a=0:0.6")

    assert done.returncode == 0, done.stderr
    first = pd.read_csv(tmp_path / "plan" / "plan.csv")
    assert set(first["proportion/a"]) <= set(shares[shares <= 0.6])
    over = int((shares > 0.6).sum())
    assert f"{over} of 14 mixtures of the pool were excluded: {over} breaking a constraint" in " ".join(
        done.stdout.split()
    )
    noise = np.exp(0.005 * np.random.default_rng(1).standard_normal(5))
    sweep = first.assign(run=first["name"], step=1, tokens=1e6)
    sweep["loss/a"], sweep["loss/b"] = (
        3 * sweep["proportion/a"] ** -0.1 * noise,
        2 * sweep["proportion/b"] ** -0.2 / noise,
    )
    columns = ["run", "step", "tokens", "proportion/a", "proportion/b", "loss/a", "loss/b"]
    sweep[columns].to_csv(tmp_path / "sweep.csv", index=False)

    more = plan(
        "--after", f"csv:{tmp_path}/sweep.csv", "--runs", 2, "--tokens", "1e6", "--pool", tmp_path / "pool.csv",
        "--out", tmp_path / "more",
    )  # fmt: skip

    assert more.returncode == 0, more.stderr
    chosen = set(pd.read_csv(tmp_path / "more" / "plan.csv")["proportion/a"])
    assert len(chosen) == 2
    assert chosen <= set(shares) - set(first["proportion/a"])
    assert "5 already among the runs" in " ".join(more.stdout.split())


def test_anchors_are_planned_from_a_sweep_and_from_an_analysis(tmp_path: Path) -> None:
    sweep = anchored_sweep(tmp_path)
    (tmp_path / "current.yaml").write_text("mixture: {a: 0.5, b: 0.5}")

    done = plan(
        "--anchor", sweep, "--model-size", "7B", "--tokens", "1T", "--reference", tmp_path / "current.yaml",
        "--anchor-part", "50%", "--target-gpu-hours", 90_000, "--out", tmp_path / "anchors",
        "--command", "echo {name} {model_size} {schedule_tokens} {tokens}",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "2 anchors at 7B parameters" in printed
    assert "500B tokens at 7B parameters: 2.1e22 FLOPs (6 N D), 45,000 GPU-hours" in printed
    planned = pd.read_csv(tmp_path / "anchors" / "plan.csv")
    assert planned["proportion/a"].tolist()[1] == 0.5
    assert planned["tokens"].tolist() == [500_000_000_000] * 2
    script = subprocess.run(["bash", tmp_path / "anchors" / "runs.sh"], capture_output=True, text=True, check=True)
    assert script.stdout.splitlines()[0] == "anchor-01 7000000000 1000000000000 500000000000"

    command = [program("bimix"), "analyze", sweep, "--tokens", "64k", "--out", tmp_path / "analysis", "--json"]
    subprocess.run(list(map(str, command)), capture_output=True, timeout=120, check=True)
    again = plan("--anchor", tmp_path / "analysis", "--model-size", "7B", "--runs", 1, "--json")

    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    recommended = Mixture.from_yaml(tmp_path / "analysis" / "mixture.yaml")
    assert told["runs"][0]["mixture"] == pytest.approx(dict(recommended))
    assert told["roles"] == ["recommended"]
    assert told["schedule_tokens"] == 64_000
    one, two, three = (row["error"] for row in told["expected"]["by_number"][1:])
    assert one > two > three > 0


def anchored_sweep(folder: Path) -> str:
    one, other = np.exp(0.005 * np.random.default_rng(0).standard_normal((2, 6)))
    rows = [
        {"run": f"r{i}", "step": s / 1000, "tokens": s, "model_size": 1e6, "proportion/a": a, "proportion/b": 1 - a,
         "loss/a": a**-0.1 * (90 / s**0.5 + 3) * one[i], "loss/b": (1 - a) ** -0.2 * (40 / s**0.4 + 1) * other[i]}
        for i, a in enumerate((0.3, 0.4, 0.5, 0.6, 0.7, 0.2))
        for s in (4e3, 8e3, 1.6e4, 3.2e4, 6.4e4)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "sweep.csv", index=False)
    return f"csv:{folder}/sweep.csv"


def test_a_budget_of_flops_is_turned_into_runs_of_two_sizes_and_anchors(tmp_path: Path) -> None:
    done = plan(
        "a", "b", "c", "--budget-flops", "1e21", "--model-size", "1B", "--tokens", "20B", "--out", tmp_path / "plan",
        "--bound", "a=0.1:0.5", "--json",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["advised"] == "one size"
    assert [option["flops"] <= 1e21 for option in told["options"]] == [True] * 3
    planned = pd.read_csv(tmp_path / "plan" / "plan.csv")
    (runs,) = told["options"][0]["proxies"]
    assert len(planned) == runs["runs"] == 15
    assert set(planned["model_size"]) == {runs["model_size"]}
    assert set(planned["schedule_tokens"]) == set(planned["tokens"]) == {runs["tokens"]}
    assert planned["proportion/a"].between(0.1, 0.5).all()


ANCHOR = ["--anchor", "csv:nowhere.csv"]
BUDGET = ["a", "b", "--budget-flops", "1e20"]
LARGE = ["--model-size", "7B", "--tokens", "1T"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["a", "b", "--runs", "0"], 2, "--runs"),
        ([*ANCHOR, "--tokens", "1T"], 2, "needs --model-size, that of the target run, such as 7B"),
        ([*ANCHOR, "--model-size", "7B"], 4, "give --tokens"),
        ([*ANCHOR, *LARGE], 4, "there is no file nowhere.csv"),
        ([*ANCHOR, "--after", "csv:nowhere.csv", *LARGE], 2, "--after and --anchor are different plans: give one"),
        ([*ANCHOR, "--pool", "mixtures.csv", *LARGE], 2, "has no use with --anchor: drop it"),
        ([*ANCHOR, "--anchor-part", "0", *LARGE], 2, "'0' is not above 0, such as 50%"),
        (["a", "b", "--anchor-part", "50%"], 2, "needs --anchor"),
        (["a", "b", "--model-size", "7B"], 2, "needs --anchor or --budget-flops"),
        (["a", "b", "--gpus", "8"], 2, "needs --budget-flops"),
        ([*BUDGET, "--model-size", "7B"], 2, "needs --tokens, those of the target run"),
        ([*BUDGET, "--model-size", "7", "--tokens", "1T"], 2, "did you mean 7B (7e9)?"),
        (["a", "b", "--budget-flops", "much", *LARGE], 2, "'much' is not a number of FLOPs, such as 1e20"),
        (
            ["a", "b", "--budget-flops", "1e10", "--smallest-size", "50M", *LARGE],
            5,
            "10 runs of 50M parameters",
        ),
        (["a", "b", "--bound", "a=high"], 2, "'a=high': 'high' is not a proportion from 0 to 1"),
        (["a", "b", "--bound", "c=0.1:0.2"], 5, "bounds of unknown domain 'c'; choose from 'a', 'b'"),
        (["a", "b", "--tokens", "1e12", "--available", "a=1e9", "--available", "b=1e9"], 5, "at most 0.008"),
        (["--pool", "nowhere.jsonl"], 3, "nowhere.jsonl cannot be read: No such file"),
        (["--after", "csv:nowhere.csv", "--tokens", "1e9"], 4, "there is no file nowhere.csv"),
    ],
)
def test_what_cannot_be_planned_is_one_line(arguments: list[str], code: int, text: str) -> None:
    done = plan(*arguments)

    assert done.returncode == code
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
