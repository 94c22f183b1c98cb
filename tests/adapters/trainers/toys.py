"""The toy that all trainers train: a GPT-2 of one layer on examples of uneven lengths, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bimix_integrations.trainers.torch import DomainLossMeter
from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from torch.nn import functional
from torch.utils.data import DataLoader, SequentialSampler
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, default_data_collator

from bimix_tracking import DomainLossRecorder
from bimix_tracking.tracking.ports import Tracker

DOMAINS = ["code", "web", "c++"]
STEPS, BATCH, TIME, VOCABULARY = 6, 4, 12, 17
Features = list[dict[str, Any]]


class InOrder(Trainer):
    """A trainer that takes examples as they come, so that another loop can take the same."""

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(range(100))


def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": TIME, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(
        GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    )


def examples(count: int, seed: int, domains: list[str] = DOMAINS) -> Features:
    """Return examples of uneven lengths: padding is where means of means go wrong."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = rng.integers(VOCABULARY, size=TIME)
        length = rng.integers(3, TIME + 1)
        labels = np.where(np.arange(TIME) < length, tokens, -100)
        made.append({"input_ids": tokens.tolist(), "labels": labels.tolist(), "domain": str(rng.choice(domains))})
    return made


def collate(features: Features) -> dict[str, Any]:
    return dict(default_data_collator(features))


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    given: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": STEPS, "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": 5, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "max_grad_norm": 0.0, "eval_strategy": "steps", "eval_steps": 3, "logging_steps": 2, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True,
        "log_level": "error", "dataloader_pin_memory": False,
    }  # fmt: skip
    return TrainingArguments(**given | changes)


def run_trainer(folder: Path, callback: DomainLossCallback | None, **options: Any) -> Trainer:
    trainer = make_trainer(folder, callback, **options)
    trainer.train()
    return trainer


def make_trainer(folder: Path, callback: DomainLossCallback | None, **options: Any) -> Trainer:
    changes = options.pop("arguments", {})
    more = options.pop("callbacks", [])
    kind: type[Trainer] = options.pop("kind", InOrder)
    return kind(
        model=options.pop("model", None) or (None if "model_init" in options else model()),
        args=arguments(folder, **changes),
        data_collator=options.pop("data_collator", DomainCollator(collate, DOMAINS)),
        train_dataset=options.pop("train_dataset", examples(100, 1)),
        eval_dataset=options.pop("eval_dataset", examples(23, 2)),
        callbacks=[*([callback] if callback else []), *more],
        **options,
    )


class Rows(list[dict[str, float]]):
    """A tracker that keeps the rows it was given, and those of later trainings in `later`."""

    uri = "memory:"
    certain = True
    remote = False
    run_id: str | None = None
    run_name: str | None = None
    key: str | None = None
    finished: bool | None = None

    def __init__(self, rows: Iterable[dict[str, float]] = ()) -> None:
        super().__init__(rows)
        self.later: list[Rows] = []

    def another(self) -> Rows:
        made = Rows()
        made.run_name, made.later = self.run_name, self.later
        self.later.append(made)
        return made

    def adopt_active(self) -> None:
        pass

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        raise AssertionError(run_id)

    def start(self, manifest: Any) -> None:
        self.manifest = manifest

    def log(self, rows: Any) -> None:
        self += [dict(row.metrics) for row in rows]

    def write_artifact(self, path: str, text: str) -> None:
        self.artifact = (path, text)

    def finish(self, *, ended: bool = True) -> None:
        self.finished = ended


def callback(rows: Tracker | None = None, **manifest: Any) -> DomainLossCallback:
    return DomainLossCallback(DOMAINS, {"code": 0.4, "web": 0.4, "c++": 0.2}, tracker=rows, **manifest)


def batches(features: Features, size: int) -> Iterator[dict[str, torch.Tensor]]:
    yield from DataLoader(features, batch_size=size, collate_fn=DomainCollator(collate, DOMAINS))  # type: ignore[arg-type]


def plain_loop(rows: Rows, accumulate: int = 1) -> None:
    """Train as the trainer does, in a loop of one's own."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-8)
    recorder = DomainLossRecorder(DOMAINS, {"code": 0.4, "web": 0.4, "c++": 0.2}, rows)
    meter = DomainLossMeter(recorder)
    stream = batches(examples(100, 1), BATCH)
    for step in range(1, STEPS + 1):
        window = [next(stream) for _ in range(accumulate)]
        # The trainer divides by all labels, the unpredicted first ones too: so do we, to train the same model.
        counted = sum(int((part["labels"] != -100).sum()) for part in window)
        net.train()
        for part in window:
            logits = net(part["input_ids"]).logits
            targets = part["labels"][:, 1:].reshape(-1)
            flat = logits[:, :-1].reshape(-1, VOCABULARY)
            (functional.cross_entropy(flat, targets, reduction="sum") / counted).backward()
            meter.update(logits, part["labels"], part["domain_ids"])
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0:
            meter.log_train(step)
        if step % 3 == 0:
            net.eval()
            with torch.no_grad():
                for part in batches(examples(23, 2), 7):
                    meter.update(net(part["input_ids"]).logits, part["labels"], part["domain_ids"], split="eval")
            meter.log_eval(step)
    recorder.finish(STEPS)


def by_step(rows: Rows) -> dict[float, dict[str, float]]:
    """Merge the rows of a step: which of two rows comes first is no part of the contract."""
    merged: dict[float, dict[str, float]] = {}
    for row in rows:
        merged.setdefault(row["bimix/step"], {}).update(row)
    return merged


def without_domain(features: Features) -> dict[str, Any]:
    """Collate as a trainer without a callback would."""
    return collate([{k: v for k, v in feature.items() if k != "domain"} for feature in features])
