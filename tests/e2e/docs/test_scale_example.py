"""examples/scale in its short form: a sweep of small models, two anchor runs at the target size, runs that check it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, Wanted, open_source
from tests.warm import program

_EXAMPLE = Path(__file__).parents[3] / "examples" / "scale"
_DOMAINS = ("python", "bible", "metamath")
_SWEEP = (*(f"pilot-{number:02}" for number in range(1, 11)), "small-found")
_ANCHORS, _CHECKS = ("anchor-today", "anchor-found"), ("check-chosen", "check-far")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the example and return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("scale")
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
    """Return the losses of every run at its end."""
    obs = open_source(f"jsonl:{ran[0] / 'runs'}", wanted=Wanted(pool_sizes=True)).observations()
    rows = obs.losses.sort_values("tokens").drop_duplicates(["run", "domain"], keep="last")
    return rows.pivot_table("loss", "run", "domain")


def test_runs_say_their_model_size_and_the_length_of_their_schedule(ran: tuple[Path, str]) -> None:
    records = {record.name: record for record in open_source(f"jsonl:{ran[0] / 'runs'}").records()}

    assert records.keys() == {*_SWEEP, *_ANCHORS, *_CHECKS}
    sizes = {name: record.manifest.model_size for name, record in records.items()}
    # Of width w: recent, attend, gather, widen, narrow; w = 16 and 48.
    small, large = 256 * 16 + 12 * 16**2, 256 * 48 + 12 * 48**2
    assert sizes == dict.fromkeys(_SWEEP, small) | dict.fromkeys((*_ANCHORS, *_CHECKS), large)
    for name, record in records.items():
        manifest, size = record.manifest, sizes[name] or 0
        width = 16 if name in _SWEEP else 48
        assert manifest.total_parameters == size + 256 * 32 + 64 * width + 256 * width
        assert manifest.schedule_tokens == (96 if name in _SWEEP else 144) * 8 * 63
        assert manifest.sweep == ("check" if name in _CHECKS else "scale")


def test_a_large_model_loses_less_and_the_level_is_that_of_pairs(ran: tuple[Path, str], last: pd.DataFrame) -> None:
    bridge = _json(ran[0] / "anchored" / "fit.json")["bridge"]
    paired = np.log(last.loc["pilot-01"] / last.loc["anchor-today"])

    assert (paired > 0).all()
    assert [anchor["run"] for anchor in bridge["anchors"]] == sorted(_ANCHORS)
    assert bridge["reference"] == 256 * 48 + 12 * 48**2
    small = next(one for one in bridge["sizes"] if one["size"] < bridge["reference"])
    for domain in _DOMAINS:
        _, level = max(small["levels"][domain])  # at the largest progress
        assert level == pytest.approx(paired[domain], abs=0.05)


def test_without_an_anchor_the_level_is_unknown_and_with_anchors_known(ran: tuple[Path, str]) -> None:
    alone, anchored = (_json(ran[0] / name / "recommendation.json") for name in ("small-only", "anchored"))

    assert alone["model_size"] == anchored["model_size"] == anchored["level_size"]
    assert alone["level_size"] == 256 * 16 + 12 * 16**2
    trained = {record.name: record.manifest.mixture for record in open_source(f"jsonl:{ran[0] / 'runs'}").records()}
    for run, name in {"anchor-found": "small-only", "check-chosen": "anchored"}.items():
        found = Mixture.from_yaml(ran[0] / name / "mixture.yaml")
        assert dict(trained[run] or {}) == pytest.approx(dict(found), abs=1e-5)


def test_anchors_predict_the_large_runs_better_than_small_runs_do(ran: tuple[Path, str], last: pd.DataFrame) -> None:
    number = r"(\d\.\d{3})"
    rows = re.findall(rf"^ *(check-\w+) +(\w+) +{number} +{number} to {number} +{number} ", ran[1], re.MULTILINE)

    assert [(run, domain) for run, domain, *_ in rows] == [(run, domain) for run in _CHECKS for domain in _DOMAINS]
    table = pd.DataFrame(rows, columns=["run", "domain", "predicted", "low", "high", "observed"])
    table = table.astype(dict.fromkeys(["predicted", "low", "high", "observed"], float))
    seen = [last.loc[run, domain] for run, domain in zip(table["run"], table["domain"], strict=True)]
    assert table["observed"].to_numpy() == pytest.approx(seen, abs=0.0006)
    assert table["predicted"].between(table["low"], table["high"]).all()
    off = (table["observed"] / table["predicted"] - 1).abs()
    assert off.mean() < 0.1
    # The far mixture was run small too: its losses there are the prediction without a level.
    far = (last.loc["check-far"] / last.loc["pilot-03"] - 1).abs()
    assert off[table["run"] == "check-far"].mean() < far.mean()


def test_half_an_anchor_is_held_beside_the_whole(ran: tuple[Path, str]) -> None:
    told = ran[1].partition("\nOne anchor alone: ")[2]
    rows = re.findall(r"^ *(anchor-today|its first half|anchor-found) +(\w+-\w+) +(.*)$", told, re.MULTILINE)

    assert [(name, run) for name, run, _ in rows] == [
        (name, run) for name in ("anchor-today", "its first half", "anchor-found") for run in (*_ANCHORS, *_CHECKS)
    ]
    errors = [float(e.replace("−", "-")) for _, _, cells in rows for e in re.findall(r"([+−][\d.]+) %", cells)]
    assert len(errors) == 3 * 4 * len(_DOMAINS)
    assert np.abs(errors).mean() < 10


def test_the_command_that_is_printed_asks_the_same(ran: tuple[Path, str], tmp_path: Path) -> None:
    folder, printed = ran
    (command,) = (line for line in printed.splitlines() if line.startswith("bimix analyze ") and "anchored" in line)
    for run in (*_SWEEP, *_ANCHORS):  # there were no others when it was asked
        shutil.copytree(folder / "runs" / run, tmp_path / "runs" / run)
    moved = command.replace(str(folder / "runs"), str(tmp_path / "runs")).replace("/anchored", "/again")

    done = _bimix(moved)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    again = Mixture.from_yaml(folder / "again" / "mixture.yaml")
    assert dict(again) == pytest.approx(dict(Mixture.from_yaml(folder / "anchored" / "mixture.yaml")), abs=1e-4)
    assert (folder / "again" / "report.html").stat().st_size


def test_the_next_command_verifies_the_chosen_mixture_at_its_size(ran: tuple[Path, str], last: pd.DataFrame) -> None:
    found = re.search(r"^Next: (bimix verify .*)$", ran[1], re.MULTILINE)
    assert found is not None

    done = _bimix(found[1])

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    table = pd.DataFrame(_json(ran[0] / "verified" / "verification.json")["table"]).set_index("target")
    assert table["observed"][list(_DOMAINS)].to_list() == pytest.approx(last.loc["check-chosen", list(_DOMAINS)])
    told = dict(re.findall(r"^ *check-chosen +(\w+) +(\d\.\d{3}) ", ran[1], re.MULTILINE))
    assert {domain: float(loss) for domain, loss in told.items()} == pytest.approx(
        dict(table["predicted"][list(_DOMAINS)]), abs=0.0006
    )


def test_observations_of_the_analysis_keep_the_sizes(ran: tuple[Path, str]) -> None:
    obs = Observations.from_csv(ran[0] / "anchored" / "observations.csv")

    assert obs.model_sizes == (256 * 16 + 12 * 16**2, 256 * 48 + 12 * 48**2)
    assert {obs.sizes[run] for run in _ANCHORS} == {obs.model_sizes[1]}


def _bimix(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("bimix"), *shlex.split(command)[1:]], capture_output=True, text=True, timeout=300, check=False
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))
