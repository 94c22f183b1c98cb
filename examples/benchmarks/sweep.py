"""A sweep trained as one batch of models: every run has its own mixture, seed and recorder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bimix_integrations.trainers.torch import DomainLossMeter
from models import Models  # in this folder
from tasks import CHANCE, NAMES, Task
from text import CONTEXT, DOMAINS, Text

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker
from bimix_tracking.data.targets import Target

_EVALUATIONS = 8
"""Of the domains' losses, in a run; the tasks are answered once, at its end, as benchmarks mostly are."""
_RATE, _WARM_UP = 4e-3, 32


@dataclass(frozen=True)
class Size:
    """How much is trained and evaluated."""

    steps: int
    batch: int
    held_out: int
    """Sequences of each domain on which its loss is taken."""
    questions: int
    """Of each task."""

    @property
    def tokens(self) -> int:
        """Bytes that a run is trained to predict."""
        return self.steps * self.batch * (CONTEXT - 1)


@dataclass(frozen=True)
class Run:
    """One model of a sweep."""

    name: str
    mixture: Mixture
    seed: int


class Laboratory:
    """The text, the tasks made from it, and what trains a sweep on them."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._text = Text()
        self.bytes = self._text.bytes
        self._held_out = self._text.evaluation(size.held_out)
        self._tasks = [Task.of(name, self._text.held_out, size.questions) for name in NAMES]

    @property
    def targets(self) -> list[Target]:
        """What is measured of each task: its accuracy, and two surrogates that have more digits."""
        found = []
        for task in self._tasks:
            name, questions = task.name, len(task)
            found += [
                Target(name, "accuracy", questions=questions, chance=CHANCE, group="accuracy", task=name),
                Target(f"{name}_bpb", "bpb", group="bits per byte", task=name),
                Target(f"{name}_choice", "score", higher_is_better=True, group="choice probability", task=name),
            ]
        return found

    def train(self, runs: Sequence[Run], *, tracker: str, sweep: str) -> dict[str, dict[str, float]]:
        """Train the runs side by side, log each to a run of its own, and return what each had at its end."""
        meters = [self._meter(run, tracker, sweep) for run in runs]
        models = Models([run.seed for run in runs], CONTEXT)
        optimizer = torch.optim.AdamW(models.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / _WARM_UP, total_iters=_WARM_UP)
        draws = [(run.mixture, self.size.batch, np.random.default_rng([run.seed, 1])) for run in runs]
        last: dict[str, dict[str, float]] = {}
        for step in range(1, self.size.steps + 1):
            batches = [self._text.batch(*draw) for draw in draws]
            sequences = torch.from_numpy(np.stack([rows for rows, _ in batches]))
            losses = models.losses(sequences)
            losses.mean((1, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            warm_up.step()
            for meter, (rows, ids), own in zip(meters, batches, losses.detach(), strict=True):
                meter.add(own, torch.from_numpy(rows[:, 1:]), torch.from_numpy(ids))
            if step % (self.size.steps // _EVALUATIONS) == 0:
                last = {run.name: row for run, row in zip(runs, self._losses(models, meters, step), strict=True)}
        answered = [task.scores(models, [run.seed for run in runs]) for task in self._tasks]
        for number, (run, meter) in enumerate(zip(runs, meters, strict=True)):
            values = {name: value for of_task in answered for name, value in of_task[number].items()}
            meter.record_targets(self.size.steps, values)
            meter.finish(self.size.steps)
            last[run.name] |= values
        return last

    def _meter(self, run: Run, tracker: str, sweep: str) -> DomainLossMeter:
        opened = open_tracker(tracker, run_name=run.name)
        recorder = DomainLossRecorder(
            DOMAINS, run.mixture, opened, sweep=sweep, tokenizer="bytes", targets=self.targets
        )
        return DomainLossMeter(recorder)

    @torch.no_grad()
    def _losses(self, models: Models, meters: Sequence[DomainLossMeter], step: int) -> list[dict[str, float]]:
        """Evaluate each domain's loss on the same held-out text for all models, and log it."""
        for number, name in enumerate(DOMAINS):
            for rows in torch.split(self._held_out[name], 64):
                ids = torch.full((len(rows),), number)
                for meter, own in zip(meters, models.losses(rows[None]), strict=True):
                    meter.add(own, rows[:, 1:], ids, split="eval")
        for meter in meters:
            meter.log_train(step)
        rows_logged = [meter.log_eval(step) for meter in meters]
        return [{name: row[f"bimix_eval_loss/{name}"] for name in DOMAINS} for row in rows_logged]
