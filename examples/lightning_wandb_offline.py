"""Lightning into W&B's offline files, and back: no account, no service, no network.

python examples/lightning_wandb_offline.py [--out FOLDER] [--runs 5] [--steps 120]

Plans a sweep, trains each run with a Lightning Trainer whose WandbLogger is offline, reads the files that W&B left and
analyses them. Leaves `wandb` with the runs, and `analysis/report.html`, in the folder. `wandb sync` sends the runs to
the service later; online, the same callback writes into the same run there, and the source is `wandb:ENTITY/PROJECT`.
"""

from __future__ import annotations

import os

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

import logging
import warnings
from argparse import Namespace

import torch
import wandb
from bimix_integrations.trainers.lightning import DomainLossCallback
from bimix_integrations.trainers.torch import IGNORE, align, token_losses
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import WandbLogger
from tiny import DOMAINS, Text, TinyModel, loader, options, tell
from torch import Tensor

from bimix_tracking import Mixture, analyze, plan_pilot


def main() -> None:
    """Plan, train, read back, analyse."""
    chosen = options(__doc__, "lightning-wandb-offline")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # the text is in memory
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning's own to mend
    plan = plan_pilot(DOMAINS, chosen.runs)
    text = Text()
    for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True):
        train(text, mixture, name, chosen, seed)
        print(f"{name}: {mixture}", flush=True)
    tell(analyze(f"wandb-offline:{chosen.out / 'wandb'}", chosen.tokens, out=chosen.out / "analysis"), chosen)


class Module(LightningModule):
    """Hands the loss of each token to the callback; a transformers model inside wouldn't have to."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.model = TinyModel(seed)

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean loss to train on, and the losses to count."""
        targets, _ = align(batch["labels"], batch["domain_ids"])
        losses = token_losses(self.model(batch["input_ids"]), targets)
        return {"loss": losses.sum() / (targets != IGNORE).sum(), "token_losses": losses}

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=4e-3)


def train(text: Text, mixture: Mixture, name: str, chosen: Namespace, seed: int) -> None:
    """Train one proxy run."""
    seed_everything(seed, verbose=False)
    callback = DomainLossCallback(DOMAINS, mixture, "wandb:", sweep="example", tokenizer="bytes")
    trainer = Trainer(
        max_steps=chosen.steps,
        val_check_interval=chosen.steps // 8,
        log_every_n_steps=chosen.steps // 8,
        accelerator="cpu",
        logger=WandbLogger(project="example", name=name, offline=True, save_dir=chosen.out),
        callbacks=[callback],
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(seed), loader(text.training(mixture, chosen.steps, seed)), loader(text.evaluation()))
    wandb.finish()  # the run is the logger's, and a callback doesn't end what it hasn't begun


if __name__ == "__main__":
    main()
