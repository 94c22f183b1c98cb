"""MosaicML Composer for real, by hand: it pins torch < 2.7.1, so no environment of ours can have it.

    python3.11 -m venv /tmp/composer && /tmp/composer/bin/pip install -e ".[composer]"
    /tmp/composer/bin/python tests/adapters/trainers/composer_by_hand.py

`test_loops.py` drives the same callback through the same events, in the order that this script sees.
"""

# ruff: noqa: T201  # a script

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from bimix_integrations.trainers.composer import DomainLossCallback
from bimix_integrations.trainers.torch import DomainLossMeter, align, token_losses
from composer import Callback, ComposerModel, Evaluator, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bimix_tracking.recording.recorder import DomainLossRecorder
from bimix_tracking.tracking.local import JsonlTracker

DOMAINS, MIXTURE = ["code", "web", "c++"], {"code": 0.4, "web": 0.4, "c++": 0.2}
STEPS, BATCH, TIME, VOCABULARY = 6, 4, 12, 17
Batch = dict[str, Tensor]
Row = dict[str, float]


class Tiny(nn.Module):
    """A model in float64, so that two ways to train it differ by nothing that counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(VOCABULARY, 8), nn.Linear(8, VOCABULARY)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(torch.tanh(self.embedding(tokens)))
        return logits


class Toy(ComposerModel):  # type: ignore[misc]  # not installed where types are checked
    """The model as Composer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tiny()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return token losses and their mean over all places, the ignored ones too, which Composer weights rightly."""
        losses = token_losses(self.net(batch["input_ids"]), align(batch["labels"], batch["domain_ids"])[0])
        return {"loss": losses.mean(), "token_losses": losses}

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss to go down."""
        return outputs["loss"]

    def eval_forward(self, batch: Batch, outputs: Any = None) -> dict[str, Tensor]:
        """Return the same in evaluation."""
        return outputs if outputs is not None else self.forward(batch)


def examples(count: int, seed: int) -> list[Batch]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        tokens = torch.from_numpy(rng.integers(VOCABULARY, size=TIME))
        labels = torch.where(torch.arange(TIME) < int(rng.integers(3, TIME + 1)), tokens, -100)
        made.append({"input_ids": tokens, "labels": labels, "domain_ids": torch.tensor(int(rng.integers(3)))})
    return made


def loader(count: int, seed: int, size: int) -> DataLoader[Any]:
    return DataLoader(examples(count, seed), batch_size=size)  # type: ignore[arg-type]


def plain_loop(tracker: Any, steps: int, evaluations: tuple[int, ...]) -> None:
    """Train as Composer does."""
    net = Tiny()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS, MIXTURE, tracker))

    def add(batch: Batch, split: str) -> Tensor:
        targets, ids = align(batch["labels"], batch["domain_ids"])
        losses = token_losses(net(batch["input_ids"]), targets)
        meter.add(losses, targets, ids, split=split)
        return losses.mean()

    stream: Iterator[Batch] = iter(loader(100, 1, BATCH))
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        add(next(stream), "train").backward()
        optimizer.step()
        if step % 2 == 0:
            meter.log_train(step)
        if step in evaluations:
            with torch.no_grad():
                for batch in (*loader(13, 2, 5), *loader(10, 3, 5)):
                    add(batch, "eval")
            meter.log_eval(step)
    meter.finish(steps)


class Events(Callback):  # type: ignore[misc]
    """Note the order of events, for the loop in `test_loops.py`."""

    names = (
        "fit_start", "after_forward", "batch_end", "eval_start", "eval_after_forward", "eval_end", "eval_after_all",
        "batch_checkpoint", "fit_end", "eval_standalone_start", "eval_standalone_end",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run_event(self, event: Any, state: Any, logger: Any) -> None:
        """Note an event."""
        if event.value in self.names:
            self.seen.append(f"{event.value} {state.timestamp.batch.value}")


def composer_loop(uri: str, steps: int, folder: Path, resume: Path | None = None) -> tuple[Trainer, Events]:
    """Train with two evaluators, micro-batches of 2 and a checkpoint after 3 steps."""
    model, events = Toy(), Events()
    trainer = Trainer(
        model=model, train_dataloader=loader(100, 1, BATCH), max_duration=f"{steps}ba", device="cpu",
        device_train_microbatch_size=2, eval_interval="3ba", progress_bar=False, log_to_console=False,
        eval_dataloader=[
            Evaluator(label="a", dataloader=loader(13, 2, 5)), Evaluator(label="b", dataloader=loader(10, 3, 5)),
        ],
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0),
        callbacks=[DomainLossCallback(DOMAINS, MIXTURE, uri, every=2), events],
        save_folder=str(folder), save_interval="3ba", save_overwrite=True,
        load_path=None if resume is None else str(resume),
    )  # fmt: skip
    trainer.fit()
    return trainer, events


