"""Hugging Face's Trainer into MLflow, without a server: one collator, one callback, and the analysis beside the runs.

python examples/hf_trainer_mlflow.py [--out FOLDER] [--runs 5] [--steps 120]

Plans a sweep, trains a small GPT-2 from scratch on each mixture, analyses the sweep and writes the analysis back, as a
run of its own above them. Leaves `mlflow.db` and `analysis/report.html` in the folder. A whole study, with runs that
check the recommendation, is examples/pilot.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported

import logging
from argparse import Namespace

from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from tiny import BATCH, DOMAINS, Text, options, tell
from torch.utils.data import default_collate
from transformers import GPT2Config, GPT2LMHeadModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from bimix_tracking import Mixture, analyze, open_tracker, plan_pilot
from bimix_tracking.tracking.ports import Tracker


def main() -> None:
    """Plan, train, analyse, write back."""
    chosen = options(__doc__, "hf-trainer-mlflow")
    for name in ("alembic", "mlflow.store.db.utils"):  # the first touch of a new store lists its tables
        logging.getLogger(name).setLevel(logging.WARNING)
    sweep = f"mlflow+sqlite:///{chosen.out / 'mlflow.db'}#sweep"  # mlflow:sweep is wherever your MLflow is
    plan = plan_pilot(DOMAINS, chosen.runs)
    text = Text()
    for name, mixture, seed in zip(plan.names, plan.mixtures, plan.seeds, strict=True):
        train(text, mixture, open_tracker(sweep, run_name=name), chosen, seed)
        print(f"{name}: {mixture}", flush=True)
    tell(analyze(sweep, chosen.tokens, out=chosen.out / "analysis", write_back=True, nest=True), chosen)
    print(f"The runs: mlflow ui --backend-store-uri sqlite:///{chosen.out / 'mlflow.db'}")


def train(text: Text, mixture: Mixture, tracker: Tracker, chosen: Namespace, seed: int) -> None:
    """Train one proxy run."""
    set_seed(seed)
    config = GPT2Config(
        vocab_size=256, n_positions=128, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0,
        initializer_range=0.1,  # at this width GPT-2's 0.02 spends half of so short a run on a plateau
    )  # fmt: skip
    callback = DomainLossCallback(DOMAINS, mixture, tracker, sweep="example", tokenizer="bytes")
    every = chosen.steps // 8
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=str(chosen.out / "checkpoints"),
            remove_unused_columns=False,  # else Trainer drops each example's domain
            max_steps=chosen.steps,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=64,
            learning_rate=4e-3,
            lr_scheduler_type="constant",
            eval_strategy="steps",
            eval_steps=every,
            logging_steps=every,
            prediction_loss_only=True,
            save_strategy="no",
            report_to="none",  # the callback logs; "mlflow" beside it shares its run, if that is of the same experiment
            use_cpu=True,
            disable_tqdm=True,
            log_level="error",
            seed=seed,
        ),
        data_collator=DomainCollator(default_collate, DOMAINS),
        train_dataset=text.training(mixture, chosen.steps, seed),
        eval_dataset=text.evaluation(),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)  # a line a run is enough here
    trainer.train()


if __name__ == "__main__":
    main()
