"""Hugging Face's Trainer, in one process or in several: `hf.py '{"folder": …, "scenarios": […]}'`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from torch.utils.data import IterableDataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from tests.e2e.scripts.toy import DOMAINS, MIXTURE, Features, examples, gpt2, leave, wait_to_be_killed

BATCH, EVALUATED, STEPS = 4, 23, 8
Options = dict[str, Any]


class InOrder(Trainer):
    """A trainer that takes examples as they come, however many processes there are."""

    def _get_train_sampler(self, *args: Any) -> SequentialSampler:
        return SequentialSampler(range(100))


class Stream(IterableDataset[dict[str, Any]]):
    """Examples that come one by one."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the examples."""
        yield from self.features


class Sized(Stream):
    """Examples that come one by one, and how many."""

    def __len__(self) -> int:
        return len(self.features)


def collate(features: Features) -> dict[str, Any]:
    """Return a batch of whatever columns there are."""
    return dict(default_data_collator(features))


class SaveAt(TrainerCallback):
    """Ask for a checkpoint at a step of its own choice, as callbacks do that watch a clock or a signal."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for it, after other callbacks were told what the trainer itself will do."""
        if state.global_step == self.step:
            control.should_save = True


class Pause(TrainerCallback):
    """Wait to be killed at an event of a step."""

    def __init__(self, folder: Path, event: str, step: int) -> None:
        self.folder, self.event, self.step = folder, event, step

    def _wait(self, event: str, step: int) -> None:
        if (event, step) == (self.event, self.step):
            wait_to_be_killed(self.folder)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait after an optimizer step."""
        self._wait("step_end", state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait after a checkpoint, which comes after the step's evaluation."""
        self._wait("save", state.global_step)


def train(options: Options) -> None:
    """Train and evaluate.

    Options: `folder`; perhaps `uri`, `arguments` (of the trainer), `stream` (sized or unsized), `sets` (evaluation by
    domain), `save_at` (a step), `pause` (an event and a step) and `resume` (a checkpoint).
    """
    folder = Path(options["folder"])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    given: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"), "max_steps": STEPS, "per_device_train_batch_size": BATCH // world,
        "per_device_eval_batch_size": 5, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "max_grad_norm": 0.0, "eval_strategy": "steps", "eval_steps": 4, "logging_steps": 2, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True,
        "log_level": "error", "dataloader_pin_memory": False,
    }  # fmt: skip
    features, evaluated = examples(100, 1), examples(EVALUATED, 2)
    stream = {"unsized": Stream, "sized": Sized}.get(options.get("stream", ""), list)
    sets: Any = stream(evaluated)
    if options.get("sets"):
        sets = {name: [one for one in evaluated if one["domain"] == name] for name in DOMAINS[:3]}
    watcher = DomainLossCallback(DOMAINS, MIXTURE, options.get("uri", f"jsonl:{folder / f'rank{rank}'}"))
    others: list[TrainerCallback] = [SaveAt(options["save_at"])] if "save_at" in options else []
    others += [Pause(folder, *options["pause"])] if "pause" in options else []
    trainer = InOrder(
        model=gpt2(),
        args=TrainingArguments(**given | options.get("arguments", {})),
        data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=stream(features),
        eval_dataset=sets,
        callbacks=[watcher, *others],
    )
    trainer.train(resume_from_checkpoint=options.get("resume"))


def main() -> None:
    """Run each scenario: its name is its folder, its content more options."""
    options = json.loads(sys.argv[1])
    for name, more in options["scenarios"].items():
        train({"folder": str(Path(options["folder"]) / name)} | more)
    leave()


if __name__ == "__main__":
    main()
