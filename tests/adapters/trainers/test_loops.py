"""Loops of one's own, with Accelerate, in torchtitan's style and in Composer's order: the plain loop's numbers."""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from bimix_integrations.trainers.accelerate import prepare_meter, rows_of_batch
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter, align, token_losses
from bimix_integrations.trainers.torchtitan import DomainLoss, MeterState
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler
from transformers import GPT2LMHeadModel

from bimix_tracking import DomainLossRecorder, open_tracker
from bimix_tracking.errors import RecorderError
from bimix_tracking.tracking.ports import Tracker
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    VOCABULARY,
    Features,
    Rows,
    batches,
    by_step,
    collate,
    examples,
    model,
    plain_loop,
)

MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
Batch = dict[str, Tensor]


def recorder(tracker: Tracker | None) -> DomainLossRecorder:
    return DomainLossRecorder(DOMAINS, MIXTURE, tracker)


def adamw(net: torch.nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-8)


def loader(features: Features, size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(features, batch_size=size, collate_fn=DomainCollator(collate, DOMAINS), **options)  # type: ignore[arg-type]


def labels_of(step: int, accumulate: int = 1) -> int:
    """Return how many labels a step has, the unpredicted first ones too: what the plain loop divides its loss by."""
    of_step = examples(100, 1)[(step - 1) * BATCH * accumulate : step * BATCH * accumulate]
    return sum(label != IGNORE for example in of_step for label in example["labels"])


def assert_the_plain_loop_s(found: Rows, accumulate: int = 1) -> None:
    rows = Rows()
    plain_loop(rows, accumulate)
    expected, ours = by_step(rows), by_step(found)
    assert set(ours) == set(expected) == {2, 3, 4, 6}
    for step, row in expected.items():
        assert set(ours[step]) == set(row)
        assert ours[step] == pytest.approx(row, rel=2e-5)


def written(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the rows and the curves of the only run in a folder."""
    (run,) = folder.iterdir()
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((run / "curves.json").read_text(encoding="utf-8"))


# --- Accelerate


@pytest.fixture(autouse=True)
def _states_of_accelerate() -> Iterator[None]:
    """Leave nothing of an Accelerator to the next test: they all share one state."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def accelerate_loop(
    tracker: Tracker, folder: Path, accumulate: int = 1, *, until: int = STEPS, save_at: int = 0, resume: bool = False
) -> DomainLossMeter:
    """Train up to a step, as if the process died there; `save_at` and `resume` are about Accelerate's checkpoint."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    net: Any = model()
    loaders = loader(examples(100, 1), BATCH), loader(examples(23, 2), 7)
    net, optimizer, training, evaluating = accelerator.prepare(net, adamw(net), *loaders)
    meter = prepare_meter(accelerator, recorder(tracker))
    if resume:
        accelerator.load_state(str(folder))
    first = save_at + 1 if resume else 1
    stream = iter(accelerator.skip_first_batches(training, (first - 1) * accumulate))
    for step in range(first, until + 1):
        net.train()
        for batch in itertools.islice(stream, accumulate):
            with accelerator.accumulate(net):
                targets, ids = align(batch["labels"], batch["domain_ids"])
                losses = token_losses(net(batch["input_ids"]).logits, targets)
                accelerator.backward(
                    losses.sum() * accumulate / labels_of(step, accumulate)
                )  # it divides by that itself
                meter.add(losses, targets, ids)
                optimizer.step()
                optimizer.zero_grad()
        assert accelerator.sync_gradients
        if step % 2 == 0:
            meter.log_train(step)
        if step % 3 == 0:
            net.eval()
            with torch.no_grad():
                for batch in evaluating:
                    targets, ids = align(batch["labels"], batch["domain_ids"])
                    losses = token_losses(net(batch["input_ids"]).logits, targets)
                    meter.add(losses, targets, ids, split="eval", rows=rows_of_batch(len(targets)))
            meter.log_eval(step)
        if step == save_at:
            accelerator.save_state(str(folder))
    if until == STEPS:
        meter.finish(until)
    return meter


@pytest.mark.parametrize("accumulate", [1, 3])
def test_accelerate_logs_the_plain_loop_s_numbers(tmp_path: Path, accumulate: int) -> None:
    rows = Rows()
    accelerate_loop(rows, tmp_path, accumulate)
    assert_the_plain_loop_s(rows, accumulate)


@pytest.mark.parametrize("saved", [3, 4])
def test_a_run_that_accelerate_resumes_is_one_run(tmp_path: Path, saved: int) -> None:
    def tracker(name: str) -> Tracker:
        return open_tracker(f"jsonl:{tmp_path / name}")

    uninterrupted = accelerate_loop(tracker("whole"), tmp_path / "unused")
    accelerate_loop(tracker("cut"), tmp_path / "saved", until=5, save_at=saved)  # it dies 1 or 2 steps later
    resumed = accelerate_loop(tracker("cut"), tmp_path / "saved", save_at=saved, resume=True)

    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    mine, theirs = (meter.state_dict() for meter in (resumed, uninterrupted))
    assert {k: v for k, v in mine.items() if k != "delivery"} == {k: v for k, v in theirs.items() if k != "delivery"}


# --- torchtitan


def sum_of_losses(pred: Tensor, labels: Tensor, valid_tokens: Tensor) -> Tensor:
    """Return what torchtitan's cross entropy does."""
    flat = pred.flatten(0, 1).float()
    return functional.cross_entropy(flat, labels.flatten(0, 1), reduction="sum") / valid_tokens


def titan_batches(count: int, seed: int, size: int, per_token: bool) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield ({inputs and extras}, shifted labels), as torchtitan's loaders do."""
    for batch in batches(examples(count, seed), size):
        ids, labels = batch["domain_ids"], batch["labels"][:, 1:]
        inputs = {
            "input": batch["input_ids"][:, :-1],
            "domain_ids": ids[:, None].expand_as(labels) if per_token else ids,
        }
        yield inputs, labels


def titan_loop(tracker: Tracker | None, *, per_token: bool = False, pieces: int = 1) -> DomainLossMeter:
    net = model()
    optimizer = adamw(net)
    meter = DomainLossMeter(recorder(tracker))
    losses = {split: DomainLoss(meter, sum_of_losses, split) for split in ("train", "eval")}

    def loss_of(split: str, inputs: dict[str, Tensor], labels: Tensor, valid_tokens: Tensor) -> Tensor:
        with losses[split].batch(inputs.pop("domain_ids")):
            logits = net(inputs["input"]).logits
            parts = zip(logits.chunk(pieces, dim=1), labels.chunk(pieces, dim=1), strict=True)
            return torch.stack([losses[split](pred, part, valid_tokens) for pred, part in parts]).sum()

    stream = titan_batches(100, 1, BATCH, per_token)
    for step in range(1, STEPS + 1):
        net.train()
        loss_of("train", *next(stream), torch.tensor(labels_of(step))).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0:
            meter.log_train(step)
        if step % 3 == 0:
            net.eval()
            with torch.no_grad():
                for inputs, labels in titan_batches(23, 2, 7, per_token):
                    loss_of("eval", inputs, labels, torch.tensor(1))
            meter.log_eval(step)
    meter.finish(STEPS)
    return meter


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("pieces", [1, 4])  # torchtitan's chunked loss calls the inner one on pieces of the sequence
def test_a_loop_in_torchtitan_s_style_logs_the_plain_loop_s_numbers(per_token: bool, pieces: int) -> None:
    rows = Rows()
    titan_loop(rows, per_token=per_token, pieces=pieces)
    assert_the_plain_loop_s(rows)


@pytest.mark.parametrize("pieces", [1, 3])
def test_documents_of_a_packed_row_have_their_own_losses(pieces: int) -> None:
    torch.manual_seed(3)
    logits, labels = torch.randn(2, 9, VOCABULARY), torch.randint(VOCABULARY, (2, 9))
    labels[0, 4] = IGNORE
    ids = torch.tensor([[0] * 3 + [2] * 6, [1] * 5 + [0] * 4])
    meter = DomainLossMeter(recorder(None))
    loss = DomainLoss(meter, sum_of_losses)
    with loss.batch(ids):
        for pred, part in zip(logits.chunk(pieces, dim=1), labels.chunk(pieces, dim=1), strict=True):
            loss(pred, part, torch.tensor(1))

    row = meter.log_train(1)

    for id_, slug in enumerate(("code", "web", "c_372946aa")):
        places = [(b, t) for b in range(2) for t in range(9) if ids[b, t] == id_ and labels[b, t] != IGNORE]
        expected = [-logits[b, t].double().log_softmax(-1)[labels[b, t]].item() for b, t in places]
        assert row[f"bimix_tokens/{slug}"] == len(expected)
        assert row[f"bimix_train_loss/{slug}"] == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_a_wrapped_loss_is_the_loop_s_own_and_keeps_its_graph() -> None:
    logits, labels = torch.randn(2, 5, VOCABULARY, requires_grad=True), torch.randint(VOCABULARY, (2, 5))
    wrapped = DomainLoss(DomainLossMeter(recorder(None)), sum_of_losses)
    with wrapped.batch(torch.tensor([0, 1])):
        found = wrapped(logits, labels, valid_tokens=torch.tensor(10))

    expected = sum_of_losses(logits, labels, torch.tensor(10))
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


def test_a_loss_whose_batch_nobody_named_is_told() -> None:
    loss = DomainLoss(DomainLossMeter(recorder(None)), sum_of_losses)
    logits, labels = torch.randn(2, 5, VOCABULARY), torch.randint(VOCABULARY, (2, 5))
    with loss.batch(torch.tensor([0, 1])):
        loss(logits, labels, torch.tensor(1))

    with pytest.raises(RecorderError, match="no domain: call it inside"):
        loss(logits, labels, torch.tensor(1))
    with (
        loss.batch(torch.zeros(2, 4, dtype=torch.int64)),
        pytest.raises(RecorderError, match=r"= \(2, 5\), got \(2, 4\)"),
    ):
        loss(logits, labels, torch.tensor(1))


def test_a_chunked_loss_is_wrapped_inside() -> None:
    chunked: Any = SimpleNamespace(loss_fn=sum_of_losses, set_lm_head=None)
    with pytest.raises(RecorderError, match="wrap the loss inside"):
        DomainLoss(DomainLossMeter(recorder(None)), chunked)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning")
def test_a_distributed_checkpoint_holds_the_meter(tmp_path: Path) -> None:
    def add(meter: DomainLossMeter, seed: int, split: str) -> None:
        torch.manual_seed(seed)
        targets = torch.randint(VOCABULARY, (4, 8))
        meter.add(torch.rand(4, 8), targets, torch.tensor([0, 1, 2, 0]), split=split)

    def train(meter: DomainLossMeter, first: int, last: int) -> None:
        for step in range(first, last + 1):
            add(meter, step, "train")
            if step % 2 == 0:
                meter.log_train(step)
                add(meter, 100, "eval")
                meter.log_eval(step)

    def opened(name: str) -> DomainLossMeter:
        return DomainLossMeter(recorder(open_tracker(f"jsonl:{tmp_path / name}")), entropy_every=1)

    whole, cut = opened("whole"), opened("cut")
    for meter in (whole, cut):
        train(meter, 1, 2)
        meter.recorder.set_mixture({"code": 0.1, "web": 0.1, "c++": 0.8}, 2)
        train(meter, 3, 5)
    model_state, where = {"weight": torch.ones(3)}, tmp_path / "checkpoint"
    save({"model": model_state, "bimix": MeterState(cut)}, checkpoint_id=str(where))
    train(cut, 6, 7)  # and dies

    rest = opened("cut")
    loaded = {"weight": torch.zeros(3)}
    load({"model": loaded, "bimix": MeterState(rest)}, checkpoint_id=str(where))
    assert torch.equal(loaded["weight"], model_state["weight"])
    for meter in (whole, rest):
        train(meter, 6, 8)
        meter.finish(8)

    assert written(tmp_path / "cut") == written(tmp_path / "whole")
    assert rest.state_dict()["tokens"] == whole.state_dict()["tokens"]
    assert rest.recorder.manifest == whole.recorder.manifest


# --- Composer


@pytest.fixture
def composer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the adapter beside a stand-in for Composer, which wants an older torch; see `composer_by_hand.py`."""
    stand_in = ModuleType("composer")
    stand_in.Callback = type("Callback", (), {})  # type: ignore[attr-defined]  # whose methods all do nothing
    monkeypatch.setitem(sys.modules, "composer", stand_in)
    name = "bimix_integrations.trainers.composer"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(name)
    sys.modules.pop(name, None)


class Composed:
    """Composer's loop: events in the order and with the state that `composer_by_hand.py` sees."""

    def __init__(self, callback: Any) -> None:
        self.net, self.callback = model(), callback
        self.optimizer = adamw(self.net)
        self.state = SimpleNamespace(model=self.net, timestamp=SimpleNamespace(batch=SimpleNamespace(value=0)))
        self.state.dataloader = self.state.batch = self.state.outputs = None

    def load(self, saved: Any, step: int) -> None:
        net, optimizer, callback = saved
        self.net.load_state_dict(net)
        self.optimizer.load_state_dict(optimizer)
        self.state.timestamp.batch.value = step
        if callback:
            self.callback.load_state_dict(json.loads(json.dumps(callback)))

    def event(self, name: str) -> None:
        getattr(self.callback, name, lambda *_: None)(self.state, None)

    def _forward(self, batch: Batch, event: str) -> Tensor:
        self.state.batch = batch
        self.event(event.replace("after", "before"))
        self.state.outputs = {"logits": self.net(batch["input_ids"]).logits}
        self.event(event)
        return functional.cross_entropy(
            self.state.outputs["logits"][:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
        )

    def evaluate(self, sets: list[Features], standalone: bool = False) -> None:
        self.net.eval()
        if standalone:
            self.event("eval_standalone_start")
        with torch.no_grad():
            for number, features in enumerate(sets):
                self.state.dataloader, self.state.dataloader_label = loader(features, 7), f"set {number}"
                self.event("eval_start")
                for batch in self.state.dataloader:
                    self._forward(batch, "eval_after_forward")
                self.event("eval_end")
        self.event("eval_standalone_end" if standalone else "eval_after_all")

    def fit(
        self,
        sets: list[Features],
        until: int = STEPS,
        *,
        save_at: int = 0,
        at_end: bool = False,
        dies: bool = False,
        out_of_memory_at: int = 0,
    ) -> None:
        self.event("fit_start")
        done = self.state.timestamp.batch.value
        for batch in itertools.islice(batches(examples(100, 1), BATCH), done, until):
            self.net.train()
            step = self.state.timestamp.batch.value + 1
            self.event("batch_start")
            if step == out_of_memory_at:  # in the second micro-batch; then all are done again, smaller ones
                self.event("before_train_batch")
                self._forward({name: values[:3] for name, values in batch.items()}, "after_forward")
            self.event("before_train_batch")
            for rows in (slice(0, 2), slice(2, None)):  # micro-batches
                part = {name: values[rows] for name, values in batch.items()}
                (self._forward(part, "after_forward") / labels_of(step)).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.timestamp.batch.value = step
            self.event("batch_end")
            if step % 3 == 0:
                self.evaluate(sets)
            if step == save_at:
                parts = (self.net.state_dict(), self.optimizer.state_dict(), self.callback.state_dict())
                self.saved = copy.deepcopy(parts)
        if dies:
            return
        self.event("fit_end")
        if at_end:
            self.evaluate(sets)


def two_sets() -> list[Features]:
    features = examples(23, 2)
    return [features[:9], features[9:]]


def test_a_loop_in_composer_s_order_logs_the_plain_loop_s_numbers(composer: ModuleType) -> None:
    rows = Rows()
    loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows, every=2))
    loop.fit(two_sets())

    assert_the_plain_loop_s(rows)
    assert [row["bimix/step"] for row in rows if "bimix_eval_loss/web" in row] == [3, 6]
    assert rows.manifest.model_size == model().num_parameters(exclude_embeddings=True)
    assert rows.manifest.total_parameters == model().num_parameters()
    assert rows.manifest.schedule_tokens is None  # nobody has said how long it is to be
    loop.evaluate(two_sets(), standalone=True)
    assert rows[-1] == next(row for row in rows if row["bimix/step"] == 6 and "bimix_eval_loss/web" in row)


