"""Steps that run the model several times, or not at all: what was trained on is what counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bimix_integrations.trainers.batches import EvaluationBatches, counted
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.forward import Pass, passes_of
from bimix_integrations.trainers.lightning import DomainLossCallback as OfLightning
from bimix_integrations.trainers.torch import align, token_losses
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from bimix_tracking.errors import RecorderError
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    Features,
    InOrder,
    Rows,
    by_step,
    callback,
    collate,
    examples,
    model,
    run_trainer,
)

Batch = dict[str, Tensor]
MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
STILL: dict[str, Any] = {"learning_rate": 0.0}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:You defined a `validation_step` but have no `val_dataloader`.*",
    "ignore:.*`isinstance.treespec, LeafSpec.*",
    "ignore:.*treespec.*:DeprecationWarning",
    "ignore:`training_step` returned `None`.*",
)


# --- The Trainer of transformers -------------------------------------------------------------------------------------


class Halves(InOrder):
    """A trainer that runs the two halves of a batch one after the other, to weigh their losses."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any) -> Any:
        middle = len(inputs["labels"]) // 2
        parts = [
            {name: values[rows] for name, values in inputs.items()} for rows in (slice(middle), slice(middle, None))
        ]
        outputs = [model(**part) for part in parts if len(part["labels"])]
        loss = sum(each.loss for each in outputs) / len(outputs)
        return (loss, outputs[-1]) if return_outputs else loss


