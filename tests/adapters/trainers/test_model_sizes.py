"""A model's parameters, and the length of its learning-rate schedule, as every trainer's callback says them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bimix_integrations.models.parameters import Parameters, parameters_of
from bimix_integrations.trainers.torch import DomainLossMeter
from lightning.pytorch import Callback
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
)

from bimix_tracking import DomainLossRecorder
from bimix_tracking.errors import RecorderError
from tests.adapters.trainers.test_lightning import Module, fit, pytestmark
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    Rows,
    batches,
    callback,
    examples,
    make_trainer,
    model,
    run_trainer,
    without_domain,
)

__all__ = ["pytestmark"]
MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
WIDTH, VOCABULARY, TIME = 16, 17, 12
BODY = 12 * WIDTH**2 + 13 * WIDTH + 2 * WIDTH
"""Parameters of the toy's one block, biases and norms with it, and of the norm after it."""


def llama(tied: bool) -> LlamaForCausalLM:
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, tie_word_embeddings=tied))


# --- what a model has


def test_the_toy_has_what_its_layers_have() -> None:
    assert parameters_of(model()) == Parameters(BODY + (VOCABULARY + TIME) * WIDTH, BODY)
    assert model().num_parameters(exclude_embeddings=True) == BODY  # another count, for a tied model


def test_a_model_with_two_tables_is_as_large_as_the_same_with_one() -> None:
    block = 4 * 32**2 + 3 * 32 * 48 + 2 * 32
    assert parameters_of(llama(tied=True)) == Parameters(2 * block + 32 + 64 * 32, 2 * block + 32)
    assert parameters_of(llama(tied=False)) == Parameters(2 * block + 32 + 2 * 64 * 32, 2 * block + 32)


def test_frozen_parameters_count_and_shared_ones_count_once() -> None:
    frozen = llama(tied=False)
    for parameter in frozen.model.layers[0].parameters():
        parameter.requires_grad = False
    assert parameters_of(frozen) == parameters_of(llama(tied=False))
    whole = parameters_of(frozen)
    assert whole is not None
    layers = frozen.model.layers
    layers[1] = layers[0]  # one block, twice in the model
    block = sum(p.numel() for p in layers[0].parameters())
    assert parameters_of(frozen) == Parameters(whole.total - block, whole.without_embeddings - block)


def test_an_encoder_and_a_decoder_share_one_table() -> None:
    sizes: dict[str, Any] = {"vocab_size": 40, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    both = T5ForConditionalGeneration(T5Config(**sizes, relative_attention_num_buckets=4))
    found = parameters_of(both)
    assert found is not None
    assert found.total == both.num_parameters()
    tables = 40 * 8 + 2 * 4 * 2  # of tokens, and of each side's relative positions
    assert found.without_embeddings in (found.total - tables, found.total - tables - 40 * 8)


@pytest.mark.parametrize("wrap", [nn.Sequential, copy.deepcopy, lambda net: torch.compile(net, backend="eager")])
def test_a_wrapped_model_is_the_model(wrap: Callable[[nn.Module], nn.Module]) -> None:
    assert parameters_of(wrap(llama(tied=False))) == parameters_of(llama(tied=False))


class Bare(nn.Module):
    """A byte-level model of somebody's own, whose vocabulary is as large as its layers are wide."""

    def __init__(self, *, head: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(32, 32)
        self.blocks = nn.ModuleList([nn.Linear(32, 32, bias=False) for _ in range(3)])
        if head:
            self.out = nn.Linear(32, 32, bias=False)


def test_of_a_model_without_names_the_last_layer_is_the_output_if_it_has_its_shape() -> None:
    assert parameters_of(Bare(head=True)) == Parameters(5 * 32**2, 3 * 32**2)
    assert parameters_of(Bare(head=False)) == Parameters(4 * 32**2, 3 * 32**2)  # a table that is used twice


def test_a_model_without_embeddings_is_as_large_as_all_of_it() -> None:
    assert parameters_of(nn.Sequential(nn.Linear(20, 30), nn.LayerNorm(30))) == Parameters(690, 690)


def test_tables_of_another_class_are_told_by_its_name() -> None:
    class VocabParallelEmbedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(50, 8))

    found = parameters_of(nn.Sequential(VocabParallelEmbedding(), nn.Linear(8, 8), nn.Linear(8, 50)))
    assert found == Parameters(400 + 72 + 450, 72)


def test_what_cannot_be_seen_whole_is_unknown() -> None:
    assert parameters_of(nn.Sequential(nn.LazyLinear(4))) is None
    assert parameters_of(nn.Module()) is None
    flat = llama(tied=False)
    flat.lm_head.weight._fsdp_flattened = True  # as FSDP 1 leaves them, of each of which a process has a part
    assert parameters_of(flat) is None


def test_parameters_that_deepspeed_has_taken_away_have_their_size() -> None:
    whole, parts = llama(tied=False), llama(tied=False)
    for parameter in parts.parameters():
        vars(parameter).update(ds_numel=parameter.numel(), ds_shape=parameter.shape)
        parameter.data = torch.empty(0)
    assert parameters_of(parts) == parameters_of(whole)


# --- what callbacks say


def planned_tokens(steps: int) -> int:
    """Return the tokens with a loss in the first steps of the toy's training."""
    rows = examples(100, 1)[: steps * BATCH]
    return sum(label != -100 for row in rows for label in row["labels"][1:])


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def test_a_run_of_the_trainer_that_ends_as_planned_has_the_schedule_of_its_tokens(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows))

    said = rows.manifest
    assert (said.model_size, said.total_parameters) == (BODY, BODY + (VOCABULARY + TIME) * WIDTH)
    assert said.schedule_tokens == planned_tokens(STEPS) == rows[-1]["bimix/tokens"]


