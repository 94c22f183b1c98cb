"""The plain-PyTorch meter against token-by-token computations in float64."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from bimix_integrations.trainers.torch import DomainLossMeter, token_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bimix_tracking import DomainLossRecorder
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