@pytest.mark.parametrize("size", [5, 23])  # of an evaluation's batches: several, and one alone
@pytest.mark.parametrize("accumulate", [1, 3])
def test_both_halves_of_a_batch_count_in_training_and_in_evaluation(tmp_path: Path, size: int, accumulate: int) -> None:
    halves, usual = Rows(), Rows()
    changes = STILL | {"per_device_eval_batch_size": size, "gradient_accumulation_steps": accumulate}
    run_trainer(tmp_path, callback(halves), kind=Halves, arguments=changes)
    run_trainer(tmp_path, callback(usual), arguments=changes)

    assert len(halves) == len(usual)
    for ours, theirs in zip(halves, usual, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


class Looks(TrainerCallback):
    """Evaluates a batch by itself, wherever the trainer tells it something."""

    def __init__(self) -> None:
        self.batch: Any = DomainCollator(collate, DOMAINS)(examples(3, 9))  # type: ignore[arg-type]

    def _look(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        with torch.no_grad():
            model(**self.batch)

    on_train_begin = on_step_begin = on_step_end = on_substep_end = on_log = on_evaluate = on_train_end = _look


@pytest.mark.parametrize("size", [5, 23])
@pytest.mark.parametrize("kind", [InOrder, Halves])
def test_somebody_s_own_passes_join_no_step(tmp_path: Path, kind: type[InOrder], size: int) -> None:
    looked, usual = Rows(), Rows()
    changes = STILL | {"per_device_eval_batch_size": size, "logging_steps": 3}
    run_trainer(tmp_path, callback(looked), kind=kind, arguments=changes, callbacks=[Looks()])
    run_trainer(tmp_path, callback(usual), kind=kind, arguments=changes)

    assert looked == usual


def _pass(rows: int) -> Pass:
    ids = torch.zeros(rows, dtype=torch.int64)
    return Pass("", torch.zeros(rows, 2), None, torch.zeros(rows, 2, dtype=torch.int64), ids, align)


def test_rows_that_a_sampler_has_filled_up_are_the_last_pass_s() -> None:
    assert [rows for _, rows in counted([_pass(3), _pass(3)], lambda rows: rows - 2)] == [3, 1]
    assert [rows for _, rows in counted([_pass(3), _pass(3)], lambda _: 2)] == [2, 0]
    assert [rows for _, rows in counted([_pass(3), _pass(3)], None)] == [3, 3]


@pytest.mark.parametrize(
    ("batches", "likely", "expected"),
    [
        ([[1], [1]], None, [1, 1]),
        ([[9, 9, 1, 2], [3, 4]], None, [1, 2, 3, 4]),  # two strangers before the first batch
        ([[9, 1]], 1, [1]),
        ([[9, 1, 2]], 2, [1, 2]),
        ([[1, 2]], None, [1, 2]),
        ([[1, 2], [], [3, 4]], None, [1, 2, 3, 4]),  # a batch without domains between
    ],
)
def test_the_second_batch_tells_how_many_passes_the_first_one_has(
    batches: list[list[int]], likely: int | None, expected: list[int]
) -> None:
    evaluation = EvaluationBatches()
    found = [one for sizes in batches for one in evaluation.add([_pass(size) for size in sizes], None)]
    found += evaluation.end(likely)

    assert [rows for _, rows in found] == expected


# --- Lightning -------------------------------------------------------------------------------------------------------


def of(domain: str, count: int, seed: int = 1) -> Features:
    return examples(count, seed, [domain])


def loader(features: Features, size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(features, batch_size=size, collate_fn=DomainCollator(collate, DOMAINS))  # type: ignore[arg-type]


def combined(count: int) -> CombinedLoader:
    return CombinedLoader({domain: loader(of(domain, count)) for domain in DOMAINS}, "max_size")


def fit(folder: Path, module: LightningModule, training: Any, validation: Any = None, **options: Any) -> Rows:
    rows = Rows()
    given: dict[str, Any] = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder,
        "log_every_n_steps": 1, "callbacks": [OfLightning(DOMAINS, MIXTURE, rows)],
    }  # fmt: skip
    Trainer(**given | options).fit(module, training, validation)
    return rows


def labels_of(features: Features) -> int:
    return sum(label != -100 for feature in features for label in feature["labels"][1:])


class Several(LightningModule):
    """A module that runs its model once a domain.

    Args:
        shows: How callbacks get to see the losses: `hooks` of the model inside, or what the steps return.
    """

    def __init__(self, shows: str = "hooks") -> None:
        super().__init__()
        self.model, self.shows = model(), shows

    def _losses(self, batch: Batch) -> Tensor:
        logits = self.model(batch["input_ids"]).logits
        return token_losses(logits, align(batch["labels"], batch["domain_ids"])[0])

    def _step(self, batch: dict[str, Batch]) -> Any:
        if self.shows == "hooks":
            return sum(self.model(**part).loss for part in batch.values() if part is not None)
        found = {domain: self._losses(part) for domain, part in batch.items()}
        return {"loss": torch.cat([*found.values()]).mean(), "token_losses": found}

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Any:
        return self._step(batch)

    def validation_step(self, batch: dict[str, Batch], batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self._step(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


@pytest.mark.parametrize("shows", ["hooks", "token_losses"])
def test_every_batch_of_a_combined_loader_counts(tmp_path: Path, shows: str) -> None:
    rows = by_step(fit(tmp_path, Several(shows), combined(2 * BATCH), combined(BATCH)))

    assert set(rows) == {1, 2}
    for domain, slug in zip(DOMAINS, ("code", "web", "c_372946aa"), strict=True):
        assert rows[2][f"bimix_tokens/{slug}"] == labels_of(of(domain, 2 * BATCH))
        assert rows[2][f"bimix_eval_tokens/{slug}"] == labels_of(of(domain, BATCH))
        assert f"bimix_train_loss/{slug}" in rows[1]


def test_a_loader_that_has_ended_before_the_others_is_no_trouble(tmp_path: Path) -> None:
    loaders = {"code": loader(of("code", 3 * BATCH)), "web": loader(of("web", BATCH))}
    rows = fit(tmp_path, Several(), CombinedLoader(loaders, "max_size"))

    assert rows[-1]["bimix_tokens/code"] == labels_of(of("code", 3 * BATCH))
    assert rows[-1]["bimix_tokens/web"] == labels_of(of("web", BATCH))


def test_losses_of_a_list_of_batches_are_its_own() -> None:
    batch: list[Any] = [DomainCollator(collate, DOMAINS)(of(domain, 2)) for domain in DOMAINS]  # type: ignore[arg-type]
    losses = [torch.zeros_like(part["labels"], dtype=torch.float32) for part in batch]

    found = passes_of({"loss": torch.zeros(()), "token_losses": losses}, batch)
    assert [one.labels is part["labels"] for one, part in zip(found, batch, strict=True)] == [True] * 3
    assert passes_of({"loss": torch.zeros(())}, batch) == []
    assert passes_of({"loss": torch.zeros(()), "token_losses": losses[:2]}, batch) == []


class Skips(Several):
    """Skips batches, as where the loss isn't finite."""

    def __init__(self, shows: str, skipped: set[int]) -> None:
        super().__init__(shows)
        self.skipped = skipped

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.shows == "hooks":
            loss = self.model(**batch).loss
            return None if batch_idx in self.skipped else loss
        losses = self._losses(batch)
        return None if batch_idx in self.skipped else {"loss": losses.mean(), "token_losses": losses}


@pytest.mark.parametrize("shows", ["hooks", "token_losses"])
def test_a_skipped_batch_counts_nothing(tmp_path: Path, shows: str) -> None:
    features = examples(5 * BATCH, 1)
    rows = fit(tmp_path, Skips(shows, {0, 2}), loader(features))

    kept = [f for batch in (1, 3, 4) for f in features[batch * BATCH : (batch + 1) * BATCH]]
    assert rows[-1]["bimix/tokens"] == labels_of(kept)


def test_a_training_that_skips_all_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no training step returned a loss, so no loss has a domain"):
        fit(tmp_path, Skips("hooks", {0, 1}), loader(examples(2 * BATCH, 1)))


class ByHand(Several):
    """Two optimizers in turn, each with a forward pass of its own, and a step that returns nothing."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
            self.manual_backward(self.model(**batch).loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.0) for _ in range(2)]


def test_each_pass_of_an_optimization_by_hand_counts_once(tmp_path: Path) -> None:
    features = examples(2 * BATCH, 1)
    rows = fit(tmp_path, ByHand(), loader(features))

    assert rows[-1]["bimix/tokens"] == 2 * labels_of(features)


def test_a_step_that_lets_nobody_see_a_loss_is_told(tmp_path: Path) -> None:
    class Silent(Several):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.stack([self._losses(part).mean() for part in batch.values()]).mean()

    with pytest.raises(RecorderError, match="so no loss has a domain"):
        fit(tmp_path, Silent(), combined(BATCH), max_steps=STEPS)