@pytest.mark.parametrize(
    ("unit", "value", "batches_of_epoch", "steps"),
    [("ba", 24, None, 24), ("ep", 3, 8, 24), ("ep", 3, None, None), ("tok", 1000, 8, None)],
)
def test_a_composer_run_that_is_cut_short_has_the_schedule_of_the_whole(
    composer: ModuleType, unit: str, value: int, batches_of_epoch: int | None, steps: int | None
) -> None:
    rows = Rows()
    loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows, every=2))
    loop.state.max_duration = SimpleNamespace(unit=SimpleNamespace(value=unit), value=value)
    loop.state.dataloader_len = batches_of_epoch and SimpleNamespace(value=batches_of_epoch)
    loop.fit(two_sets())

    seen = rows[-1]["bimix/tokens"]
    assert rows[-1]["bimix/step"] == STEPS
    assert rows.manifest.schedule_tokens == (None if steps is None else round(seen * steps / STEPS))


def test_micro_batches_of_a_try_that_ran_out_of_memory_count_once(composer: ModuleType) -> None:
    rows, usual = Rows(), Rows()
    for found, step in ((rows, 3), (usual, 0)):
        loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, found, every=2))
        loop.fit(two_sets(), out_of_memory_at=step)

    assert rows == usual


def test_a_composer_trainer_closed_before_its_end_has_failed(composer: ModuleType) -> None:
    died, ended = Rows(), Rows()
    for rows, dies in ((died, True), (ended, False)):
        loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows))
        loop.fit(two_sets(), until=3, dies=dies)
        loop.event("close")

    assert (died.finished, ended.finished) == (False, True)


