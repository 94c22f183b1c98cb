"""Sweeps of several model sizes on the command line: what is asked for, what is answered, what is refused and how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.e2e.cli.test_cli import bimix

DOMAINS = ("code", "web", "books")
SMALL, LARGE = 20_000_000, 310_000_000
_LAW = ((0.30, 420.0, 0.30, 1.0), (0.05, 380.0, 0.27, 2.2), (0.08, 400.0, 0.28, 1.9))
_LEVELS = {SMALL: np.zeros(3), LARGE: np.array([0.19, 0.14, 0.16])}
"""By how much the logarithm of a domain's loss falls from the small size to the large one."""


def rows(size: int, shares: list[list[float]], name: str) -> list[dict[str, object]]:
    """Return runs that follow the law in the progress of their own schedules, at the level of their size."""
    found = []
    for number, mixture in enumerate(shares):
        off = np.random.default_rng([number, size]).normal(0, 0.003, 3)
        for progress in (0.25, 0.5, 0.75, 1.0):
            base = [
                r**-a * (b / (4e9 * progress) ** beta + c) for r, (a, b, beta, c) in zip(mixture, _LAW, strict=True)
            ]
            losses = base * np.exp(off - _LEVELS.get(size, np.zeros(3)))
            found.append(
                {"run": f"{name}-{number}", "model_size": size, "tokens": progress * 4e9 * size / SMALL}
                | {f"proportion/{domain}": share for domain, share in zip(DOMAINS, mixture, strict=True)}
                | {f"loss/{domain}": loss for domain, loss in zip(DOMAINS, losses, strict=True)}
            )
    return found


