"""The plain-PyTorch meter against token-by-token computations in float64."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from bimix_integrations.trainers.torch import DomainLossMeter, align, token_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bimix_tracking import DomainLossRecorder
from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.errors import RecorderError

DOMAINS = ["a", "b", "c"]


def reference(logits: Tensor, labels: Tensor, ids: Tensor) -> dict[str, tuple[float, int]]:
    """Return (mean loss, tokens) of each domain: one token at a time, the log-softmax by hand."""
    sums: dict[str, list[float]] = defaultdict(list)
    for row in range(labels.shape[0]):
        for time in range(labels.shape[1] - 1):
            target = int(labels[row, time + 1])
            if target != -100:
                values = logits[row, time].double().numpy()
                log_normaliser = values.max() + math.log(np.exp(values - values.max()).sum())
                id_ = int(ids[row]) if ids.ndim == 1 else int(ids[row, time + 1])
                sums[DOMAINS[id_]].append(log_normaliser - values[target])
    return {name: (float(np.mean(losses)), len(losses)) for name, losses in sums.items()}


def batch(seed: int, *, rows: int = 5, time: int = 7, vocabulary: int = 11, packed: bool = False) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, time, vocabulary, generator=generator)
    labels = torch.randint(vocabulary, (rows, time), generator=generator)
    labels[torch.rand(rows, time, generator=generator) < 0.2] = -100
    ids = torch.randint(3, (rows, time) if packed else (rows,), generator=generator)
    return logits, labels, ids


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), packed=st.booleans())
def test_means_equal_a_token_by_token_computation(seed: int, packed: bool) -> None:
    logits, labels, ids = batch(seed, packed=packed)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))

    meter.update(logits, labels, ids)
    row = meter.log_train(1)

    expected = reference(logits, labels, ids)
    losses = {name.partition("/")[2]: v for name, v in row.items() if name.startswith("bimix_train_loss/")}
    assert losses == pytest.approx({name: loss for name, (loss, _) in expected.items()}, rel=1e-6)
    assert row["bimix/tokens"] == sum(count for _, count in expected.values())


def test_many_batches_are_one() -> None:
    parts = [batch(seed) for seed in range(6)]
    together = DomainLossMeter(DomainLossRecorder(DOMAINS))
    together.update(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    apart = DomainLossMeter(DomainLossRecorder(DOMAINS))
    for part in parts:
        apart.update(*part)

    assert apart.log_train(1) == pytest.approx(together.log_train(1), rel=1e-12)


def test_logits_in_pieces_give_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels, _ = batch(3)
    whole = token_losses(logits, labels)
    monkeypatch.setattr("bimix_integrations.trainers.torch._CHUNK", 11 * 4)

    assert torch.equal(token_losses(logits, labels), whole)


def test_a_confident_miss_is_a_large_loss_and_no_infinity() -> None:
    losses = token_losses(torch.tensor([[[0.0, 200.0]]]), torch.tensor([[0]]))

    assert losses.item() == pytest.approx(200.0)


def test_shifted_labels_are_taken_as_they_are() -> None:
    logits, labels, ids = batch(5, packed=True)
    inside = DomainLossMeter(DomainLossRecorder(DOMAINS))
    inside.update(logits, labels, ids)
    outside = DomainLossMeter(DomainLossRecorder(DOMAINS))
    outside.update(logits[:, :-1], labels[:, 1:], ids[:, 1:], shifted=True)

    assert outside.log_train(1) == pytest.approx(inside.log_train(1), rel=1e-12)


def test_training_and_evaluation_are_kept_apart() -> None:
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(*batch(1))
    meter.update(*batch(2), split="eval")

    row = meter.log_eval(4)

    expected = reference(*batch(2))
    assert row["bimix_eval_loss/a"] == pytest.approx(expected["a"][0], rel=1e-6)
    assert row["bimix_eval_tokens/a"] == expected["a"][1]
    assert row["bimix/tokens"] == sum(count for _, count in reference(*batch(1)).values())


def test_a_domain_that_is_absent_says_nothing() -> None:
    logits, labels, ids = batch(1)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, labels, torch.zeros_like(ids))

    row = meter.log_train(1)

    assert [name for name in row if name.startswith("bimix_train_loss/")] == ["bimix_train_loss/a"]


def test_a_nan_in_one_domain_leaves_the_others_right_and_is_counted() -> None:
    logits, labels, ids = batch(1)
    labels[0, 1], ids = 3, torch.tensor([2, 0, 1, 0, 1])
    right = reference(logits, labels, ids)
    logits[0, 0] = math.nan
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, labels, ids)

    with pytest.warns(UserWarning, match=r"1 losses of domain 'c' up to step 1 were NaN"):
        row = meter.log_train(1)

    assert row["bimix_nonfinite/c"] == 1
    for name in ("a", "b"):
        assert row[f"bimix_train_loss/{name}"] == pytest.approx(right[name][0], rel=1e-6)


@pytest.mark.parametrize("id_", [3, -1])
def test_an_id_outside_the_list_is_named(id_: int) -> None:
    logits, labels, ids = batch(1)
    ids[2] = id_
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, labels, ids)

    with pytest.raises(RecorderError, match=rf"domain id {id_} is outside 0..2 \(0 'a', 1 'b', 2 'c'\)"):
        meter.flush()


def test_an_id_of_padding_may_be_anything() -> None:
    logits, labels, ids = batch(1, packed=True)
    expected = reference(logits, labels, ids)
    ids[labels == -100] = -7
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, labels, ids)

    assert meter.log_train(1)["bimix_train_loss/b"] == pytest.approx(expected["b"][0], rel=1e-6)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        (torch.zeros(5), "must be integers, got torch.float32"),
        (torch.zeros(5, dtype=torch.bool), "must be integers, got torch.bool"),
        (torch.zeros(4, dtype=torch.int64), r"must be \(batch,\) or \(batch, time\) = \(5, 7\), got \(4,\)"),
    ],
)
def test_ids_of_a_wrong_kind_are_refused(ids: Tensor, complaint: str) -> None:
    logits, labels, _ = batch(1)

    with pytest.raises(RecorderError, match=complaint):
        DomainLossMeter(DomainLossRecorder(DOMAINS)).update(logits, labels, ids)


def test_logits_of_another_shape_are_refused() -> None:
    logits, labels, ids = batch(1)

    with pytest.raises(RecorderError, match=r"got \(5, 6, 11\) and \(5, 7\)"):
        DomainLossMeter(DomainLossRecorder(DOMAINS)).update(logits[:, 1:], labels, ids)


def test_float64_logits_stay_float64() -> None:
    logits, labels, ids = batch(4)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits.double(), labels, ids)

    row = meter.log_train(1)

    for name, (loss, _) in reference(logits, labels, ids).items():
        assert row[f"bimix_train_loss/{name}"] == pytest.approx(loss, rel=1e-13)


def test_losses_at_hand_are_used_as_they_are_and_keep_their_graph() -> None:
    logits, labels, ids = batch(6)
    logits.requires_grad_()
    targets, target_ids = align(labels, ids)
    losses = token_losses(logits, targets)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.add(losses, targets, target_ids)
    losses.sum().backward()

    again = DomainLossMeter(DomainLossRecorder(DOMAINS))
    again.update(logits, labels, ids)
    assert meter.log_train(1) == again.log_train(1)
    assert logits.grad is not None


def test_a_sum_alone_counts_for_one_domain_and_in_a_mixed_batch_only_its_tokens_do() -> None:
    logits, labels, _ = batch(7)
    targets, one = align(labels, torch.full((5,), 1))
    losses = token_losses(logits, targets)
    exact, fused = (DomainLossMeter(DomainLossRecorder(DOMAINS)) for _ in range(2))
    exact.add(losses, targets, one)
    fused.add_sum(losses.sum(), targets, one)
    assert fused.log_train(1) == pytest.approx(exact.log_train(1), rel=1e-6)

    mixed = torch.tensor([0, 1, 1, 2, 0])
    fused.add_sum(losses.sum(), targets, mixed)
    exact.add(losses, targets, mixed)
    row, whole = fused.log_train(2), exact.log_train(2)
    assert not any(name.startswith("bimix_train_loss") for name in row)
    assert {k: v for k, v in whole.items() if not k.startswith("bimix_train_loss")} == row


def test_rows_that_a_sampler_has_filled_up_with_don_t_count() -> None:
    logits, labels, ids = batch(8)
    filled, real = (DomainLossMeter(DomainLossRecorder(DOMAINS)) for _ in range(2))
    targets, target_ids = align(labels, ids)
    filled.add(token_losses(logits, targets), targets, target_ids, rows=3)
    real.update(logits[:3], labels[:3], ids[:3])
    assert filled.log_train(1) == real.log_train(1)

    filled.add(token_losses(logits, targets), targets, target_ids, rows=0)
    assert filled.log_train(2)["bimix/tokens"] == filled.log_train(3)["bimix/tokens"]


def test_bits_per_byte_of_a_vocabulary_of_known_lengths() -> None:
    logits, labels, ids = batch(9)
    lengths = [1 + token % 4 for token in range(11)]
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS), token_bytes=lengths)
    meter.update(logits, labels, ids, split="eval")

    row = meter.log_eval(1)

    targets, _ = align(labels, ids)
    for id_, name in enumerate(DOMAINS):
        texts = sum(lengths[t] for r in range(5) if ids[r] == id_ for t in targets[r].tolist() if t >= 0)
        nats = row[f"bimix_eval_loss/{name}"] * row[f"bimix_eval_tokens/{name}"]
        assert row[f"bimix_eval_bpb/{name}"] == pytest.approx(nats / math.log(2) / texts, rel=1e-12)


def test_what_else_is_summed_is_given_by_name_for_each_token() -> None:
    logits, labels, ids = batch(9)
    targets, ids = align(labels, ids)
    losses = token_losses(logits, targets)
    losses[0, (targets[0] >= 0).nonzero()[0, 0]] = math.nan
    by_list = DomainLossMeter(DomainLossRecorder(DOMAINS), token_bytes=[1 + token % 4 for token in range(11)])
    by_token = DomainLossMeter(DomainLossRecorder(DOMAINS))
    by_list.add(losses, targets, ids, split="eval", rows=3)

    by_token.add(losses, targets, ids, split="eval", rows=3, more={"bytes": 1 + targets.remainder(4)})

    with pytest.warns(UserWarning, match="NaN or infinite"):
        row = by_list.log_eval(1)
    assert {name for name in row if name.startswith("bimix_eval_bpb/")}
    with pytest.warns(UserWarning, match="NaN or infinite"):
        assert by_token.log_eval(1) == row
    with pytest.raises(RecorderError, match="nothing is summed as 'byte'; DomainSums has 'loss', 'tokens'"):
        by_token.add(losses, targets, ids, more={"byte": targets})


def test_entropies_of_the_stream_are_those_of_its_tokens() -> None:
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS), entropy_every=2)
    expected = [EntropyCounter() for _ in DOMAINS]
    for number in range(6):
        logits, labels, ids = batch(number)
        meter.update(logits, labels, ids)
        if number % 2 == 0:
            for row, id_ in zip(align(labels, ids)[0].tolist(), ids.tolist(), strict=True):
                expected[id_].add([t for t in row if t >= 0], [b >= 0 for b in _neighbours(row)])
        if number == 3:
            meter.log_train(4)
    state = json.loads(json.dumps(meter.state_dict()))

    again = DomainLossMeter(DomainLossRecorder(DOMAINS), entropy_every=2)
    again.load_state_dict(state)
    for row in (meter.log_train(6), again.log_train(6)):
        for name, counter in zip(DOMAINS, expected, strict=True):
            assert row[f"bimix_entropy_shannon/{name}"] == pytest.approx(counter.shannon, abs=1e-12)
            assert row[f"bimix_entropy_joint/{name}"] == pytest.approx(counter.joint, abs=1e-12)
            assert row[f"bimix_entropy_conditional/{name}"] == pytest.approx(counter.conditional, abs=1e-12)


def test_counts_of_another_version_begin_anew() -> None:
    meter, again = (DomainLossMeter(DomainLossRecorder(DOMAINS), entropy_every=1) for _ in range(2))
    for one in (meter, again):
        one.update(*batch(1))
    state = meter.state_dict()
    state["sample"]["counts"][DOMAINS[0]] = {"tokens": "", "pairs": ""}

    with pytest.warns(UserWarning, match=f"entropies of domain '{re.escape(DOMAINS[0])}' are counted from here on"):
        again.load_state_dict(state)
    again.update(*batch(2))
    assert any("entropy" in name for name in again.log_train(1))


def _neighbours(row: list[int]) -> list[int]:
    """Return 1 for each token whose neighbour to the left is one too, −1 for the others, from the second on."""
    places = [place for place, token in enumerate(row) if token >= 0]
    return [1 if two == one + 1 else -1 for one, two in itertools.pairwise(places)]


def test_without_asking_nothing_is_sampled() -> None:
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(*batch(1))

    assert not any("entropy" in name for name in meter.log_train(1))


def test_labels_that_are_all_ignored_are_no_tokens() -> None:
    logits, labels, ids = batch(1)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, torch.full_like(labels, -100), ids)
    assert meter.log_train(1) == {"bimix/step": 1, "bimix/tokens": 0}

    meter.add_sum(logits.sum(), torch.full_like(labels, -100), ids)
    assert meter.log_train(2) == {"bimix/step": 2, "bimix/tokens": 0}


def test_a_thousand_domains_are_as_right_as_three() -> None:
    names = [f"d{i}" for i in range(1000)]
    logits, labels, _ = batch(2)
    meter = DomainLossMeter(DomainLossRecorder(names))
    meter.update(logits, labels, torch.tensor([999, 0, 500, 999, 0]))

    row = meter.log_train(1)

    assert {name for name in row if name.startswith("bimix_train_loss")} == {
        f"bimix_train_loss/d{i}" for i in (0, 500, 999)
    }


def test_the_error_of_an_id_says_where_it_was() -> None:
    logits, labels, ids = batch(1)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.update(logits, labels, ids)
    meter.log_train(4)
    ids[0] = 9
    meter.update(logits, labels, ids)

    with pytest.raises(RecorderError, match=r"domain id 9 is outside 0..2 .* \(after step 4, up to step 6\)"):
        meter.log_train(6)


class Waits(TorchDispatchMode):
    """Note each operation that would make the host wait for an accelerator."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "item")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        # Indexing by a mask asks how many there are.
        masked = name in {"index", "index_put_"} and any(t is not None and t.dtype == torch.bool for t in args[1])
        copied = name == "_to_copy" and (kwargs or {}).get("device") is not None
        if name in self.names or masked or copied:
            self.met.append(name)
        return func(*args, **(kwargs or {}))


def test_between_records_nothing_waits_for_the_device() -> None:
    logits, labels, ids = batch(1)
    targets, target_ids = align(labels, ids)
    losses = token_losses(logits, targets)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS), token_bytes=[1] * 11, entropy_every=1)
    with Waits() as between:
        for split in ("train", "eval"):
            meter.update(logits, labels, ids, split=split)
            meter.add(losses, targets, target_ids, split=split)
            meter.add(losses, targets, target_ids, split=split, rows=2)
            meter.add_sum(losses.sum(), targets, target_ids, split=split)
    with Waits() as control:
        losses[targets != -100].sum().item()  # what the usual recipe does, a domain at a time

    assert between.met == []
    assert control.met == ["index", "_local_scalar_dense"]


def test_an_evaluation_in_inference_mode_may_come_first() -> None:
    logits, labels, ids = batch(1)
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    with torch.inference_mode():
        meter.update(logits, labels, ids, split="eval")
    meter.update(logits, labels, ids)

    assert meter.log_train(1)["bimix_train_loss/a"] == meter.log_eval(1)["bimix_eval_loss/a"]
