"""Make a sweep of proxy runs without training: their losses follow a known law, give or take some noise.

python docs/make_sweep.py jsonl:sweep [RUNS]

The pages of the documentation that need a sweep use this one. Its domains are code, web and books; what the laws find
can be compared with `truth` below.
"""

from __future__ import annotations

import sys

import numpy as np

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker, plan_pilot

DOMAINS = ("code", "web", "books")
RUNS, STEPS, STEP_TOKENS, EVERY = 12, 2_000, 2_000_000, 250
LAW = {"code": (0.30, 420.0, 0.30, 1.0), "web": (0.05, 380.0, 0.27, 2.2), "books": (0.08, 400.0, 0.28, 1.9)}
"""α, B, β, C of each domain in L = r^−α · (B / s^β + C)."""


def truth(mixture: Mixture, tokens: float) -> dict[str, float]:
    """Return the loss of each domain in nats per token, without noise.

    >>> {name: round(loss, 3) for name, loss in truth(Mixture.uniform(DOMAINS), 1e9).items()}
    {'code': 2.556, 'web': 3.816, 'books': 3.394}
    """
    return {name: mixture[name] ** -a * (b / tokens**beta + c) for name, (a, b, beta, c) in LAW.items()}


def main(tracker: str, runs: int = RUNS) -> None:
    """Log the runs of a pilot to the tracker."""
    plan = plan_pilot(DOMAINS, runs)
    for number, (name, mixture) in enumerate(zip(plan.names, plan.mixtures, strict=True)):
        rng = np.random.default_rng(number)
        off = np.exp(rng.normal(0, 0.003, len(DOMAINS)))  # a run's own luck: 0.3 % of each loss
        recorder = DomainLossRecorder(DOMAINS, mixture, open_tracker(tracker, run_name=name), sweep="made-up")
        for step in range(EVERY, STEPS + 1, EVERY):
            tokens = np.round(EVERY * STEP_TOKENS * mixture.array(DOMAINS)).astype(int)
            losses = off * list(truth(mixture, step * STEP_TOKENS).values())
            recorder.add(range(len(DOMAINS)), losses * tokens, tokens)
            recorder.add(range(len(DOMAINS)), losses * 100_000, [100_000] * len(DOMAINS), split="eval")
            recorder.log_train(step)
            recorder.log_eval(step)
        recorder.finish()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f"usage: python {sys.argv[0]} TRACKER [RUNS], such as jsonl:sweep 12")
    main(sys.argv[1], *map(int, sys.argv[2:]))
