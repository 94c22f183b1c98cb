"""Where the token losses of a model come from: each way by real training, against float64 and against no callback."""

from __future__ import annotations

import copy
import functools
import io
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from bimix_integrations.trainers import forward
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.forward import ForwardWatch
from bimix_integrations.trainers.session import Session
from bimix_integrations.trainers.transformers import DomainLossCallback
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import GPT2LMHeadModel, Trainer, TrainerCallback
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.modeling_outputs import CausalLMOutput

from bimix_tracking.errors import RecorderError
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    TIME,
    VOCABULARY,
    Features,
    InOrder,
    Rows,
    arguments,
    by_step,
    callback,
    collate,
    examples,
    model,
    run_trainer,
    without_domain,
)

pytestmark = [  # what PEFT uses of transformers 5.23, and we, so that 4.57 has it too
    pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing.*deprecated:FutureWarning"),
]
SLUGS = dict(zip(DOMAINS, ("code", "web", "c_372946aa"), strict=True))
OWN, LOGITS = "the model's own loss function", "its logits, by a second softmax"


class OwnLoss(GPT2LMHeadModel):
    """A model that computes its loss in its forward pass, as many did before loss functions."""

    def forward(self, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        logits = super().forward(input_ids=input_ids).logits
        loss = nn.CrossEntropyLoss()(logits[:, :-1].reshape(-1, VOCABULARY), labels[:, 1:].reshape(-1))
        return CausalLMOutput(loss=loss, logits=logits)


class Fused(GPT2LMHeadModel):
    """A model without logits in training, as Liger's are."""

    def forward(self, input_ids: Any = None, labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any) -> Any:
        logits = super().forward(input_ids=input_ids).logits
        flat, wanted = logits[:, :-1].reshape(-1, VOCABULARY), labels[:, 1:].reshape(-1)
        items = (wanted != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = functional.cross_entropy(flat, wanted, reduction="sum") / items
        skipped = self.training or kwargs.get("skip_logits")
        return CausalLMOutput(loss=loss, logits=None if skipped else logits)


class LogProbs(GPT2LMHeadModel):
    """A model with the log-probabilities of its labels, and no logits."""

    def forward(self, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        logits = super().forward(input_ids=input_ids).logits
        wanted = labels[:, 1:]
        of = logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        kept = of.masked_fill(wanted == -100, 0.0)
        return {"loss": -kept.sum() / (wanted != -100).sum(), "log_probs": kept}


def smoothed(logits: Tensor, labels: Tensor, vocab_size: int, **_: Any) -> Tensor:
    """Return a loss of one's own, that of a micro-batch for itself."""
    flat, wanted = logits[:, :-1].reshape(-1, vocab_size), labels[:, 1:].reshape(-1)
    return functional.cross_entropy(flat, wanted, label_smoothing=0.1)


@functools.wraps(ForCausalLMLoss)
def with_z_loss(logits: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return more than the function whose name this has."""
    return ForCausalLMLoss(logits, *args, **kwargs) + 0.1 * logits.logsumexp(-1).square().mean()


def of_kind(kind: type[GPT2LMHeadModel]) -> GPT2LMHeadModel:
    made = kind(model().config)
    made.load_state_dict(model().state_dict())
    return made


def with_loss(function: Callable[..., Tensor]) -> GPT2LMHeadModel:
    made = model()
    made.loss_function = function
    return made


def parameters(trainer: Trainer) -> list[Tensor]:
    assert trainer.model is not None
    return [parameter.detach().cpu() for parameter in trainer.model.parameters()]


def losses(trainer: Trainer, name: str = "loss") -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def token_means(net: Any, features: Features, shift: int = 1) -> dict[str, float]:
    """Return the mean loss of each domain's tokens, example by example, in float64."""
    found: dict[str, list[float]] = {}
    for feature in features:
        inputs = {k: torch.tensor([v]) for k, v in feature.items() if k not in ("domain", "labels")}
        labels = torch.tensor(feature["labels"])
        with torch.no_grad():
            # Encoder-decoders make their decoder's input of the labels.
            logits = net.eval()(**inputs, labels=labels.unsqueeze(0)).logits[0].double()
        said = logits.log_softmax(-1)
        for time, label in enumerate(labels[shift:].tolist()):
            if label != -100:
                found.setdefault(feature["domain"], []).append(-said[time, label].item())
    return {domain: sum(values) / len(values) for domain, values in found.items()}


# --- The model's own loss function -----------------------------------------------------------------------------------


def test_with_the_model_s_own_loss_function_training_is_the_same_to_rounding(tmp_path: Path) -> None:
    changes = {"gradient_accumulation_steps": 2, "max_steps": 12}
    watched = run_trainer(tmp_path, callback(Rows()), arguments=changes)
    alone = run_trainer(tmp_path, None, arguments=changes, data_collator=without_domain)

    for ours, theirs in zip(parameters(watched), parameters(alone), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert losses(watched) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(watched, "eval_loss") == pytest.approx(losses(alone, "eval_loss"), rel=1e-5)


def test_the_loss_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    original = functional.cross_entropy

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append(str(kwargs.get("reduction")))
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "cross_entropy", counted)
    run_trainer(tmp_path, callback(Rows()), arguments={"eval_strategy": "no", "gradient_accumulation_steps": 2})
    assert calls == ["none"] * 2 * STEPS

    calls.clear()
    run_trainer(tmp_path, callback(Rows()), model=with_loss(with_z_loss), arguments={"eval_strategy": "no"})
    assert calls == ["sum", "none"] * STEPS  # a loss function of the user's is left alone


@pytest.mark.parametrize("items", [None, 7, torch.tensor(7)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_loss_is_that_of_the_function_it_stands_for(items: Any, kind: torch.dtype) -> None:
    net: Any = model()
    net, watch, batch = net.to(kind), ForwardWatch(), _batch()
    given = {} if items is None else {"num_items_in_batch": items}
    expected = net(input_ids=batch["input_ids"], labels=batch["labels"], **given)
    watch.attach(net)
    found = net(**batch, **given)

    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-6, atol=0.0)
    assert found.loss.dtype == expected.loss.dtype
    assert torch.equal(found.logits, expected.logits)
    (seen,) = watch.taken()
    assert seen.source == OWN
    assert seen.losses is not None
    wanted = batch["labels"][:, 1:]
    exact = functional.cross_entropy(
        found.logits[:, :-1].double().transpose(1, 2), wanted, reduction="none", ignore_index=-100
    )
    torch.testing.assert_close(seen.losses[:, :-1].double(), exact, rtol=1e-6, atol=1e-6)
    assert not seen.losses[:, -1].any()
    assert not seen.losses.requires_grad


def _batch(seed: int = 3) -> dict[str, Tensor]:
    return DomainCollator(collate, DOMAINS)(examples(BATCH, seed))  # type: ignore[arg-type]


def test_labels_that_a_collator_has_shifted_are_not_shifted_again(tmp_path: Path) -> None:
    def shift(features: Features) -> dict[str, Any]:
        batch = collate(features)
        return batch | {"shift_labels": functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)}

    usual, shifted = Rows(), Rows()
    per_token = [feature | {"domain": [feature["domain"]] * TIME} for feature in examples(100, 1)]
    changes = {"learning_rate": 0.0}  # the trainer divides by the labels, and by these there are fewer
    run_trainer(tmp_path, callback(usual), arguments=changes)
    run_trainer(
        tmp_path, callback(shifted), arguments=changes, data_collator=DomainCollator(shift, DOMAINS),
        train_dataset=per_token,
    )  # fmt: skip

    assert len(shifted) == len(usual)
    for ours, theirs in zip(shifted, usual, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_further_losses_of_a_model_are_left_to_it() -> None:
    class WithHeads(GPT2LMHeadModel):
        """Predicts the token after the next one too, by the same function, and with labels of its own."""

        def forward(self, labels: Any = None, **kwargs: Any) -> Any:
            outputs = super().forward(labels=labels, **kwargs)
            sizes = {"vocab_size": VOCABULARY}
            nearer = outputs.logits[:, 1:].contiguous()
            outputs.loss = outputs.loss + self.loss_function(nearer, labels[:, 1:], **sizes)
            ahead = functional.pad(labels[:, 2:], (0, 2), value=-100)
            outputs.loss = outputs.loss + self.loss_function(outputs.logits, None, shift_labels=ahead, **sizes)
            return outputs

    plain, heads, batch = model(), of_kind(WithHeads), _batch()
    expected = heads(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    found = []
    for net in (plain, heads):
        watch = ForwardWatch()
        watch.attach(net)
        loss = net(**batch).loss
        (seen,) = watch.taken()
        assert seen.losses is not None
        found.append(seen.losses)

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0.0)
    assert torch.equal(found[0], found[1])


# --- Ways that only read ---------------------------------------------------------------------------------------------

READ = {
    "a loss in the forward pass": (lambda: of_kind(OwnLoss), LOGITS),
    "another loss function": (lambda: with_loss(smoothed), LOGITS),
    "a wrapped loss function": (lambda: with_loss(with_z_loss), LOGITS),
    "log_probs": (lambda: of_kind(LogProbs), "its log_probs"),
}


@pytest.mark.parametrize(("make", "source"), READ.values(), ids=READ)
def test_what_only_reads_changes_no_bit(
    tmp_path: Path, make: Callable[[], GPT2LMHeadModel], source: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="bimix_integrations")
    rows = Rows()
    changes = {"gradient_accumulation_steps": 2}
    watched = run_trainer(tmp_path, callback(rows), model=make(), arguments=changes)
    told = [record.getMessage() for record in caplog.records]
    alone = run_trainer(tmp_path, None, model=make(), arguments=changes, data_collator=without_domain)

    assert all(torch.equal(a, b) for a, b in zip(parameters(watched), parameters(alone), strict=True))
    assert losses(watched) == losses(alone)
    assert told == [f"token losses by domain come from {source}"]
    net = model()
    net.load_state_dict(watched.model.state_dict())  # type: ignore[union-attr]
    for domain, loss in token_means(net, examples(23, 2)).items():
        assert by_step(rows)[STEPS][f"bimix_eval_loss/{SLUGS[domain]}"] == pytest.approx(loss, rel=2e-6)


def test_each_way_is_logged_once_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="bimix_integrations")
    for _ in range(2):
        run_trainer(tmp_path, callback(Rows()))

    assert [record.getMessage() for record in caplog.records] == [f"token losses by domain come from {OWN}"] * 2


# --- A fused loss without logits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fused_loss_is_that_of_its_micro_batch_s_one_domain(tmp_path: Path, accumulate: int) -> None:
    # Micro-batches of one domain each, three domains in turn.
    by_domain = {domain: iter(examples(100, 7, [domain])) for domain in DOMAINS}
    features = [next(by_domain[DOMAINS[i // BATCH % 3]]) for i in range(100)]
    fused, usual = Rows(), Rows()
    changes = {"gradient_accumulation_steps": accumulate, "logging_steps": 3, "max_steps": 6}
    for rows, net in ((fused, of_kind(Fused)), (usual, model())):
        run_trainer(tmp_path, callback(rows), model=net, arguments=changes, train_dataset=features)

    assert {f"bimix_train_loss/{slug}" for slug in SLUGS.values()} <= set(fused[0])
    for ours, theirs in zip(fused, usual, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_of_a_fused_loss_of_several_domains_there_are_tokens_and_no_loss(tmp_path: Path, accumulate: int) -> None:
    changes = {"gradient_accumulation_steps": accumulate}
    features = [f | {"domain": DOMAINS[i % 3]} for i, f in enumerate(examples(100, 1))]
    fused, usual = Rows(), Rows()
    watched = run_trainer(tmp_path, callback(fused), model=of_kind(Fused), train_dataset=features, arguments=changes)
    run_trainer(tmp_path, callback(usual), train_dataset=features, arguments=changes)
    alone = run_trainer(
        tmp_path, None, model=of_kind(Fused), train_dataset=features, arguments=changes, data_collator=without_domain
    )

    assert all(torch.equal(a, b) for a, b in zip(parameters(watched), parameters(alone), strict=True))
    for ours, theirs in zip(fused, usual, strict=True):
        assert not any(name.startswith("bimix_train_loss") for name in ours)
        assert ours == pytest.approx({k: v for k, v in theirs.items() if "train_loss" not in k}, rel=2e-5)


def test_an_evaluation_asks_for_the_logits_that_the_trainer_would_have_a_fused_loss_skip() -> None:
    net, watch, batch = of_kind(Fused), ForwardWatch(), _batch()
    watch.attach(net)
    net.eval()
    with torch.no_grad():
        net(**batch, skip_logits=True)  # as transformers 5 does with Liger, where no metric wants the logits
        (seen,) = watch.taken(training=False)
        without = net(input_ids=batch["input_ids"], labels=batch["labels"], skip_logits=True)

    assert seen.source == LOGITS
    assert without.logits is None  # not a batch of ours


# --- Labels that aren't those of the next token ----------------------------------------------------------------------


def test_an_encoder_decoder_s_labels_are_not_shifted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    config.decoder_start_token_id = 0
    _trains_unshifted(tmp_path, transformers.T5ForConditionalGeneration(config))


def test_a_masked_model_s_labels_are_not_shifted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    _trains_unshifted(tmp_path, transformers.BertForMaskedLM(config))


def _trains_unshifted(folder: Path, net: Any) -> None:
    rows, before = Rows(), copy.deepcopy(net)
    changes = {"logging_steps": 1}
    watched = run_trainer(folder, callback(rows), model=net, arguments=changes)
    alone = run_trainer(folder, None, model=copy.deepcopy(before), arguments=changes, data_collator=without_domain)

    assert all(torch.equal(a, b) for a, b in zip(parameters(watched), parameters(alone), strict=True))
    first = examples(100, 1)[:BATCH]
    for when, features, of in ((rows[0], first, before), (by_step(rows)[STEPS], examples(23, 2), net)):
        split = "train" if features is first else "eval"
        for domain, loss in token_means(of, features, shift=0).items():
            assert when[f"bimix_{split}_loss/{SLUGS[domain]}"] == pytest.approx(loss, rel=2e-6)
    tokens = sum(label != -100 for feature in first for label in feature["labels"])
    assert rows[0]["bimix/tokens"] == tokens


# --- PEFT ------------------------------------------------------------------------------------------------------------


PEFT = {
    "LoRA": lambda: peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.mark.parametrize("make", PEFT.values(), ids=PEFT)
def test_adapters_of_peft_are_watched_as_the_model_is(tmp_path: Path, make: Callable[[], Any]) -> None:
    def adapted() -> Any:
        base = GPT2LMHeadModel(transformers.GPT2Config(**model().config.to_dict() | {"n_positions": TIME + 3}))
        torch.manual_seed(0)
        return peft.get_peft_model(base, make())

    def padded(features: Features) -> dict[str, Any]:
        batch = collate(features)
        return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}

    torch.manual_seed(0)
    net = adapted()
    other = copy.deepcopy(net)
    rows = Rows()
    watched = run_trainer(tmp_path, callback(rows), model=net, data_collator=DomainCollator(padded, DOMAINS))
    alone = run_trainer(
        tmp_path, None, model=other,
        data_collator=lambda features: padded([{k: v for k, v in f.items() if k != "domain"} for f in features]),
    )  # fmt: skip

    for ours, theirs in zip(parameters(watched), parameters(alone), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    virtual = 3 if net.active_peft_config.peft_type == "PROMPT_TUNING" else 0
    found: dict[str, list[float]] = {}
    for feature in examples(23, 2):
        with torch.no_grad():
            ids = torch.tensor([feature["input_ids"]])
            said = net(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, virtual:].double().log_softmax(-1)
        for time, label in enumerate(feature["labels"][1:]):
            if label != -100:
                found.setdefault(feature["domain"], []).append(-said[time, label].item())
    for domain, values in found.items():
        expected = sum(values) / len(values)
        assert by_step(rows)[STEPS][f"bimix_eval_loss/{SLUGS[domain]}"] == pytest.approx(expected, rel=2e-6)
    assert by_step(rows)[STEPS]["bimix_eval_tokens/web"] == len(found["web"])
    assert rows.manifest.total_parameters == sum(p.numel() for p in net.parameters())  # frozen ones, too


# --- How it is run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"gradient_checkpointing": True}, {"bf16": True}], ids=["checkpointing", "bf16"])
def test_training_by_other_arithmetic_is_not_perturbed(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "no"
    )  # transformers 4.57 leaves it set, for all later trainers of the process
    rows, usual = Rows(), Rows()
    watched = run_trainer(tmp_path, callback(rows), arguments=changes)
    alone = run_trainer(tmp_path, None, arguments=changes, data_collator=without_domain)
    run_trainer(tmp_path, callback(usual))

    # A loss of bfloat16 logits has few digits, and so has its gradient.
    rounding = (1e-5, 1e-6) if "bf16" not in changes else (1e-2, 1e-3)
    for ours, theirs in zip(parameters(watched), parameters(alone), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rounding[0], atol=rounding[1])
    for ours_, theirs_ in zip(rows, usual, strict=True):
        assert ours_ == pytest.approx(theirs_, rel=1e-5 if "bf16" not in changes else 2e-2)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_model_is_watched_without_breaking_its_graph(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BACKEND", "MODE"):  # transformers 4.57 leaves them set, for all later trainers of the process
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", "no" if name == "BACKEND" else "default")
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs g++")

    def causal() -> GPT2LMHeadModel:
        net = model()
        net.loss_type = "ForCausalLM"  # else transformers logs something in the midst of it
        return net

    compiled, usual = Rows(), Rows()
    run_trainer(tmp_path, callback(usual), model=causal())
    changes = {"torch_compile": True, "torch_compile_backend": backend}
    graphs = []
    watched: dict[str, Any] = {"callback": callback(compiled)}
    for options in (watched, {"callback": None, "data_collator": without_domain})[: 2 if backend == "aot_eager" else 1]:
        torch._dynamo.reset()
        counters.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler says of its own parts
            run_trainer(tmp_path, model=causal(), arguments=changes, **options)
        graphs.append(counters["stats"]["unique_graphs"])
        assert not counters["graph_break"]
    torch._dynamo.reset()

    assert set(graphs) == {1}
    assert by_step(compiled).keys() == by_step(usual).keys()
    for step, row in by_step(usual).items():
        assert by_step(compiled)[step] == pytest.approx(row, rel=1e-5)


@contextmanager
def counting_graphs(net: nn.Module) -> Iterator[tuple[Any, list[Any]]]:
    """Give a compiled model, and the graphs that it has so far."""
    torch._dynamo.reset()
    graphs: list[Any] = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield torch.compile(net, backend=count, fullgraph=True), graphs
    torch._dynamo.reset()


TRACED = {"its own": (model, 1), "logits": (lambda: of_kind(OwnLoss), 2), "fused": (lambda: of_kind(Fused), 2)}


@pytest.mark.parametrize(("make", "most"), TRACED.values(), ids=TRACED)
def test_the_hooks_are_traced_once_for_all_batches(make: Callable[[], GPT2LMHeadModel], most: int) -> None:
    net, watch = make(), ForwardWatch()
    watch.attach(net)
    with counting_graphs(net) as (compiled, graphs):
        for number in range(4):
            compiled(**_batch(number)).loss.backward()
            (seen,) = watch.taken()
            if not number:
                first = len(graphs)

    assert len(graphs) == first <= most
    net(**_batch(3))
    (again,) = watch.taken()
    known = [one.losses if one.losses is not None else one.loss_sum for one in (seen, again)]
    torch.testing.assert_close(known[0], known[1], rtol=1e-6, atol=1e-6)


# --- Several passes in a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("several", [2, 5])
def test_several_passes_in_a_step_cost_a_graph_or_two(several: int, training: bool) -> None:
    net, watch, alone = model(), ForwardWatch(), ForwardWatch()
    watch.attach(net)
    with counting_graphs(net) as (compiled, graphs), torch.set_grad_enabled(training):
        for step in range(3):
            for number in range(several):
                compiled(**_batch(number))
            found = watch.taken(training=training)
            assert len(found) == several
            if not step:
                first = len(graphs)
    assert len(graphs) == first <= 3

    plain = model()
    alone.attach(plain)
    for number, seen in enumerate(found):
        plain(**_batch(number))
        (expected,) = alone.taken()
        torch.testing.assert_close(seen.losses, expected.losses)
    assert watch.taken(training=training) == []


def test_a_loop_without_end_between_two_steps_holds_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_HELD", 3 * BATCH * TIME)
    net, watch = model(), ForwardWatch()
    watch.attach(net)
    for training in (True, False):
        for passes, held in ((4, 4), (5, 1), (7, 3)):
            with torch.set_grad_enabled(training):
                for number in range(passes):
                    net(**_batch(number))
            found = watch.taken(training=training)
            assert len(found) == held
            assert found[0].cut == (held < passes)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_pass_that_is_computed_again_for_the_backward_pass_counts_once(reentrant: bool) -> None:
    net, watch, batch = model(), ForwardWatch(), _batch()
    watch.attach(net)
    shift = torch.zeros((), requires_grad=True)  # reentrant checkpoints want an input with a gradient

    def whole(zero: Tensor) -> Tensor:
        loss: Tensor = net(**batch).loss + zero
        return loss

    loss: Any = checkpoint(whole, shift, use_reentrant=reentrant)
    loss.backward()

    assert len(watch.taken()) == 1


def test_passes_without_a_graph_count_in_training_only_where_there_are_no_others() -> None:
    net, watch = model(), ForwardWatch()
    watch.attach(net)
    with torch.no_grad():
        net(**_batch(1))
    net(**_batch(2))
    net(**_batch(3))

    assert [int(seen.labels.sum()) for seen in watch.taken()] == [int(_batch(n)["labels"].sum()) for n in (2, 3)]
    with torch.no_grad():
        net(**_batch(1))
    assert len(watch.taken()) == 1
    net(**_batch(1))
    watch.clear()
    assert watch.taken() == []


# --- A plugin must not hurt ------------------------------------------------------------------------------------------


class AtSteps(TrainerCallback):
    """Do something with the model between steps."""

    def __init__(self, what: Callable[[Any], None]) -> None:
        self.what = what

    def _do(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.what(model)

    on_step_begin = on_substep_end = on_step_end = on_pre_optimizer_step = on_evaluate = on_epoch_end = _do
    on_train_begin = on_train_end = _do


@pytest.mark.parametrize("first", [True, False])
def test_the_user_s_own_passes_are_not_counted(tmp_path: Path, first: bool) -> None:
    batch = _batch()

    def look(net: Any) -> None:
        was = net.training
        net.eval()
        with torch.no_grad():
            net(**batch)
            net(input_ids=batch["input_ids"], labels=batch["labels"])
            net(input_ids=batch["input_ids"])
        net.generate(batch["input_ids"][:1, :4], max_new_tokens=2, do_sample=False, pad_token_id=0)
        net.train(was)

    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual), arguments={"gradient_accumulation_steps": 2})
    both = [AtSteps(look), callback(rows)]
    trainer = InOrder(
        model=model(), args=arguments(tmp_path, gradient_accumulation_steps=2),
        data_collator=DomainCollator(collate, DOMAINS), train_dataset=examples(100, 1), eval_dataset=examples(23, 2),
        callbacks=both if first else both[::-1],
    )  # fmt: skip
    trainer.train()

    assert list(rows) == list(usual)


@pytest.mark.parametrize("trained", [True, False])
def test_a_watched_model_is_copied_and_saved_as_any_other(tmp_path: Path, trained: bool) -> None:
    kept: list[Any] = []

    def save(net: Any) -> None:
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        net.save_pretrained(tmp_path / "saved")
        kept[:] = [
            copy.deepcopy(net),
            torch.load(file, weights_only=False),
            GPT2LMHeadModel.from_pretrained(tmp_path / "saved"),
        ]

    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    trainer = InOrder(
        model=model(), args=arguments(tmp_path, save_strategy="no"), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2),
        callbacks=[callback(rows), AtSteps((lambda _: None) if trained else save)],
    )  # fmt: skip
    trainer.train()
    if trained:
        save(trainer.model)

    assert list(rows) == list(usual)
    batch = _batch()
    expected = trainer.model(input_ids=batch["input_ids"], labels=batch["labels"]).loss  # type: ignore[misc]
    for net in kept:
        net.eval()
        assert torch.equal(net(input_ids=batch["input_ids"], labels=batch["labels"]).loss, expected)
    # Copies can be trained and watched in their turn, and don't tell the original's callback.
    before = len(rows)
    for net in kept:
        again = Rows()
        run_trainer(tmp_path, callback(again), model=net)
        assert by_step(again)[STEPS]["bimix/tokens"] == by_step(usual)[STEPS]["bimix/tokens"]
    assert len(rows) == before


def test_two_trainers_one_after_another_watch_one_model(tmp_path: Path) -> None:
    net, one, other = model(), Rows(), Rows()
    first = run_trainer(tmp_path, callback(one), model=net)
    run_trainer(tmp_path, callback(other), model=net)

    assert len(one) == len(other)
    assert by_step(one)[STEPS]["bimix/tokens"] == by_step(other)[STEPS]["bimix/tokens"]
    assert by_step(one)[2]["bimix_train_loss/web"] > by_step(other)[2]["bimix_train_loss/web"]  # it goes on learning
    before = list(one), list(other)
    first.evaluate()  # of the weights that the other one has made: no point of the first one's curve
    assert (list(one), list(other)) == before


def test_two_callbacks_of_one_trainer_are_one_too_many(tmp_path: Path) -> None:
    trainer = InOrder(
        model=model(), args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2), callbacks=[callback(Rows()), callback(Rows())],
    )  # fmt: skip
    with pytest.raises(RecorderError, match="another DomainLossCallback of this trainer"):
        trainer.train()


def test_a_model_with_a_watch_inside_another_is_watched_from_outside(tmp_path: Path) -> None:
    net = model()
    run_trainer(tmp_path, callback(Rows()), model=net)
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    rows = Rows()
    run_trainer(tmp_path, callback(rows), model=peft.get_peft_model(net, config))

    assert [row["bimix/step"] for row in rows if "bimix_train_loss/web" in row] == [2, 4, 6]


# --- What doesn't fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (torch.tensor([0, 1, 2]), r"must be \(batch,\) or \(batch, time\) = \(4, 12\), got \(3,\) \(step 0\)"),
        (torch.zeros(4, 5, dtype=torch.int64), r"got \(4, 5\) \(step 0\)"),
        (torch.zeros(4, 12, 1, dtype=torch.int64), r"got \(4, 12, 1\) \(step 0\)"),
        (torch.zeros(4), r"must be integers, got torch.float32 \(step 0\)"),
        (torch.zeros(4, dtype=torch.bool), r"must be integers, got torch.bool \(step 0\)"),
    ],
)
def test_ids_that_don_t_fit_are_told_with_the_step(ids: Tensor, complaint: str) -> None:
    net, session = model(), Session(DOMAINS, None, None)
    session.watch.attach(net)
    net(**_batch() | {"domain_ids": ids})

    with pytest.raises(RecorderError, match=complaint):
        session.train_batch(0)


def test_labels_that_are_no_tokens_are_told() -> None:
    config = transformers.GPT2Config(**model().config.to_dict() | {"num_labels": 2, "pad_token_id": 0})
    net, watch = transformers.GPT2ForSequenceClassification(config), ForwardWatch()
    watch.attach(net)

    with pytest.raises(RecorderError, match=r"labels of shape \(4,\) are not \(batch, time\)"):
        net(_batch()["input_ids"], labels=torch.zeros(4, dtype=torch.int64), domain_ids=torch.zeros(4))


@pytest.mark.parametrize(
    ("outputs", "complaint"),
    [
        ({"logits": torch.zeros(4, 11, VOCABULARY)}, r"logits of shape \(4, 11, 17\) don't fit labels \(4, 12\)"),
        ({"logits": torch.zeros(3, 12, VOCABULARY)}, "don't fit labels"),
        ({"log_probs": torch.zeros(4, 10)}, r"log_probs of shape \(4, 10\) don't fit labels \(4, 12\)"),
        ({"hidden": torch.zeros(4)}, "neither log_probs, logits nor a loss"),
    ],
)
def test_outputs_that_don_t_fit_are_told(outputs: dict[str, Tensor], complaint: str) -> None:
    class Odd(nn.Module):
        def forward(self, **kwargs: Any) -> dict[str, Tensor]:
            return outputs

    net, watch = Odd(), ForwardWatch()
    watch.attach(net)
    with pytest.raises(RecorderError, match=complaint):
        net(**_batch())


def test_a_callback_s_arguments_are_the_session_s() -> None:
    with pytest.raises(TypeError, match="unexpected"):
        DomainLossCallback(DOMAINS, tracker=None, mixtur={"code": 1.0})
