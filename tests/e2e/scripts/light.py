"""Lightning, in one process or in several: `light.py '{"folder": …, "scenarios": {…}}'`."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bimix_integrations.trainers.lightning import DomainLossCallback
from bimix_integrations.trainers.torch import align, token_losses
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from tests.e2e.scripts.toy import DOMAINS, MIXTURE, Tiny, examples, leave, stack, wait_to_be_killed

STEPS, BATCH, EVALUATED = 12, 4, 23
Options = dict[str, Any]


class Module(LightningModule):
    """A float64 model that returns its token losses."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Tiny()

    def _step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        targets, _ = align(batch["labels"], batch["domain_ids"])
        losses = token_losses(self.model(batch["input_ids"]), targets)
        # By a fixed number, so that the mean of two processes' gradients is half of one's.
        return {"loss": losses.sum() * self.trainer.world_size / (BATCH * targets.shape[1]), "token_losses": losses}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the loss and the token losses."""
        return self._step(batch)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the loss and the token losses."""
        return self._step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer with a state."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Resumable:
    """Batches in a fixed order, this process's part of each, that go on where a checkpoint was."""

    def __init__(self) -> None:
        self.done = 0

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        features = examples(STEPS * BATCH, 1)
        while self.done < STEPS:
            first = self.done * BATCH
            self.done += 1
            yield stack(features[first : first + BATCH][rank::world])
        self.done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where it is."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self.done = state["done"]


class Pause(Callback):
    """Wait to be killed after the validation of a step, or after the step."""

    def __init__(self, folder: Path, event: str, step: int) -> None:
        self.folder, self.event, self.step = folder, event, step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Wait once all else of the step is done."""
        if self.event == "step" and trainer.global_step == self.step:
            wait_to_be_killed(self.folder)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait after the validation, and before any checkpoint of it."""
        if self.event == "validation" and trainer.global_step == self.step:
            wait_to_be_killed(self.folder)


def train(options: Options) -> None:
    """Train and validate.

    Options: `folder`; perhaps `uri`, `sets` (a list or a dict of validation sets), `saved` (when a checkpoint comes:
    with the training step, or after its validation), `pause` (an event and a step) and `resume` (a checkpoint).
    """
    folder, world = Path(options["folder"]), int(os.environ.get("WORLD_SIZE", "1"))
    uri = options.get("uri", f"jsonl:{folder}/rank{os.environ.get('RANK', '0')}")
    evaluated = examples(EVALUATED, 2)
    parts = [evaluated] if "sets" not in options else [evaluated[:9], evaluated[9:]]
    loaders: list[Any] = [DataLoader(part, batch_size=4, collate_fn=stack) for part in parts]  # type: ignore[arg-type]
    given: Any = {"list": loaders, "dict": dict(zip(("a", "b"), loaders, strict=False)), None: loaders[0]}
    callbacks: list[Callback] = [DomainLossCallback(DOMAINS, MIXTURE, uri)]
    if "pause" in options:
        callbacks.append(Pause(folder, *options["pause"]))
    if "saved" in options:
        where: dict[str, Any] = {"every_n_train_steps": 4} if options["saved"] == "step" else {"every_n_epochs": 1}
        callbacks.append(ModelCheckpoint(folder / "checkpoints", filename="{step}", save_top_k=-1, **where))
    trainer = Trainer(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", max_steps=STEPS, logger=False,
        enable_checkpointing="saved" in options, enable_progress_bar=False, enable_model_summary=False,
        log_every_n_steps=2, val_check_interval=4, default_root_dir=folder, use_distributed_sampler=True,
        callbacks=callbacks,
    )  # fmt: skip
    with warnings.catch_warnings():
        theirs = ".*does not have many workers.*|.*LeafSpec.*|.*isinstance.treespec.*|.*exists and is not empty.*"
        warnings.filterwarnings("ignore", message=theirs)
        trainer.fit(Module(), Resumable(), given[options.get("sets")], ckpt_path=options.get("resume"))


def main() -> None:
    """Run each scenario: its name is its folder, its content more options."""
    options = json.loads(sys.argv[1])
    for name, more in options["scenarios"].items():
        train({"folder": str(Path(options["folder"]) / name)} | more)
    leave()


if __name__ == "__main__":
    main()