def test_a_composer_fit_that_goes_on_is_the_same_run_and_one_from_zero_is_not(composer: ModuleType) -> None:
    rows, whole = Rows(), Rows()
    Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, whole, every=2)).fit(two_sets())
    loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows, every=2))
    loop.fit(two_sets(), until=4)
    loop.fit(two_sets())
    assert by_step(rows) == by_step(whole)
    again = Composed(loop.callback)
    again.fit(two_sets())

    assert by_step(rows.later[0]) == by_step(whole)
    assert by_step(rows) == by_step(whole)


def test_an_evaluation_after_the_end_of_fit_is_in_the_curves(composer: ModuleType) -> None:
    rows = Rows()
    Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows, every=2)).fit(two_sets(), until=5, at_end=True)

    assert [row["bimix/step"] for row in json.loads(rows.artifact[1])["rows"]] == [3, 5]


def test_a_composer_run_goes_on_from_its_checkpoint(composer: ModuleType, tmp_path: Path) -> None:
    def callback(name: str) -> Any:
        return composer.DomainLossCallback(DOMAINS, MIXTURE, f"jsonl:{tmp_path / name}", every=2)

    whole, cut, rest = (Composed(callback(name)) for name in ("whole", "cut", "cut"))
    whole.fit(two_sets())
    cut.fit(two_sets(), until=5, save_at=4, dies=True)
    rest.load(cut.saved, 4)
    rest.fit(two_sets())

    assert written(tmp_path / "cut") == written(tmp_path / "whole")


