"""A loop in torchtitan's style: a loss function is wrapped, and a distributed checkpoint holds what was counted.

python examples/torchtitan_style.py [--out FOLDER] [--runs 5] [--steps 120]

Plans a sweep and trains each run from `torch.distributed.checkpoint`. The first run is cut off after half of its steps
and goes on from its checkpoint: what it logs then is what an uninterrupted run would have logged. Leaves `runs`,
`checkpoints` and `analysis/report.html` in the folder. torchtitan itself isn't needed; the loop has its form: batches
are ({inputs and extras}, labels already shifted), and the loss is of predictions and labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_integrations.trainers.torchtitan import DomainLoss, MeterState
from tiny import DOMAINS, Text, TinyModel, loader, options, tell
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn import functional
from torch.utils.data import Dataset

from bimix_tracking import DomainLossRecorder, Mixture, analyze, open_tracker, plan_pilot

Batch = tuple[dict[str, Tensor], Tensor]


def main() -> None:
    """Plan, train, cut off one run, go on, analyse."""
    chosen = options(__doc__, "torchtitan-style")
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized.*")  # one process
    source = f"jsonl:{chosen.out / 'runs'}"
    plan = plan_pilot(DOMAINS, chosen.runs)
    text = Text()
    for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True):
        folder = chosen.out / "checkpoints" / name
        if name == plan.names[0]:
            Run(source, name, mixture, seed, chosen.steps, folder).train(text, until=chosen.steps // 2)
            print(f"{name} is cut off after step {chosen.steps // 2}, and goes on from {folder}")
        Run(source, name, mixture, seed, chosen.steps, folder).train(text, until=chosen.steps)
    tell(analyze(source, tokens=chosen.tokens, out=chosen.out / "analysis"), chosen)


class Run:
    """One proxy run, and all of its state that a checkpoint holds."""

    def __init__(self, source: str, name: str, mixture: Mixture, seed: int, steps: int, folder: Path) -> None:
        self.mixture, self.seed, self.steps, self.step, self.folder = mixture, seed, steps, 0, folder
        self.model = TinyModel(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-3)
        tracker = open_tracker(source, run_name=name)
        self.meter = DomainLossMeter(DomainLossRecorder(DOMAINS, mixture, tracker, tokenizer="bytes"))
        self.loss = {split: DomainLoss(self.meter, cross_entropy, split) for split in ("train", "eval")}

    def train(self, text: Text, until: int) -> None:
        """Train from the checkpoint, if there is one, up to a step."""
        if self.folder.exists():
            self.load()
        examples = text.training(self.mixture, self.steps, self.seed)
        for inputs, labels in islice(batches(examples), self.step, until):
            self.step += 1
            self.loss_of("train", inputs, labels).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.step % (self.steps // 8) == 0:
                self.meter.log_train(self.step)
                with torch.no_grad():
                    for held_out in batches(text.evaluation()):
                        self.loss_of("eval", *held_out)
                self.meter.log_eval(self.step)
            if self.step == self.steps // 2:
                save(self.state(), checkpoint_id=self.folder)
        if until == self.steps:
            self.meter.finish(self.step)

    def loss_of(self, split: str, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Return the loss of a batch; the wrapped function counts it by domain."""
        with self.loss[split].batch(inputs["domain_ids"]):
            loss: Tensor = self.loss[split](self.model(inputs["input"]), labels)
            return loss

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint saves, and loads into: torchtitan's `states`, with one more entry."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "step": self.step, "bimix": MeterState(self.meter)}

    def load(self) -> None:
        """Go on from the checkpoint."""
        state = self.state()
        load(state, checkpoint_id=self.folder)
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.step = state["step"]


def cross_entropy(pred: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of a token, as torchtitan's loss function does."""
    return functional.cross_entropy(pred.flatten(0, 1), labels.flatten())


def batches(examples: Dataset[dict[str, Any]]) -> Iterator[Batch]:
    """Yield batches as torchtitan's loaders do."""
    for batch in loader(examples):
        yield {"input": batch["input_ids"][:, :-1], "domain_ids": batch["domain_ids"]}, batch["labels"][:, 1:]


if __name__ == "__main__":
    main()
