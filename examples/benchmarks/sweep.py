"""A sweep trained as one batch of models: every run has its own mixture, seed and recorder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bimix_integrations.trainers.torch import DomainLossMeter
from models import Models  # in this folder
from tasks import CHANCE, NAMES, Task

from bimix_tracking import DomainLossRecorder, Mixture, open_tracker
from bimix_tracking.data.targets import Target

sys.path.append(str(Path(__file__).parents[1] / "pilot"))
from corpus import load  # found by the line above

CONTEXT = 64
"""Bytes of a sequence."""
DOMAINS = ("python", "bible", "metamath")
_HELD_OUT_EVERY = 20
"""Every so many stretches of text, one is for evaluation and for the tasks."""
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
        corpus = load()
        self.size = size
        self.bytes = {name: rows.size for name, rows in corpus.items()}
        self._text = {name: _sequences(np.delete(rows, np.s_[::_HELD_OUT_EVERY], 0)) for name, rows in corpus.items()}
        held_out = {name: _sequences(rows[::_HELD_OUT_EVERY]) for name, rows in corpus.items()}
        self._held_out = {name: torch.from_numpy(_spread(rows, size.held_out)) for name, rows in held_out.items()}
        self._tasks = [Task.of(name, held_out, size.questions) for name in NAMES]

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
        draws = [np.random.default_rng([run.seed, 1]) for run in runs]
        last: dict[str, dict[str, float]] = {}
        for step in range(1, self.size.steps + 1):
            batches = [self._batch(run.mixture, rng) for run, rng in zip(runs, draws, strict=True)]
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

    def _batch(
        self, mixture: Mapping[str, float], rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Draw sequences, each from a domain drawn by the mixture, and return the domains' ids with them."""
        ids = rng.choice(len(DOMAINS), self.size.batch, p=[mixture[name] for name in DOMAINS])
        rows = [self._text[DOMAINS[i]][rng.integers(len(self._text[DOMAINS[i]]))] for i in ids]
        return np.stack(rows).astype(np.int64), ids

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


def _sequences(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return rows.reshape(-1, CONTEXT)


def _spread(rows: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.int64]:
    """Return so many of the rows, from all parts of the text."""
    chosen = np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)
    return np.asarray(rows[chosen], np.int64)
