"""Benchmark tasks that other tools logged to W&B and to MLflow, by their own clients, come back as targets."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import wandb

from bimix_tracking import Mixture, Observations, open_source
from bimix_tracking.data.targets import Kind
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.ports import Wanted
from tests.adapters.wandb.wandb_server import serving

CODE = {"mix-1": 0.2, "mix-2": 0.4, "mix-3": 0.6, "mix-4": 0.8}
MIXTURES = {run: Mixture({"code": share, "web": 1 - share}) for run, share in CODE.items()}
# A folder of results is read likewise: tests/core/tracking/test_lm_eval.py.


def harness(share: float) -> dict[str, float]:
    """Return what `WandbLogger.log_eval_result` of lm-evaluation-harness logs at once, commit 0ff6ab9."""
    return {
        "hellaswag/acc": 0.3, "hellaswag/acc_stderr": 0.0046, "hellaswag/acc_norm": 0.3 + 0.1 * share,
        "hellaswag/acc_norm_stderr": 0.0046, "gsm8k/exact_match,strict-match": 0.02,
        "gsm8k/exact_match_stderr,strict-match": 0.0039, "wikitext/bits_per_byte": 1.0 - 0.1 * share,
        "wikitext/word_perplexity": 40.0,
    }  # fmt: skip


def check(obs: Observations, names: set[str]) -> None:
    assert set(obs.runs) == set(CODE)
    assert set(obs.targets) == names
    found = obs.losses[obs.losses["domain"] == "hellaswag/acc_norm"].set_index("run")["value"]
    assert found.to_dict() == pytest.approx({run: 0.3 + 0.1 * share for run, share in CODE.items()})
    assert obs.target("hellaswag/acc_norm").chance == 0.25
    assert obs.target("wikitext/bits_per_byte").kind is Kind.BPB
    questions = obs.losses[obs.losses["domain"] == "hellaswag/acc_norm"]["questions"]
    assert questions.between(9900, 11500).all()  # as well as four digits of a standard error tell


def test_what_lm_evaluation_harness_logs_to_wandb(tmp_path: Path) -> None:
    with serving(tmp_path, WANDB_MODE="offline"):
        for name, share in CODE.items():
            run = wandb.init(project="x", name=name)
            configs = {"task_configs": {"hellaswag": {"task": "hellaswag"}}, "cli_configs": {"model": "hf"}}
            run.config.update(configs)  # type: ignore[no-untyped-call]  # half-typed
            run.summary.update({"hellaswag/alias": "hellaswag", "wikitext/word_perplexity_stderr": "N/A"})
            run.log(harness(share))
            run.finish()

    wanted = Wanted(foreign=ForeignRuns(mixtures=MIXTURES, tokens=1e9))
    obs = open_source(f"wandb-offline:{tmp_path}", wanted=wanted).observations()

    check(obs, {"hellaswag/acc_norm", "gsm8k/exact_match,strict-match", "wikitext/bits_per_byte"})
    assert set(obs.losses["tokens"]) == {1e9}


def test_tasks_along_training_in_mlflow(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/m.db"
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment("x", artifact_location=str(tmp_path / "artifacts"))
    for name, share in CODE.items():
        run = client.create_run(experiment, run_name=name)
        for step in (100, 200):
            logged = {metric: value for metric, value in harness(share).items() if "," not in metric}
            for metric, value in (logged | {"eval_code_loss": 3.0, "eval_web_loss": 4.0 - share}).items():
                client.log_metric(run.info.run_id, metric, value, step=step)
        client.set_terminated(run.info.run_id)

    wanted = Wanted(foreign=ForeignRuns(mixtures=MIXTURES, tokens_per_step=1000))
    obs = open_source(f"mlflow+{store}#x", wanted=wanted).observations()

    check(obs, {"code", "web", "hellaswag/acc_norm", "wikitext/bits_per_byte"})
    assert set(obs.losses["tokens"]) == {1e5, 2e5}
