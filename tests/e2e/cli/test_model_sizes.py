"""Sweeps of several model sizes on the command line: what is asked for, what is answered, what is refused and how."""

from __future__ import annotations

import json
from pathlib import Path

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
