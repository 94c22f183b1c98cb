"""Stands for your training script: losses follow the law, with no model behind them. Put yours in its place.

python proxy.py --tracker URI --mixture '{"code": 0.3, "web": 0.7}' --name pilot-01 --seed 0
python proxy.py --run=pilot-01 --runs='{"pilot-01": {"mixture": …, "seed": 0}, …}'   # as a W&B agent does
"""

from __future__ import annotations

import argparse
import json
import random

from bimix_tracking import DomainLossRecorder, open_tracker

EVALUATED = 512


def main() -> None:
    """Train one proxy run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tracker", default="wandb:")
    for option in ("--mixture", "--name", "--run", "--runs"):
        parser.add_argument(option)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sweep", default="recipe")
    options = parser.parse_args()
    name, seed = options.name, options.seed
    if options.runs:  # a W&B sweep's parameters: all runs, and which one this is
        name = options.run
        told = json.loads(options.runs)[name]
        mixture, seed = told["mixture"], told["seed"]
    else:
        mixture = json.loads(options.mixture)

    recorder = DomainLossRecorder(
        list(mixture), mixture, open_tracker(options.tracker, run_name=name), sweep=options.sweep
    )
    noise = random.Random(seed)
    ids, seen = list(range(len(mixture))), 0
    for step, new in enumerate((1000, 3000, 12000, 48000), 1):
        seen += new
        tokens = [round(new * share) for share in mixture.values()]
        losses = [
            share**-0.1 * (90 / (seen * (1 + i)) ** 0.5 + 3 - i % 3) * (1 + noise.gauss(0, 1e-4))
            for i, share in enumerate(mixture.values())
        ]
        recorder.add(ids, [loss * count for loss, count in zip(losses, tokens, strict=True)], tokens)
        recorder.log_train(step)
        recorder.add(ids, [EVALUATED * loss for loss in losses], [EVALUATED] * len(ids), split="eval")
        recorder.log_eval(step)
    recorder.finish()


if __name__ == "__main__":
    main()
