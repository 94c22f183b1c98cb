"""A Ray Tune experiment over planned mixtures that analyses itself when its last trial has ended.

python examples/ray_tune_sweep.py [--out FOLDER] [--runs 5] [--steps 120]

Starts Ray on this machine (RAY_ADDRESS joins a cluster) and trains the runs side by side, a CPU each. Leaves `runs`,
Tune's `results` and `analysis/report.html` in the folder. On a cluster, every node must see that folder under its path;
with `mlflow+http://HOST:PORT#EXPERIMENT` as the source, the runs needn't be in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ray
import torch
from bimix_integrations.sweeps.ray_tune import AnalyzeAtEnd
from bimix_integrations.trainers.torch import DomainLossMeter
from plain_loop import train
from ray import tune
from tiny import DOMAINS, Text, options, tell

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker, plan_pilot


def main() -> None:
    """Plan, tune, tell."""
    chosen = options(__doc__, "ray-tune-sweep")
    source = f"jsonl:{chosen.out / 'runs'}"
    plan = plan_pilot(DOMAINS, chosen.runs)
    runs = {
        name: (dict(mixture), seed) for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True)
    }
    # Some of a sweep says less than all of it: with fewer runs that ended well there is a warning, and no analysis.
    at_end = AnalyzeAtEnd(source, chosen.tokens, runs=len(runs), out=chosen.out / "analysis", on_error="raise")
    # The workers get this folder, with the text and the modules that are imported here, wherever they are.
    ours = {"working_dir": str(Path(__file__).parent), "excludes": ["example-results"]}
    ray.init(runtime_env=ours, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    tune.Tuner(
        partial(trial, runs=runs, source=source, steps=chosen.steps),
        param_space={"run": tune.grid_search(list(runs))},
        tune_config=tune.TuneConfig(reuse_actors=True),  # a process for several runs: it imports torch once
        run_config=tune.RunConfig("sweep", storage_path=str(chosen.out / "results"), callbacks=[at_end], verbose=0),
    ).fit()
    ray.shutdown()
    if at_end.analysis is not None:
        tell(at_end.analysis, chosen)


def trial(config: dict[str, str], runs: Mapping[str, tuple[dict[str, float], int]], source: str, steps: int) -> None:
    """Train one proxy run, in a process of Ray's: the loop is that of plain_loop.py."""
    torch.set_num_threads(1)
    mixture, seed = runs[config["run"]]
    recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(source, run_name=config["run"]), tokenizer="bytes")
    train(Text(), Mixture(mixture), DomainLossMeter(recorder), steps, seed)
    tune.report({"step": steps})


if __name__ == "__main__":
    main()