def test_a_run_of_the_trainer_that_stops_early_has_the_schedule_of_the_whole(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows), callbacks=[StopAt(3)], arguments={"max_steps": 12})

    seen = planned_tokens(3)
    assert rows[-1]["bimix/tokens"] == seen
    assert rows.manifest.schedule_tokens == round(seen * 12 / 3)


def test_epochs_are_as_many_steps_as_the_trainer_plans(tmp_path: Path) -> None:
    rows = Rows()
    given = {"max_steps": -1, "num_train_epochs": 2, "eval_strategy": "no"}
    run_trainer(tmp_path, callback(rows), callbacks=[StopAt(5)], arguments=given)

    assert rows.manifest.schedule_tokens == round(planned_tokens(5) * 2 * 25 / 5)


def test_a_run_that_crashes_has_said_its_schedule_before(tmp_path: Path) -> None:
    class Boom(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                raise RuntimeError("boom")

    rows = Rows()
    watcher = callback(rows)
    with pytest.raises(RuntimeError, match="boom"):
        run_trainer(tmp_path, watcher, callbacks=[Boom()], arguments={"max_steps": 12, "logging_steps": 1})
    watcher._session.fail()  # as the thread that waits for it does

    counted = rows[-1]["bimix/tokens"] / rows[-1]["bimix/step"]
    assert rows.manifest.schedule_tokens == pytest.approx(12 * counted, rel=0.011)


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows, model_size="7B", schedule_tokens=2e9), arguments={"max_steps": 2})

    said = rows.manifest
    assert (said.model_size, said.total_parameters) == (7 * 10**9, BODY + (VOCABULARY + TIME) * WIDTH)
    assert said.schedule_tokens == 2 * 10**9


def test_a_resumed_run_keeps_its_size_and_a_longer_schedule_is_the_whole_run_s(tmp_path: Path) -> None:
    first = Rows()
    given = {"save_strategy": "steps", "save_steps": 3, "logging_steps": 1}
    run_trainer(tmp_path, callback(first, model_size=5000), arguments=given, callbacks=[StopAt(3)])
    watcher = callback(None)
    trainer = make_trainer(tmp_path, watcher, arguments=given | {"max_steps": 9})
    with pytest.warns(UserWarning, match=r"was made for 6 steps, and now for 9: the whole run counts as one of 9"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert first.manifest.schedule_tokens == round(planned_tokens(3) * 6 / 3)
    assert watcher.recorder.manifest.model_size == 5000
    assert watcher.recorder.manifest.schedule_tokens == planned_tokens(9)


def test_a_checkpoint_without_ours_has_no_schedule(tmp_path: Path) -> None:
    given = {"save_strategy": "steps", "save_steps": 3}
    run_trainer(tmp_path, None, arguments=given, data_collator=without_domain)
    rows = Rows()
    trainer = make_trainer(tmp_path, callback(rows), arguments=given)
    with pytest.warns(UserWarning, match="checkpoint is without bimix: tokens count from here"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))

    assert rows.manifest.schedule_tokens is None
    assert rows.manifest.model_size == BODY


# --- Lightning


def test_a_fit_of_lightning_says_what_the_trainer_s_run_does(tmp_path: Path) -> None:
    ours, theirs = Rows(), Rows()
    fit(tmp_path, ours)
    run_trainer(tmp_path, callback(theirs))

    for name in ("model_size", "total_parameters", "schedule_tokens"):
        assert getattr(ours.manifest, name) == getattr(theirs.manifest, name) is not None


