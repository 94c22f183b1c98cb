"""Log a few offline runs with the unmodified SDK; a process of its own, for it may be killed."""

from __future__ import annotations

import os
import sys
import time

import wandb
from bimix_integrations.trackers.wandb.tracker import WandbTracker

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.ports import Row

DOMAINS = ("c++", "web/en", "日本語", "<script>", "a" * 250)
MIXTURE = Mixture.normalized({"c++": 1, "web/en": 2, "日本語": 1})
STEPS = 300
RESUMED_AT = 50


def loss(domain: str, step: int) -> float:
    """Return a loss that is different everywhere."""
    return 2 + len(domain) / 7 + 1 / (step + 3)


def main(what: str, folder: str) -> None:
    """Log what is asked for."""
    {
        "ours": ours,
        "killed": killed,
        "resumed": resumed,
        "others": others,
        "resumed-other": resumed_other,
        "tracker": tracked,
    }[what](folder)


def opened(folder: str, run_id: str, **config: object) -> wandb.Run:
    """Return a new offline run."""
    settings = wandb.Settings(console="off", x_disable_stats=True)
    return wandb.init(mode="offline", dir=folder, project="sweep", id=run_id, config=config, settings=settings)


def manifest(mixture: Mixture = MIXTURE, role: str = "train") -> dict[str, object]:
    """Return what our tracker writes into the config."""
    return RunManifest(DOMAINS, mixture, sweep="pilot", role=role).to_dict()


def log(run: wandb.Run, first: int, last: int, *, made: float = 1000.0, add: float = 0.0) -> None:
    """Log rows in our tracker's form; the host's own calls come in between."""
    for step in range(first, last):
        run.log({"train/loss": 1.0, "train/text": "no number", "train/nested": {"a": 1.0}})
        losses = {metric_names.key(metric_names.EVAL_LOSS, domain): loss(domain, step) + add for domain in DOMAINS}
        run.log(
            {metric_names.STEP: step, metric_names.TIME: made + step, metric_names.TOKENS: (step + 1) * 1000, **losses}
        )


def ours(folder: str) -> None:
    """Log a finished run, one whose config grows, one with odd values, one that failed, an analysis, another's."""
    with opened(folder, "whole", bimix=manifest(), lr=1e-3) as run:
        log(run, 0, STEPS)
    with opened(folder, "odd") as run:
        run.config["bimix"] = manifest()
        odd = (float("nan"), float("inf"), float("-inf"), 1e-310, -0.0)
        for step, value in enumerate(odd):
            run.log(
                {
                    metric_names.STEP: step,
                    metric_names.TOKENS: 10**15 + step,
                    metric_names.key(metric_names.EVAL_LOSS, "c++"): value,
                }
            )
        twice = {metric_names.STEP: 9, metric_names.TIME: 50.0, metric_names.key(metric_names.EVAL_LOSS, "c++"): 2.0}
        run.log(twice | {metric_names.TIME: 60.0, metric_names.key(metric_names.EVAL_LOSS, "c++"): 1.0})
        run.log(twice)  # a replay: made before what is there
        run.log(twice | {metric_names.TIME: 60.0, metric_names.key(metric_names.EVAL_LOSS, "c++"): 1.0})
    with opened(folder, "analysis", bimix=manifest(role="analysis")) as run:
        run.log({"x": 1})
    with opened(folder, "other", lr=1e-3) as run:
        run.log({"loss": 1})
    failed = opened(folder, "failed", bimix=manifest())
    failed.log({metric_names.STEP: 1, metric_names.key(metric_names.EVAL_LOSS, "c++"): 3.0})
    failed.finish(exit_code=3)


def tracked(folder: str) -> None:
    """Log by our own tracker, and one row twice."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": folder}
    tracker = WandbTracker("wandb:sweep", run_name="proxy 1")
    tracker.start(RunManifest(DOMAINS, MIXTURE, sweep="pilot"))
    for step in range(20):
        row = Row(
            step,
            1000.0 + step,
            {metric_names.TOKENS: step + 1.0, metric_names.key(metric_names.EVAL_LOSS, "c++"): loss("c++", step)},
        )
        tracker.log([row] if step % 7 else [row, row])
    tracker.write_artifact("bimix/curves.json", "{}")
    tracker.finish()


def killed(folder: str) -> None:
    """Log until killed."""
    run = opened(folder, "killed", bimix=manifest())
    log(run, 0, STEPS)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    time.sleep(600)


def resumed(folder: str) -> None:
    """Go on from step 50 with the run that was killed, to its end."""
    with opened(folder, "killed", bimix=manifest()) as run:
        log(run, RESUMED_AT, STEPS, made=5000.0, add=0.5)


def others(folder: str) -> None:
    """Log as HF Trainer's callback does with a dict of evaluation sets, and as Levanter does; one is unknown."""
    for run_id, share in (("hf-1", 0.25), ("hf-2", 0.5)):
        with opened(folder, run_id, data={"weights": {"code": share, "web": 1 - share}}) as run:
            _hugging_face(run, 10, 51)
    with opened(folder, "levanter") as run:
        for step in (10, 20):
            run.log({"throughput/total_tokens": step * 100, "train/loss": 4.0}, step=step)
            run.log({"eval/code/loss": 3.0 - step / 100, "eval/web/loss": 4.0, "eval/macro_loss": 3.5}, step=step)
    with opened(folder, "unknown") as run:
        run.log({"acc": 1})


def resumed_other(folder: str) -> None:
    """Go on with a run of HF Trainer from its checkpoint at step 30, to its end: W&B's steps begin at 0 again."""
    with opened(folder, "hf-1", data={"weights": {"code": 0.25, "web": 0.75}}) as run:
        _hugging_face(run, 40, 81)


def _hugging_face(run: wandb.Run, first: int, last: int) -> None:
    run.define_metric("*", step_metric="train/global_step", step_sync=True)
    for step in range(first, last, 10):
        run.log({"train/loss": 4.0, "train/num_input_tokens_seen": step * 100, "train/global_step": step})
        for domain, value in (("web", 5.0), ("code", 4.0)):
            speed = {f"eval/{domain}_runtime": 0.1, f"eval/{domain}_samples_per_second": 9.0}
            run.log({f"eval/{domain}_loss": value - step / 100, **speed, "train/global_step": step})


if __name__ == "__main__":
    main(*sys.argv[1:])
