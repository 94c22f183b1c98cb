"""Final losses logged once, as people do with each tracker's own SDK: one volume, told in every way there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from bimix_tracking import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import RunSource, Wanted, open_source

SHARES = (0.2, 0.4, 0.6, 0.8)
OFFLINE = """
import sys, wandb
for number, share in enumerate((0.2, 0.4, 0.6, 0.8)):
    config = {"mix": {"code": share, "web": 1 - share}, "budget": {"train_tokens": 1e9}}
    settings = wandb.Settings(console="off", x_disable_stats=True)
    where = {"mode": "offline", "dir": sys.argv[1], "project": "p", "name": f"r{number}"}
    with wandb.init(config=config, settings=settings, **where) as run:
        losses = {"eval/code/loss": 3 * share**-0.1, "eval/web/loss": 2 * (1 - share) ** -0.1}
        if number % 2:
            run.log(losses)
        else:
            run.log({"train/loss": 2.0})
            run.summary.update({**losses, "reached": {"tokens": 1e9}})
"""


def _read(uri: str, folder: Path, told: str) -> Observations:
    (folder / "m.yaml").write_text(f"mixture_from: {{code: mix.code, web: mix.web}}\n{told}\n", encoding="utf-8")
    source: RunSource = open_source(uri, wanted=Wanted(foreign=ForeignRuns.from_file(folder / "m.yaml")))
    return source.observations()


@pytest.fixture(scope="module", name="offline")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    subprocess.run([sys.executable, "-c", OFFLINE, str(folder)], check=True, capture_output=True)
    return folder


TOLD = [
    "tokens: 1e9",
    "tokens: 1_000_000_000",
    "tokens: budget.train_tokens",
    "tokens: {r0: 1e9, r1: 1e9, r2: 1e9, r3: 1e9}",
]


@pytest.mark.parametrize("told", TOLD)
def test_w_and_b_s_runs(offline: Path, told: str, tmp_path: Path) -> None:
    obs = _read(f"wandb-offline:{offline}", tmp_path, told)

    assert obs.runs == ("r0", "r1", "r2", "r3")
    assert set(obs.losses["tokens"]) == {1e9}
    of_code = obs.losses[obs.losses["domain"] == "code"].set_index("run")["loss"]
    assert of_code.tolist() == [3 * share**-0.1 for share in SHARES]


def test_a_summary_s_own_count(offline: Path, tmp_path: Path) -> None:
    obs = _read(f"wandb-offline:{offline}", tmp_path, "tokens: reached.tokens")

    assert obs.runs == ("r0", "r2")  # the others say none
    assert any("no 'reached.tokens'" in str(note) and "budget.train_tokens" in str(note) for note in obs.notes)


def test_mlflow_s_runs(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/once.db")
    experiment = client.create_experiment("once")
    for number, share in enumerate(SHARES):
        run = client.create_run(experiment, run_name=f"r{number}").info.run_id
        for name, value in {"mix.code": share, "mix.web": 1 - share, "budget.train_tokens": 1e9}.items():
            client.log_param(run, name, value)
        client.log_metric(run, "eval/code/loss", 3 * share**-0.1)
        client.log_metric(run, "eval/web/loss", 2 * (1 - share) ** -0.1)
        client.set_terminated(run)

    for told in TOLD:
        obs = _read(f"mlflow+sqlite:///{tmp_path}/once.db#once", tmp_path, told)

        assert sorted(obs.runs) == ["r0", "r1", "r2", "r3"]
        assert set(obs.losses["tokens"]) == {1e9}
        of_code = obs.losses[obs.losses["domain"] == "code"].set_index("run")["loss"].sort_index()
        assert of_code.tolist() == [3 * share**-0.1 for share in SHARES]
    with pytest.raises(ObservationsError, match=r"at step 0, where `tokens_per_step` gives 0 .*'budget.train_tokens'"):
        _read(f"mlflow+sqlite:///{tmp_path}/once.db#once", tmp_path, "tokens_per_step: 1000")
