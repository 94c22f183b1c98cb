"""Targets and guards on the command line: a stranger's table, what is refused and what is told of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from bimix_tracking import Mixture
from tests.warm import program

_NAMES = ("code", "web", "math")


def bimix(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program("bimix"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def sweep(runs: int = 10) -> pd.DataFrame:
    """Three domains with losses, a quiz of each, and one that knows nothing of mixtures."""
    rng = np.random.default_rng(0)
    rows = []
    for run, shares in enumerate(rng.dirichlet([2, 4, 2], runs)):
        row: dict[str, object] = {"run": f"run-{run}", "tokens": 5e9}
        row |= {f"proportion/{name}": share for name, share in zip(_NAMES, shares, strict=True)}
        for name, share in zip(_NAMES, shares, strict=True):
            row[f"loss/{name}"] = (1.2 + 0.9 * share**-0.12) * np.exp(rng.normal(0, 0.003))
            right = 0.25 + 0.75 / (1 + np.exp(1.2 - 1.6 * share**0.4))
            row |= {f"accuracy/quiz-{name}": rng.binomial(1500, right) / 1500, f"questions/quiz-{name}": 1500}
            row[f"chance/quiz-{name}"] = 0.25
        rows.append(row | {"accuracy/noise": rng.binomial(500, 0.26) / 500, "chance/noise": 0.25})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("targets")
    table = sweep()
    table.to_csv(made / "sweep.csv", index=False)
    outside = table.rename(columns={f"loss/{name}": f"loss/pile {name}" for name in _NAMES})
    outside.filter(regex="^(?!.*(quiz|noise))").to_csv(made / "pile.csv", index=False)
    quiz = "accuracy/quiz-code"
    table.assign(**{quiz: 100 * table[quiz]}).to_csv(made / "per-cent.csv", index=False)
    table.assign(**{"bpb/quiz-code": 1.0}).to_csv(made / "two-columns.csv", index=False)
    table.assign(**{"chance/noise": 25}).to_csv(made / "chance.csv", index=False)
    strange = table.assign(**{"chance/noise": 0.9, "accuracy/quiz-web": 0.5, "questions/noise": 500})
    strange.loc[2, quiz], strange.loc[[1, 5], "accuracy/quiz-math"] = 1.2, np.nan
    strange.to_csv(made / "strange.csv", index=False)
    for name, text in {
        "targets.yaml": "quiz-code: {kind: accuracy, group: quizzes}\nquiz-web: {kind: accuracy, group: quizzes}\n",
        "kind.yaml": "quiz-code: {kind: acuracy}\n",
        "entry.yaml": "quiz-code: {kind: accuracy, wieght: 2}\n",
        "score.yaml": "judge: {kind: score}\n",
        "list.yaml": "- quiz-code\n",
        "unknown.yaml": "quiz-cod: {kind: accuracy}\n",
        "now.yaml": "mixture: {code: 0.3, web: 0.5, math: 0.2}\n",
    }.items():
        (made / name).write_text(text)
    return made


def analyzed(folder: Path, *options: str, table: str = "sweep") -> subprocess.CompletedProcess[str]:
    given = [folder / each if each.endswith(".yaml") else each for each in options]
    return bimix("analyze", f"csv:{folder / table}.csv", "--tokens", "5B", "--replicates", 40, *given)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--targets", "kind.yaml"], 3, "target 'quiz-code' has no kind 'acuracy'; did you mean 'accuracy'?"),
        (["--targets", "entry.yaml"], 3, "target 'quiz-code': no entry 'wieght'; did you mean 'weight'?"),
        (["--targets", "score.yaml"], 3, "target 'judge' is a score: say whether higher_is_better, true or false"),
        (["--targets", "list.yaml"], 3, "must map names to entries, such as mmlu: {kind: accuracy}"),
        (["--targets", "nowhere.yaml"], 3, "cannot read the targets file"),
        (["--targets", "unknown.yaml"], 3, "no values of the target 'quiz-cod' that is described; did you mean"),
        (["--weight", "quiz-cod=1"], 5, "weight of unknown domain or target 'quiz-cod'; did you mean 'quiz-code'"),
        (
            ["--targets", "targets.yaml", "--weight", "quizzes=2", "--weight", "quiz-code=1"],
            5,
            "group 'quizzes' has a weight, and so have its members 'quiz-code': give one or the other",
        ),
        (["--guard", "quiz-cod>=-1pp"], 5, "is on an unknown target 'quiz-cod'; did you mean 'quiz-code'"),
        (["--guard", "quiz-code<=+1pp"], 5, "higher is better. Did you mean 'quiz-code>=-1pp'?"),
        (["--guard", "code<=+1pp"], 5, "is in percentage points, and 'code' is no accuracy"),
        (["--guard", "code"], 2, "--guard: 'code' has no <= or >=. Put a guard in quotes, 'code<=+0.5%'"),
        (["--guard", "code<0.5"], 2, "'code<0.5' is no guard: write one as 'code<=+0.5%'"),
        (["--guard", "code<=1%", "--guard", "code<=2%"], 2, "target 'code' has two guards, 'code<=1%' and 'code<=2%'"),
        (["--guard", "code<=-20%", "--guard", "web<=-20%"], 5, "no mixture meets all guards: code<=-20% needs -"),
        (["--guard-probability", "0.9"], 2, "--guard-probability: needs --guard"),
        (["--guard", "code<=1%", "--guard-probability", "90"], 2, "'90' is not a proportion from 0 to 1"),
        (["--guard", "code<=1%", "--guard-probability", "100%"], 2, "'100%' is not between 0 and 1, such as 0.9"),
        (["--max-change", "10"], 2, "--max-change: '10' is not a proportion from 0 to 1, such as 0.2 or 20%"),
        (["--change", "js"], 2, "--change: no measure 'js'; choose from 'tv', 'kl'"),
        (["--change", "kl"], 2, "--change: needs --max-change or --reference"),
        (["--max-change", "-1", "--change", "kl"], 2, "'-1' is not a number of nats, 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder: Path, options: list[str], code: int, text: str) -> None:
    done = analyzed(folder, *options)

    assert done.returncode == code
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("per-cent", "target 'quiz-code' is an accuracy, but run 'run-0' has 5"),
        ("two-columns", "target 'quiz-code' has two columns, 'accuracy/quiz-code' and 'bpb/quiz-code'"),
        ("chance", "the chance level of target 'noise' must be a proportion from 0 up to 1, got 25"),
    ],
)
def test_a_table_that_says_something_else_is_refused(folder: Path, table: str, text: str) -> None:
    done = analyzed(folder, table=table)

    assert (done.returncode, done.stdout) == (3, "")
    assert text in done.stderr


def test_single_strange_values_are_named_and_the_rest_is_used(folder: Path) -> None:
    done = analyzed(folder, table="strange")

    assert done.returncode == 0, done.stderr
    assert "excluded: an accuracy outside 0 to 1 (run 'run-2', target 'quiz-code'; 1×)" in done.stderr
    assert "below its chance level of 90.0 %. Is the chance level right? (target 'noise'" in done.stderr
    assert "excluded: its value is NaN (run 'run-1', target 'quiz-math'; 1×)" in done.stderr


def test_targets_that_are_no_domains_need_no_option(folder: Path) -> None:
    done = analyzed(folder, table="pile")

    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line for line in told if "no domain is a target" in line] == [
        "Warning: no domain is a target: each counts by its effect on the targets"
    ]
    assert "targets get better" in done.stdout
    assert all(f"pile {name}" in done.stdout for name in _NAMES)
    assert not [line for line in told if line.startswith("Warning: domain")]


def test_guards_and_the_largest_change_reach_answer_and_artifacts(folder: Path, tmp_path: Path) -> None:
    now = Mixture.from_yaml(folder / "now.yaml")
    asked = ["--reference", "now.yaml", "--guard", "web<=+0.5%", "--guard", "quiz-web>=-2pp", "--max-change", "10%"]

    done = analyzed(folder, *asked, "--out", str(tmp_path / "out"), "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    moved = sum(abs(found["mixture"][name] - now[name]) for name in _NAMES) / 2
    assert moved <= 0.1 + 1e-6
    assert [(one["guard"], one["target"]) for one in found["guards"]] == [
        ("web<=+0.5%", "web"),
        ("quiz-web>=-2pp", "quiz-web"),
    ]
    web, quiz = found["guards"]
    assert web["limit"] == pytest.approx(1.005 * web["reference"])
    assert web["predicted"] <= web["limit"] * (1 + 1e-6)
    assert quiz["limit"] == pytest.approx(quiz["reference"] - 0.02)
    assert quiz["predicted"] >= quiz["limit"] - 1e-6
    assert {row["target"] for row in found["changes"]} == {*_NAMES, *(f"quiz-{name}" for name in _NAMES), "noise"}
    noted = yaml.safe_load((tmp_path / "out" / "mixture.yaml").read_text())["guards"]
    assert [(one["guard"], one["kept"]) for one in noted] == [("web<=+0.5%", True), ("quiz-web>=-2pp", True)]
    assert "Guards: " in done.stderr
    assert "Smallest change: moving" in done.stderr


def test_a_reference_that_violates_its_own_guard_is_said(folder: Path) -> None:
    done = analyzed(folder, "--reference", "now.yaml", "--guard", "code<=-1%")

    assert done.returncode == 0, done.stderr
    assert "the reference is outside what the constraints allow" in " ".join(done.stdout.split())


def test_the_trade_off_between_two_groups_is_asked_for_by_name(folder: Path) -> None:
    done = analyzed(folder, "--pareto", "code", "rest", "--replicates", "0", "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["pareto"]
    assert found["groups"] == ["code", "rest"]
    first = [point["first"] for point in found["points"]]
    assert first == sorted(first, reverse=True)
    wrong = analyzed(folder, "--pareto", "cod", "rest")
    assert wrong.returncode == 5
    assert "unknown target 'cod'; did you mean 'code'" in " ".join(wrong.stderr.split())