def rows_of(folder: Path) -> list[Row]:
    (run,) = folder.iterdir()
    if not (run / "FINISHED").exists():
        raise AssertionError(f"{run} has not ended")
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def curves_of(folder: Path) -> list[Row]:
    (curves,) = folder.rglob("curves.json")
    rows: list[Row] = json.loads(curves.read_text())["rows"]
    return rows


def same(found: list[Row], expected: list[Row]) -> None:
    """Compare rows, whatever the order of two at the same step.

    Raises:
        AssertionError: They differ.
    """
    merged: list[dict[float, Row]] = [{}, {}]
    for into, rows in zip(merged, (found, expected), strict=True):
        for row in rows:
            into.setdefault(row["bimix/step"], {}).update(row)
    if {s: set(r) for s, r in merged[0].items()} != {s: set(r) for s, r in merged[1].items()}:
        raise AssertionError(f"keys differ: {found}, expected {expected}")
    for step, row in merged[1].items():
        for name, value in row.items():
            if not np.isclose(merged[0][step][name], value, rtol=1e-12, atol=0):
                raise AssertionError(f"{name} at step {step}: {merged[0][step][name]} against {value}")


def main(folder: Path) -> None:
    def plain(name: str, steps: int, evaluations: tuple[int, ...]) -> Path:
        plain_loop(JsonlTracker(f"jsonl:{folder / name}"), steps, evaluations)
        return folder / name

    whole = plain("plain", STEPS, (3, 6))
    trainer, events = composer_loop(f"jsonl:{folder / 'composer'}", STEPS, folder / "saved")
    same(rows_of(folder / "composer"), rows_of(whole))
    same(curves_of(folder / "composer"), curves_of(whole))
    print("events of the last steps:", ", ".join(events.seen[events.seen.index("batch_end 5") :]))
    trainer.eval()
    same(rows_of(folder / "composer")[-1:], [row for row in rows_of(whole) if "bimix_eval_loss/web" in row][-1:])
    print("numbers of the plain loop, two evaluators as one row, an evaluation after training: the same")

    _, _ = composer_loop(f"jsonl:{folder / 'odd'}", 5, folder / "saved-odd")
    odd = plain("plain-odd", 5, (3, 5))
    same(rows_of(folder / "odd"), rows_of(odd))
    same(curves_of(folder / "odd"), curves_of(odd))
    print("the evaluation that Composer runs after fit_end: in the rows and in the curves")

    composer_loop(f"jsonl:{folder / 'odd'}", STEPS, folder / "saved-on", next((folder / "saved-odd").glob("*ba5*")))
    longer = plain("plain-longer", STEPS, (3, 5, 6))
    same(curves_of(folder / "odd"), curves_of(longer))
    print("and in the curves of a longer training from the checkpoint before it")

    composer_loop(f"jsonl:{folder / 'cut'}", 4, folder / "saved-cut")
    composer_loop(f"jsonl:{folder / 'cut'}", STEPS, folder / "saved-on", next((folder / "saved-cut").glob("*ba3*")))
    same(rows_of(folder / "cut"), rows_of(whole))
    same(curves_of(folder / "cut"), curves_of(whole))
    if len(rows_of(folder / "cut")) != len(rows_of(whole)):
        raise AssertionError("rows are doubled or missing")
    print("resumed from a checkpoint: the rows of an uninterrupted run")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as scratch:
        main(Path(scratch))
    sys.stdout.flush()
