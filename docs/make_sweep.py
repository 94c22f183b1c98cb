"""Make a sweep of proxy runs without training: their losses follow a known law, give or take some noise.

python docs/make_sweep.py jsonl:sweep [RUNS [SIZE]]

The pages of the documentation that need a sweep use this one. Its domains are code, web and books; what the laws find
can be compared with `truth` below. With a model size, such as 20M or 1B, the runs are of that size: the first RUNS of
twelve mixtures, the same for every size.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker, plan_pilot
from bimix_tracking.quantities import parameters, parse_parameters

DOMAINS = ("code", "web", "books")
RUNS, STEPS, STEP_TOKENS, EVERY = 12, 2_000, 2_000_000, 250
LAW = {"code": (0.30, 420.0, 0.30, 1.0), "web": (0.05, 380.0, 0.27, 2.2), "books": (0.08, 400.0, 0.28, 1.9)}
"""α, B, β, C of each domain in L = r^−α · (B / s^β + C)."""
SMALL, SIZES = 20e6, {"code": 0.07, "web": 0.05, "books": 0.06}
"""A larger model has losses (N / SMALL)^−exponent times these, for it sees tokens in proportion to its size."""


def truth(mixture: Mixture, tokens: float, size: float = SMALL) -> dict[str, float]:
    """Return the loss of each domain in nats per token, without noise.

    Args:
        mixture: Proportions.
        tokens: Seen in training.
        size: Parameters of the model.

    >>> {name: round(loss, 3) for name, loss in truth(Mixture.uniform(DOMAINS), 1e9).items()}
    {'code': 2.556, 'web': 3.816, 'books': 3.394}
    >>> {name: round(loss, 3) for name, loss in truth(Mixture.uniform(DOMAINS), 50e9, 1e9).items()}
    {'code': 1.943, 'web': 3.138, 'books': 2.684}
    """
    seen, level = tokens * SMALL / size, {name: (size / SMALL) ** -exponent for name, exponent in SIZES.items()}
    return {name: level[name] * mixture[name] ** -a * (b / seen**beta + c) for name, (a, b, beta, c) in LAW.items()}


def main(tracker: str, runs: int = RUNS, size: float | None = None) -> None:
    """Log the runs of a pilot to the tracker."""
    plan, step_tokens = plan_pilot(DOMAINS, runs if size is None else RUNS), STEP_TOKENS
    manifest: dict[str, Any] = {"sweep": "made-up"}
    if size is not None:
        step_tokens = round(STEP_TOKENS * size / SMALL)
        manifest |= {"model_size": round(size), "batch_tokens": step_tokens}
    for number, (name, mixture) in enumerate(list(zip(plan.names, plan.mixtures, strict=True))[:runs]):
        rng = np.random.default_rng(number if size is None else [number, round(size)])
        off = np.exp(rng.normal(0, 0.003, len(DOMAINS)))  # a run's own luck: 0.3 % of each loss
        called = name if size is None else f"{parameters(size)}-{name}"
        recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(tracker, run_name=called), **manifest)
        for step in range(EVERY, STEPS + 1, EVERY):
            tokens = np.round(EVERY * step_tokens * mixture.array(DOMAINS)).astype(int)
            losses = off * list(truth(mixture, step * step_tokens, size or SMALL).values())
            recorder.add(range(len(DOMAINS)), losses * tokens, tokens)
            recorder.add(range(len(DOMAINS)), losses * 100_000, [100_000] * len(DOMAINS), split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(f"usage: python {sys.argv[0]} TRACKER [RUNS [SIZE]], such as jsonl:sweep 12 20M")
    main(sys.argv[1], *map(int, sys.argv[2:3]), *map(parse_parameters, sys.argv[3:]))
