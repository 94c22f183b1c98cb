"""One proxy run: a byte-level GPT from scratch, on one mixture, with Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from corpus import CONTEXT, evaluation_set, training_set
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from bimix_tracking import DomainLossRecorder, open_tracker


def train(
    corpus: Mapping[str, npt.NDArray[np.uint8]],
    mixture: Mapping[str, float],
    *,
    name: str,
    tracker: str,
    sweep: str,
    steps: int,
    evaluations: int,
    seed: int,
    batch: int,
    eval_sequences: int,
) -> DomainLossRecorder:
    """Train one run, log it to the tracker, and return its recorder."""
    set_seed(seed)
    domains = list(corpus)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256, n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
            initializer_range=0.1,  # at this width GPT-2's 0.02 spends half of so short a run on a plateau
        )
    )  # fmt: skip
    callback = DomainLossCallback(
        domains,
        mixture,
        tracker=open_tracker(tracker, run_name=name),
        sweep=sweep,
        tokenizer="bytes",
        batch_tokens=batch * (CONTEXT - 1),
    )
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(Path(folder)),
                remove_unused_columns=False,  # keeps `domain`
                max_steps=steps,
                per_device_train_batch_size=batch,
                per_device_eval_batch_size=64,
                learning_rate=4e-3,
                adam_beta2=0.95,
                lr_scheduler_type="constant_with_warmup",  # every evaluation is of the same schedule
                warmup_steps=steps // evaluations,
                eval_delay=2 * steps // evaluations,  # losses during the warm-up follow no law
                eval_strategy="steps",
                eval_steps=steps // evaluations,
                logging_steps=max(1, steps // (2 * evaluations)),
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                seed=seed,
                disable_tqdm=True,
                prediction_loss_only=True,
                log_level="error",
            ),
            data_collator=DomainCollator(_collate, domains),
            train_dataset=training_set(corpus, mixture, steps * batch, seed),
            eval_dataset=evaluation_set(corpus, eval_sequences),
            callbacks=[callback],
        )
        trainer.remove_callback(PrinterCallback)  # the pilot prints one line a run
        trainer.train()
    return callback.recorder


def _collate(features: list[Any]) -> dict[str, Any]:
    return dict(default_data_collator(features))