def mixtures(count: int) -> list[list[float]]:
    drawn = np.random.default_rng(7).dirichlet([2.0, 2.0, 2.0], count).clip(0.05)
    return [list(map(float, each)) for each in drawn / drawn.sum(axis=1, keepdims=True)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return twelve mixtures at 20M parameters, two of them at 310M too."""
    file = tmp_path_factory.mktemp("sizes") / "sweep.csv"
    shares = mixtures(12)
    pd.DataFrame([*rows(SMALL, shares, "small"), *rows(LARGE, shares[:2], "large")]).to_csv(file, index=False)
    return file


def said(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_a_table_of_several_sizes_is_pulled_with_their_sizes(table: Path, tmp_path: Path) -> None:
    done = bimix("pull", f"csv:{table}", "-o", tmp_path / "pulled.csv", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model_sizes"] == [SMALL, LARGE]
    assert "14 runs, 3 domains, 3 targets, 168 values; 12 of 20M parameters, 2 of 310M parameters" in done.stderr
    again = pd.read_csv(tmp_path / "pulled.csv").groupby("run")["model_size"].first()
    assert again.to_dict() == {f"small-{i}": SMALL for i in range(12)} | {"large-0": LARGE, "large-1": LARGE}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--model-size", "7"], "--model-size: '7' is not a number of parameters; did you mean 7B (7e9)?"),
        (["--model-size", "0.5"], "--model-size: '0.5' is not a number of parameters; did you mean 500M (5e8)?"),
        (["--model-size", "large"], "'large' is not a number of parameters, such as 7B, 122M or 1.2e9"),
        (
            ["--model-size", "310M", "--group-by", "model_size"],
            "--group-by: analyses sizes apart: give it without --model-size",
        ),
    ],
)
def test_what_is_no_size_is_refused_before_anything_is_read(options: list[str], text: str) -> None:
    done = bimix("analyze", "csv:nowhere.csv", "--tokens", "1B", *options)

    assert done.returncode == 2
    assert text in said(done.stderr)


def analysed(table: Path, *options: object) -> tuple[dict[str, Any], str]:
    """Return the answer to a question as JSON, and what stands on the terminal."""
    done = bimix("analyze", f"csv:{table}", "--tokens", "62B", "--replicates", 40, "--json", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), said(done.stderr)


def true_losses(mixture: dict[str, float], size: int) -> dict[str, float]:
    """Return the losses at the end of a run, without its luck."""
    base = [mixture[d] ** -a * (b / 4e9**beta + c) for d, (a, b, beta, c) in zip(DOMAINS, _LAW, strict=True)]
    return dict(zip(DOMAINS, (np.array(base) * np.exp(-_LEVELS[size])).tolist(), strict=True))


def test_two_anchors_give_the_losses_of_the_large_model(table: Path, tmp_path: Path) -> None:
    answer, told = analysed(table, "--model-size", "310M", "--out", tmp_path / "out")

    assert (answer["model_size"], answer["level_size"]) == (LARGE, LARGE)
    truth = true_losses(answer["mixture"], LARGE)
    assert answer["predicted"] == pytest.approx(truth, rel=0.01)
    assert answer["bridge"]["known"]
    assert [one["run"] for one in answer["bridge"]["anchors"]] == ["large-0", "large-1"]
    assert "Mixture for 62B tokens at 310M parameters, from 14 runs (12 of 20M, 2 of 310M)" in told
    assert "Levels at 310M: of 2 anchor runs; by the others' level, each is missed by" in told
    assert "Next: bimix plan --anchor" not in told
    assert answer["ranks"]["verdict"] == "unknown"
    assert (tmp_path / "out" / "report.html").exists()


def test_a_size_that_people_call_by_another_number_is_found(table: Path) -> None:
    answer, _ = analysed(table, "--model-size", "300M")

    assert answer["bridge"]["reference"] == LARGE


def test_without_an_anchor_the_losses_are_the_largest_size_s_and_called_so(table: Path, tmp_path: Path) -> None:
    small = pd.read_csv(table)
    small[small["model_size"] == SMALL].to_csv(tmp_path / "small.csv", index=False)

    answer, told = analysed(tmp_path / "small.csv", "--model-size", "7B", "--tokens", "4B")

    assert (answer["model_size"], answer["level_size"]) == (7e9, SMALL)
    assert answer["predicted"] == pytest.approx(true_losses(answer["mixture"], SMALL), rel=0.01)
    assert "Mixture for 4B tokens at 7B parameters, from 12 runs (12 of 20M); losses are those of 20M" in told
    assert f"Next: bimix plan --anchor csv:{tmp_path}/small.csv --model-size 7B --tokens 4B" in told


def test_of_two_sizes_without_the_target_s_the_larger_one_stands_for_it(table: Path) -> None:
    answer, told = analysed(table, "--model-size", "7B", "--tokens", "1T")

    assert (answer["model_size"], answer["level_size"]) == (7e9, LARGE)
    assert answer["predicted"] == pytest.approx(true_losses(answer["mixture"], LARGE), rel=0.01)
    assert "from 14 runs (12 of 20M, 2 of 310M); losses are those of 310M" in told
    assert "Next: bimix plan --anchor" in told


def test_broken_ranks_are_listed_by_target(tmp_path: Path) -> None:
    shares = mixtures(12)
    large = pd.DataFrame(rows(LARGE, shares, "large"))
    large["loss/web"] = large.groupby("tokens")["loss/web"].transform(lambda column: column.to_numpy()[::-1])
    pd.concat([pd.DataFrame(rows(SMALL, shares, "small")), large]).to_csv(tmp_path / "broken.csv", index=False)

    answer, told = analysed(tmp_path / "broken.csv", "--model-size", "310M")

    assert answer["ranks"]["breaking"] == ["web"]
    assert "Targets whose rank breaks between sizes: 1" in told
    assert "web 20M → 310M 12" in told
    assert "Levels at 310M: of the 12 runs there, which have 12 mixtures." in told


def test_sizes_are_named_in_japanese_too(table: Path) -> None:
    done = bimix(
        "analyze", f"csv:{table}", "--tokens", "62B", "--replicates", 0, "--model-size", "310M", "--lang", "ja"
    )

    assert done.returncode == 0, done.stderr
    told = "".join(done.stdout.split())
    assert "310Mパラメータ、620億トークン向けの混合比（14ランから推定：20Mが12ラン、310Mが2ラン）" in told
    assert "310Mでの水準：アンカー実験2ランによります。" in told


def changed(table: Path, folder: Path, sizes: Callable[[pd.DataFrame], pd.Series]) -> Path:
    file = folder / "changed.csv"
    pd.read_csv(table).assign(model_size=sizes).to_csv(file, index=False)
    return file


def test_several_sizes_without_a_target_size_are_refused_with_both_remedies(table: Path) -> None:
    done = bimix("analyze", f"csv:{table}", "--tokens", "62B")

    assert done.returncode == 3
    assert "--model-size" in done.stderr
    assert "--group-by model_size" in done.stderr
    assert "310M" in done.stderr


def test_runs_without_a_size_are_named(table: Path, tmp_path: Path) -> None:
    file = changed(table, tmp_path, lambda t: t["model_size"].mask(t["run"] == "small-3"))

    done = bimix("analyze", f"csv:{file}", "--tokens", "62B", "--model-size", "310M")

    assert done.returncode == 3
    assert "1 of 14 runs have no model size: 'small-3'" in done.stderr


def test_a_size_in_billions_in_a_table_is_asked_after(table: Path, tmp_path: Path) -> None:
    file = changed(table, tmp_path, lambda t: t["model_size"].replace(LARGE, 7))

    done = bimix("analyze", f"csv:{file}", "--tokens", "62B", "--model-size", "7B")

    assert done.returncode == 3
    assert "run 'large-0': the model size is 7 parameters" in done.stderr
    assert "did you mean 7" in done.stderr


def test_a_target_smaller_than_all_runs_is_refused(table: Path) -> None:
    done = bimix("analyze", f"csv:{table}", "--tokens", "62B", "--model-size", "1M")

    assert done.returncode == 3
    assert "the target size of 1M parameters is smaller than all that were run (20M, 310M)" in done.stderr


def test_a_large_run_is_verified_at_its_own_size(table: Path) -> None:
    known = bimix("verify", f"csv:{table}", "large-1", "--json")
    unknown = bimix("verify", f"csv:{table}", "large-0", "large-1", "--model-size", "310M", "--json")

    assert known.returncode == 0, known.stderr
    answer = json.loads(known.stdout)
    assert {row["verdict"] for row in answer["table"]} <= {"inside", "above", "below"}
    assert {row["model_size"] for row in answer["table"]} == {LARGE} == {answer["model_size"]}
    for row in answer["table"]:
        assert row["predicted"] == pytest.approx(row["observed"], rel=0.02)
    assert unknown.returncode == 0, unknown.stderr
    told = json.loads(unknown.stdout)
    assert {row["predicted"] for row in told["table"]} == {None}
    assert any("The level at 310M parameters is now known, from 'large-0', 'large-1'" in text for text in told["sentences"])  # fmt: skip  # noqa: E501
