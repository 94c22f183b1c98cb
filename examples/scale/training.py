"""Runs of one model size, trained as one batch; each has its own mixture, seed, recorder and place in the schedule."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bimix_integrations.trainers.torch import DomainLossMeter
from torch import Tensor

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from models import Models  # found by the line above, as is the next
from text import CONTEXT, DOMAINS, Text

__all__ = ["DOMAINS", "Run", "Scale", "Text", "train"]

_RATE, _WARM_UP, _LAST = 4e-3, 0.05, 0.1
"""The highest learning rate, the part of the steps in which it rises, and what is left of it at the end."""
EVALUATIONS = 8
"""Of a run, at equal distances."""


@dataclass(frozen=True)
class Scale:
    """What runs of one model size have in common.

    Args:
        width: Of the model.
        steps: Of the learning rate's schedule, which is the run.
        batch: Sequences of a step.
        held_out: Sequences of each domain on which its loss is taken.
    """

    width: int
    steps: int
    batch: int
    held_out: int

    @property
    def tokens(self) -> int:
        """Bytes that a run is trained to predict: the length of its schedule."""
        return self.steps * self.batch * (CONTEXT - 1)

    @property
    def model_size(self) -> int:
        """Parameters of a model without embeddings."""
        return Models([0], CONTEXT, self.width).inner_size

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, as a part of the highest: up in a line, down in half a cosine."""
        warm_up = _WARM_UP * self.steps
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / (self.steps - warm_up)
        return _LAST + (1 - _LAST) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Run:
    """One model."""

    name: str
    mixture: Mixture
    seed: int


def train(runs: Sequence[Run], scale: Scale, text: Text, *, tracker: str, sweep: str) -> None:
    """Train the runs side by side, and log each to a run of its own."""
    models = Models([run.seed for run in runs], CONTEXT, scale.width)
    meters = [_meter(run, scale, models, tracker, sweep) for run in runs]
    optimizer = torch.optim.AdamW(models.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale.rate)
    draws = [(run.mixture, scale.batch, np.random.default_rng([run.seed, 1])) for run in runs]
    held_out = text.evaluation(scale.held_out)
    for step in range(1, scale.steps + 1):
        batches = [text.batch(*draw) for draw in draws]
        losses = models.losses(torch.from_numpy(np.stack([rows for rows, _ in batches])))
        losses.mean((1, 2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        for meter, (rows, ids), own in zip(meters, batches, losses.detach(), strict=True):
            meter.add(own, torch.from_numpy(rows[:, 1:]), torch.from_numpy(ids))
        if step % (scale.steps // EVALUATIONS) == 0:
            _evaluate(models, meters, held_out, step)
    for meter in meters:
        meter.finish(scale.steps)


def _meter(run: Run, scale: Scale, models: Models, tracker: str, sweep: str) -> DomainLossMeter:
    recorder = DomainLossRecorder(
        DOMAINS, run.mixture, open_tracker(tracker, run_name=run.name), sweep=sweep, tokenizer="bytes",
        batch_tokens=scale.batch * (CONTEXT - 1),
        model_size=models.inner_size, total_parameters=models.size, schedule_tokens=scale.tokens,
    )  # fmt: skip
    return DomainLossMeter(recorder)


@torch.no_grad()
def _evaluate(models: Models, meters: Sequence[DomainLossMeter], held_out: dict[str, Tensor], step: int) -> None:
    """Log each domain's loss, of all models on the same text."""
    for number, name in enumerate(DOMAINS):
        for rows in torch.split(held_out[name], 64):
            ids = torch.full((len(rows),), number)
            for meter, own in zip(meters, models.losses(rows[None]), strict=True):
                meter.add(own, rows[:, 1:], ids, split="eval")
    for meter in meters:
        meter.log_train(step)
        meter.log_eval(step)