def test_a_fit_that_is_cut_short_has_the_schedule_of_the_whole(tmp_path: Path) -> None:
    class Cut(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step >= 4

    rows, epochs = Rows(), Rows()
    fit(tmp_path, rows, callbacks=[Cut()], max_steps=12)
    fit(tmp_path, epochs, callbacks=[Cut()], max_steps=-1, max_epochs=2)

    assert rows.manifest.schedule_tokens == round(planned_tokens(4) * 12 / 4)
    assert epochs.manifest.schedule_tokens == round(planned_tokens(4) * 2 * 25 / 4)


def test_steps_of_several_optimizers_are_planned_by_the_module_alone(tmp_path: Path) -> None:
    class Manual(Module):
        automatic_optimization = False

        def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
            found = super().training_step(batch, batch_idx)
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(found["loss"])
            optimizer.step()
            return found

    rows, open_ended = Rows(), Rows()
    fit(tmp_path, rows, module=Manual())
    fit(tmp_path, open_ended, module=Manual(), max_steps=-1, max_epochs=1, limit_train_batches=4)

    assert rows.manifest.schedule_tokens == planned_tokens(STEPS)
    assert open_ended.manifest.schedule_tokens is None


# --- loops of one's own


def loop(recorder: DomainLossRecorder, until: int) -> DomainLossMeter:
    meter, net = DomainLossMeter(recorder), model()
    for step, batch in zip(range(1, until + 1), batches(examples(100, 1), BATCH), strict=False):
        with torch.no_grad():
            meter.update(net(batch["input_ids"]).logits, batch["labels"], batch["domain_ids"])
        meter.log_train(step)
    return meter


def test_a_loop_says_both_by_arguments_and_a_resume_may_say_another_schedule() -> None:
    rows = Rows()
    recorder = DomainLossRecorder(DOMAINS, MIXTURE, rows, model_size=5e6, schedule_tokens="1M")
    meter = loop(recorder, 2)
    state = meter.state_dict()
    meter.finish(2)
    assert (rows.manifest.model_size, rows.manifest.schedule_tokens) == (5_000_000, 1_000_000)
    assert "total_parameters" not in rows.manifest.to_dict()

    same, longer = (DomainLossRecorder(DOMAINS, MIXTURE, schedule_tokens=tokens) for tokens in (None, 2e6))
    same.load_state_dict(state)
    with pytest.warns(UserWarning, match=r"was made for 1,000,000 tokens, and now for 2,000,000: the whole run"):
        longer.load_state_dict(state)
    assert (same.manifest.model_size, same.manifest.schedule_tokens) == (5_000_000, 1_000_000)
    assert (longer.manifest.model_size, longer.manifest.schedule_tokens) == (5_000_000, 2_000_000)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"model_size": 7}, r"model_size is 7 parameters: did you mean 7e9 \(7B\)\?"),
        ({"model_size": "7"}, r"model_size: '7' is not a number of parameters; did you mean 7B"),
        ({"model_size": "large"}, r"model_size: 'large' is not a number of parameters, such as 7B"),
        ({"model_size": float("nan")}, "model_size must be a number of parameters, such as .*, got nan"),
        ({"model_size": True}, "model_size must be a number of parameters, .* got True"),
        ({"model_size": -7e9}, "model_size must be a positive number of parameters, got -7000000000.0"),
        ({"model_size": [7e9]}, r"model_size must be a number of parameters, .* got \[7000000000.0\]"),
        ({"schedule_tokens": 0}, "schedule_tokens must be a positive number of tokens, such as 20B or 5e9, got 0"),
        ({"schedule_tokens": False}, "schedule_tokens must be a positive number of tokens, .* got False"),
        ({"schedule_tokens": "long"}, "schedule_tokens: 'long' is not a number of tokens"),
        ({"schedule_tokens": float("inf")}, "schedule_tokens must be a positive number of tokens, .* got inf"),
    ],
)
def test_what_is_no_size_is_refused_before_training(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecorderError, match=complaint):
        DomainLossRecorder(DOMAINS, MIXTURE, **given)


def test_a_toy_too_small_to_be_a_model_trains_all_the_same() -> None:
    recorder = DomainLossRecorder(DOMAINS, MIXTURE)
    recorder.complete(model_size=12, total_parameters=800)

    assert (recorder.manifest.model_size, recorder.manifest.total_parameters) == (None, 800)