def test_a_composer_checkpoint_without_the_callback_is_told(composer: ModuleType) -> None:
    saved = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, None))
    saved.fit(two_sets(), until=2, save_at=2)
    loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, None))
    loop.load((*saved.saved[:2], None), 2)

    with pytest.warns(UserWarning, match="step 2's checkpoint is without bimix: tokens count from here"):
        loop.fit(two_sets(), until=3)


def test_examples_that_composer_s_sampler_repeats_count_once(composer: ModuleType) -> None:
    features = examples(7, 5)
    counted = []
    for rank in range(2):
        rows = Rows()
        loop = Composed(composer.DomainLossCallback(DOMAINS, MIXTURE, rows))
        mine: DistributedSampler[Any] = DistributedSampler(features, 2, rank, shuffle=False)  # type: ignore[arg-type]
        loop.state.dataloader = loader(features, 1, sampler=mine)
        loop.event("eval_start")
        with torch.no_grad():
            for batch in loop.state.dataloader:
                loop._forward(batch, "eval_after_forward")
        loop.event("eval_end")
        loop.event("fit_start")  # the evaluation is of a training, if there is one
        counted.append(sum(value for name, value in rows[0].items() if name.startswith("bimix_eval_tokens")))

    assert sum(counted) == sum(label != IGNORE for example in features for label in example["labels"][1:])


def test_composer_s_model_is_left_as_it_was(composer: ModuleType) -> None:
    nets: list[GPT2LMHeadModel] = []
    for callback in (composer.DomainLossCallback(DOMAINS, MIXTURE, None), SimpleNamespace()):
        loop = Composed(callback)
        loop.fit(two_sets())
        nets.append(loop.net)

    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
