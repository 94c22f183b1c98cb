"""The command line as a script meets it: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations
from tests.warm import program

_BIMIX = Path(sys.executable).with_name("bimix")


def bimix(*arguments: object, started: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the command; `started`: with the start that a user's has, not in an interpreter that has its imports."""
    command = [str(_BIMIX) if started else program("bimix"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a CSV sweep of two domains that follow the law."""
    rows = [
        {
            "run": f"run-{a}", "step": s / 1000, "tokens": s, "proportion/c++": a, "proportion/web": 1 - a,
            "loss/c++": a**-0.1 * (90 / s**0.5 + 3), "loss/web": (1 - a) ** -0.1 * (40 / s**0.4 + 1),
        }
        for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "sweep.csv", index=False)
    return tmp_path / "sweep.csv"


def test_analyze_prints_a_table_and_leaves_the_artifacts(table: Path, tmp_path: Path) -> None:
    done = bimix("analyze", f"csv:{table}", "--tokens", "1e9", "--out", tmp_path / "out", started=True)

    assert done.returncode == 0, done.stderr
    mixture = Mixture.from_yaml(tmp_path / "out" / "mixture.yaml")
    for domain in ("c++", "web"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{domain} ")]
        assert line.split()[1:3] == [f"{100 * mixture[domain]:.2f}", "%"]
    said = " ".join(done.stdout.split())
    assert said.startswith(("Act with care (", "The gain is inside the noise")), said
    assert "Warning: 1B tokens are 15,625× the largest volume observed (64k)" in said
    assert said.index("Warning: ") < said.index("recommended") < said.index("Gain over the reference: ")
    assert str(tmp_path / "out") in done.stdout
    assert "fitting" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_weights_move_the_recommendation(table: Path, tmp_path: Path) -> None:
    for name, options in (("plain", []), ("weighted", ["--weight", "web=5"])):
        assert bimix("analyze", f"csv:{table}", "--tokens", "1e9", "--out", tmp_path / name, *options).returncode == 0

    plain, weighted = (Mixture.from_yaml(tmp_path / name / "mixture.yaml")["web"] for name in ("plain", "weighted"))
    assert weighted > plain


def test_pull_gives_a_table_that_reads_back(table: Path, tmp_path: Path) -> None:
    done = bimix("pull", f"csv:{table}", "-o", tmp_path / "pulled.csv")

    assert done.returncode == 0, done.stderr
    assert "3 runs, 2 domains, 2 targets, 24 values" in done.stdout
    assert Observations.from_csv(tmp_path / "pulled.csv").data_hash == Observations.from_csv(table).data_hash


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["analyze", "csv:nowhere.csv", "--tokens", "1e9"], 4, "there is no file nowhere.csv"),
        (
            ["analyze", "nowhere:sweep", "--tokens", "1e9"],
            4,
            "no source for 'nowhere'; choose from 'csv', 'jsonl', 'lm-eval', 'mlflow'",
        ),
        (["analyze", "csv:x", "--tokens", "many"], 2, "'many' is not a number of tokens, such as 100B, 5e9"),
        (["analyze", "csv:x"], 2, "--tokens"),
        (["analyze", "csv:x", "--tokens", "1e9", "--weight", "web"], 2, "'web' is not TARGET=NUMBER, such as code=2"),
        (["pull", "csv:nowhere.csv"], 2, "--output"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(arguments: list[str], code: int, text: str) -> None:
    done = bimix(*arguments)

    assert done.returncode == code
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_bad_data_and_a_fit_without_answer_have_codes_of_their_own(table: Path, tmp_path: Path) -> None:
    sweep = pd.read_csv(table)
    sweep.assign(**{"proportion/web": 0.9}).to_csv(tmp_path / "off.csv", index=False)
    sweep[sweep["run"] == "run-0.5"].to_csv(tmp_path / "single.csv", index=False)

    off = bimix("analyze", f"csv:{tmp_path}/off.csv", "--tokens", "1e9")
    single = bimix("analyze", f"csv:{tmp_path}/single.csv", "--tokens", "1e9")

    assert (off.returncode, single.returncode) == (3, 5)
    assert "run 'run-0.2': proportions sum to 1.1, not 1" in off.stderr
    assert "'c++': the domain's proportion is the same in all runs" in single.stderr
    assert "Add at least one run with another proportion" in single.stderr


def test_what_was_set_aside_is_told_in_few_lines(table: Path, tmp_path: Path) -> None:
    sweep = pd.read_csv(table)
    before = sweep.drop_duplicates("run").assign(tokens=0.0)
    more = [before.assign(run=before["run"] + suffix) for suffix in ("", " again")]
    pd.concat([sweep, sweep.assign(run=sweep["run"] + " again"), *more]).to_csv(tmp_path / "more.csv", index=False)

    done = bimix("pull", f"csv:{tmp_path}/more.csv", "-o", tmp_path / "pulled.csv")

    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "evaluated before training" in line]
    assert "6 runs: 'run-0.2', 'run-0.5'" in said
    assert "2 domains: 'c++', 'web'" in said
    assert "12×" in said


def test_constraints_and_costs_reach_the_answer(table: Path, tmp_path: Path) -> None:
    (tmp_path / "prior.yaml").write_text("mixture: {c++: 0.5, web: 0.5}", encoding="utf-8")

    done = bimix(
        "analyze", f"csv:{table}", "--tokens", "1e5", "--out", tmp_path / "out", "--available", "c++=5e3",
        "--max-epochs", "2", "--bound", "web=0.1:0.95", "--reference", tmp_path / "prior.yaml",
        "--gpu-hours-per-run", "2", "--target-gpu-hours", "100", "--cost-per-gpu-hour", "3",
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    mixture = Mixture.from_yaml(tmp_path / "out" / "mixture.yaml")
    assert mixture["c++"] == pytest.approx(0.1)
    said = " ".join(done.stdout.split())
    assert "Constraint: domain 'c++' is at its upper limit, 0.1 (5k tokens × 2 epochs / 100k)" in said
    assert "Warning: the reference breaks a constraint: domain 'c++' has 0.5" in said
    decided = json.loads((tmp_path / "out" / "recommendation.json").read_text(encoding="utf-8"))
    assert decided["mixture"] == dict(mixture)
    assert decided["worth"]["pilot_gpu_hours"] == 6


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--available", "c++=1e3", "--available", "web=1e3"], 5, "all domains together may have at most 0.08"),
        (["--available", "perl=1e3"], 5, "available tokens of unknown domain 'perl'"),
        (["--bound", "web=0.9:0.1"], 2, "'web=0.9:0.1': the least, 0.9, is above the most, 0.1"),
        (["--bound", "web=high"], 2, "'web=high': 'high' is not a proportion from 0 to 1, such as 0.2 or 20%"),
        (["--weight", "web=-1"], 2, "'web=-1': '-1' is not a weight, 0 or more"),
        (["--target-gpu-hours", "-1"], 5, "target gpu hours must be a positive number, got -1"),
    ],
)
def test_constraints_that_cannot_be_met_are_named(table: Path, options: list[str], code: int, text: str) -> None:
    done = bimix("analyze", f"csv:{table}", "--tokens", "1e5", *options)

    assert done.returncode == code
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_run_is_verified(table: Path, tmp_path: Path) -> None:
    sweep = pd.read_csv(table)
    more = sweep[sweep["run"] == "run-0.5"].assign(run="run-0.4")
    more = more.assign(**{"proportion/c++": 0.4, "proportion/web": 0.6})
    more["loss/c++"], more["loss/web"] = more["loss/c++"] * (0.5 / 0.4) ** 0.1, more["loss/web"] * (0.5 / 0.6) ** 0.1
    big = more.assign(run="big")
    big["loss/web"] *= 1.1
    pd.concat([sweep, more, big]).to_csv(tmp_path / "all.csv", index=False)

    done = bimix("verify", f"csv:{tmp_path}/all.csv", "big", "--out", tmp_path / "out")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Run 'big' (64k tokens) is worse than predicted")
    assert json.loads((tmp_path / "out" / "verification.json").read_text(encoding="utf-8"))["runs"] == ["big"]
    unknown = bimix("verify", f"csv:{tmp_path}/all.csv", "bug")
    assert unknown.returncode == 3
    assert "no finished training run 'bug'" in unknown.stderr


def test_a_mixture_is_exported(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("mixture: {c++: 0.25, web: 0.75}", encoding="utf-8")

    shown = bimix("export", tmp_path / "m.yaml", "--format", "megatron", "--path", "c++=/data/c=1")
    written = bimix("export", tmp_path / "m.yaml", "--format", "csv", "-o", tmp_path / "m.csv")

    assert shown.returncode == written.returncode == 0, shown.stderr + written.stderr
    assert "  0.25 /data/c=1\n  0.75 web\n" in shown.stdout
    assert (tmp_path / "m.csv").read_text(encoding="utf-8") == "domain,proportion\nc++,0.25\nweb,0.75\n"
    assert "torchtitan" in bimix("export", tmp_path / "m.yaml", "--format", "list").stdout


@pytest.mark.parametrize(
    ("content", "options", "code", "text"),
    [
        ("mixture: {a: 1.0}", ["--format", "yml"], 2, "no format 'yml'; did you mean 'yaml'? Choose from 'megatron'"),
        ("mixture: {a: 1.0}", ["--format", "nemo", "--path", "a"], 2, "'a' is not DOMAIN=PATH"),
        ("mixture: {a: 0.5}", ["--format", "nemo"], 3, "m.yaml: proportions sum to 0.5, not 1"),
    ],
)
def test_what_cannot_be_exported_is_named(
    tmp_path: Path, content: str, options: list[str], code: int, text: str
) -> None:
    (tmp_path / "m.yaml").write_text(content, encoding="utf-8")

    done = bimix("export", tmp_path / "m.yaml", *options)

    assert done.returncode == code
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr


def test_a_table_cannot_be_written_back_to(table: Path) -> None:
    done = bimix("analyze", f"csv:{table}", "--tokens", "1e9", "--write-back")

    assert done.returncode == 4
    assert "use --out DIR" in done.stderr


def test_help_shows_an_example() -> None:
    done = bimix("analyze", "--help")

    assert done.returncode == 0
    assert "bimix analyze mlflow:my-sweep --tokens 100B" in " ".join(done.stdout.split())
