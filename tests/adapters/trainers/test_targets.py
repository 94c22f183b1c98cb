"""Targets through the trainers' callbacks: at their step, beside the losses, from a trainer's own metrics too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bimix_integrations.trainers.lightning import DomainLossCallback as LightningCallback
from bimix_integrations.trainers.torch import DomainLossMeter
from lightning.pytorch import Callback, Trainer
from transformers import TrainerCallback

from bimix_tracking import DomainLossRecorder
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import RecorderError
from tests.adapters.trainers.test_lightning import MIXTURE, Module, loader, quiet
from tests.adapters.trainers.toys import BATCH, DOMAINS, Rows, by_step, callback, examples, make_trainer, run_trainer

TARGETS = [Target("mmlu", "accuracy", chance=0.25), Target("acc", "accuracy")]


class Benchmarks(TrainerCallback):
    """As teams write it: a benchmark at each evaluation."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.of.record_targets(state.global_step, {"mmlu": torch.tensor(0.3)}, questions={"mmlu": 100})


def accuracy(found: Any) -> dict[str, float]:
    return {"acc": float(np.mean(found.predictions.argmax(-1) == found.label_ids))}


def test_a_benchmark_at_each_evaluation_is_at_its_step(tmp_path: Path) -> None:
    rows = Rows()
    ours = callback(rows, targets=TARGETS)
    run_trainer(tmp_path, ours, callbacks=[Benchmarks(ours)])

    merged = by_step(rows)
    assert [step for step, row in merged.items() if row.get("bimix_target/mmlu") == pytest.approx(0.3)] == [3, 6]
    assert all("bimix_eval_loss/web" in merged[step] for step in (3, 6))
    assert merged[6]["bimix_questions/mmlu"] == 100
    assert [row["bimix_target/mmlu"] for row in ours.recorder.curves()["rows"]] == pytest.approx([0.3, 0.3])


def test_metrics_of_the_trainer_are_targets_where_they_are_named(tmp_path: Path) -> None:
    rows = Rows()
    ours = callback(rows, targets=TARGETS, targets_from_metrics={"eval_acc": "acc"})
    trainer = run_trainer(tmp_path, ours, compute_metrics=accuracy)
    logged = {entry["step"]: entry["eval_acc"] for entry in trainer.state.log_history if "eval_acc" in entry}

    found = {int(step): row["bimix_target/acc"] for step, row in by_step(rows).items() if "bimix_target/acc" in row}

    assert found == logged
    assert set(found) == {3, 6}


def test_what_is_evaluated_after_training_joins_its_last_step_and_the_run_ends_again(tmp_path: Path) -> None:
    rows = Rows()
    ours = callback(rows, targets=TARGETS)
    run_trainer(tmp_path, ours)

    ours.record_targets(6, {"mmlu": 0.5})

    assert rows[-1]["bimix_target/mmlu"] == 0.5
    assert rows[-1]["bimix/tokens"] == by_step(rows)[6]["bimix/tokens"]
    assert rows.finished
    assert '"bimix_target/mmlu": 0.5' in rows.artifact[1]


def test_what_is_evaluated_before_training_is_said(tmp_path: Path) -> None:
    ours = callback(Rows(), targets=TARGETS)
    make_trainer(tmp_path, ours)

    with pytest.warns(UserWarning, match="targets are recorded from the beginning of training on"):
        ours.record_targets(0, {"mmlu": 0.5})
    ours.record_targets(0, None)  # as on all processes but the first


class Resumed(Rows):
    """A tracker that has nothing after the checkpoint."""

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        return []


@pytest.mark.filterwarnings("ignore:the learning-rate schedule was made for")
def test_a_checkpoint_holds_the_targets_of_its_step(tmp_path: Path) -> None:
    first, second = Rows(), Resumed()
    ours = callback(first, targets=TARGETS, targets_from_metrics={"eval_acc": "acc"})
    saving = {"save_strategy": "steps", "save_steps": 3}
    run_trainer(tmp_path, ours, compute_metrics=accuracy, arguments=saving | {"max_steps": 3})
    again = callback(second, targets=TARGETS, targets_from_metrics={"eval_acc": "acc"})
    trainer = make_trainer(tmp_path, again, compute_metrics=accuracy, arguments=saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    curves = again.recorder.curves()["rows"]
    assert [row["bimix/step"] for row in curves if "bimix_target/acc" in row] == [3, 6]


def test_a_metric_of_no_target_is_refused_at_once() -> None:
    with pytest.raises(RecorderError, match="`targets_from_metrics` has no target 'mmul': did you mean 'mmlu'"):
        callback(Rows(), targets=TARGETS, targets_from_metrics={"eval_x": "mmul"})


class Scored(Module):
    """The toy of all trainers, which logs a benchmark in validation."""

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Any:
        self.log("val_mmlu", 0.4 + 0.01 * self.global_step)
        return super().validation_step(batch, index, dataloader_idx)


class AtTheEnd(Callback):
    def __init__(self, of: LightningCallback) -> None:
        self.of = of

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.of.record_targets(trainer.global_step, {"acc": 0.5})


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*treespec.*", "ignore:.*`isinstance.treespec, LeafSpec.*",
    "ignore:.*number of training batches.*is smaller than the logging interval.*",
)  # fmt: skip
def test_metrics_of_a_lightning_module_are_targets_where_they_are_named(tmp_path: Path) -> None:
    rows = Rows()
    ours = LightningCallback(DOMAINS, MIXTURE, rows, targets=TARGETS, targets_from_metrics={"val_mmlu": "mmlu"})
    given = quiet(tmp_path, val_check_interval=3, callbacks=[ours, AtTheEnd(ours)])
    Trainer(**given).fit(Scored(), loader(examples(100, 1), BATCH), loader(examples(23, 2), 7))

    merged = by_step(rows)
    found = {step: row["bimix_target/mmlu"] for step, row in merged.items() if "bimix_target/mmlu" in row}
    assert found == pytest.approx({3: 0.43, 6: 0.46}, rel=1e-6)
    assert [merged[step]["bimix_target/acc"] for step in (3, 6)] == [0.5, 0.5]
    assert all("bimix_eval_loss/web" in merged[step] for step in (3, 6))


def test_a_meter_hands_its_tokens_over_before_targets_are_recorded() -> None:
    rows = Rows()
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS, None, rows, targets=TARGETS))
    meter.add(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64), torch.tensor([0, 1]))

    row = meter.record_targets(1, {"mmlu": 0.3})

    assert row == {"bimix/step": 1.0, "bimix/tokens": 6.0, "bimix_target/mmlu": 0.3} == rows[0]
    assert meter.record_targets(1, None) == {"bimix/step": 1.0, "bimix/tokens": 6.0}
