"""The demo in its short form: a real pilot with a few steps a run, down to the pages in the tracking store."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bimix_tracking import Mixture, Observations
from tests.warm import program

_ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the pilot and return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("pilot") / "results"
    command = [program("python", training=True), str(_ROOT / "examples" / "pilot"), "--short", "--out", str(folder)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder, done.stdout


def test_the_store_holds_the_runs_the_analysis_and_the_checks(pilot: tuple[Path, str]) -> None:
    folder, _ = pilot
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("pilot")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])

    assert all(run.info.status == "FINISHED" for run in runs)
    sweeps = [run.data.tags.get("bimix.sweep") for run in runs if run.data.tags["bimix.role"] == "train"]
    assert (sweeps.count("pilot"), sweeps.count("check")) == (8, 5)
    analyses = [run.info for run in runs if run.data.tags["bimix.role"] == "analysis"]
    names = {info.run_id: info.run_name.split(" · ") for info in analyses}
    assert sorted(name[0] for name in names.values()) == ["pilot", "pilot"]
    files = {names[i.run_id][1]: {f.path for f in client.list_artifacts(i.run_id, "bimix")} for i in analyses}
    (asked,) = files.keys() - {"verification"}
    written = (
        "mixture.yaml",
        "fit.json",
        "validation.json",
        "observations.csv",
        "lineage.json",
        "exports",
        "recommendation.json",
        "report.html",
        "report.md",
    )
    assert files[asked] == {f"bimix/{name}" for name in written}
    assert files["verification"] - files[asked] == {
        "bimix/verification.json",
        "bimix/verification.md",
    }


def test_what_is_printed_is_what_the_files_say(pilot: tuple[Path, str]) -> None:
    folder, printed = pilot
    mixture = Mixture.from_yaml(folder / "analysis" / "mixture.yaml")

    (row,) = (line for line in printed.splitlines() if line.startswith("  recommended  "))
    assert re.findall(r"[\d.]+ %", row)[:3] == [f"{100 * mixture[domain]:.2f} %" for domain in mixture]
    assert "Predicted without these runs, with the 90 % interval of one run, and observed" in printed
    last = printed.splitlines()[-6:]
    assert [line.partition(":")[0] for line in last[:2]] == ["Against proportional to size", "Against equal parts"]


def test_the_reference_is_proportional_to_size(pilot: tuple[Path, str]) -> None:
    folder, printed = pilot
    decision = json.loads((folder / "analysis" / "recommendation.json").read_text(encoding="utf-8"))
    reference = decision["reference"]

    assert reference["python"] > 2 * reference["bible"]  # the standard library is by far the largest
    assert reference["bible"] == pytest.approx(reference["metamath"], rel=0.01)
    # What is printed begins with the verdict, after a line for each run.
    after = [line for line in printed.splitlines() if line and not line.startswith("[")]
    assert after[0].startswith(decision["verdict"]["sentence"])


def test_every_run_was_evaluated_on_every_domain(pilot: tuple[Path, str]) -> None:
    obs = Observations.from_csv(pilot[0] / "analysis" / "observations.csv")

    assert obs.domains == ("python", "bible", "metamath")
    assert obs.losses.groupby("run")["tokens"].nunique().eq(3).all()
    assert len(obs.losses) == 8 * 3 * 3
