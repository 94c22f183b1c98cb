"""Nothing between two rows waits for the device, and the GPU's benchmark runs: no GPU is needed for either.

A tensor on PyTorch's `meta` device has a shape and no values: whatever would make the host wait for a value raises.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from bimix_integrations.trainers.torch import DomainLossMeter, align, token_losses
from bimix_integrations.trainers.transformers import DomainLossCallback
from transformers import GPT2Config, GPT2LMHeadModel

from bimix_tracking import DomainLossRecorder

_DOMAINS = {"code": 0.5, "web": 0.5}


@pytest.fixture(name="benchmark")
def _benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of the GPU's table."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("overhead_gpu")


@pytest.fixture(name="batch")
def _batch() -> dict[str, torch.Tensor]:
    tokens = torch.zeros(2, 8, dtype=torch.int64, device="meta")
    return {"input_ids": tokens, "labels": tokens, "domain_ids": torch.zeros(2, dtype=torch.int64, device="meta")}


def test_what_would_wait_raises_here() -> None:
    nothing = torch.zeros(2, device="meta")

    for read in (lambda: nothing.sum().item(), lambda: bool(nothing.any()), nothing.tolist, nothing.cpu):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()


@pytest.mark.parametrize("ids", ["of rows", "of tokens"])
def test_the_meter_waits_for_nothing(batch: dict[str, torch.Tensor], ids: str) -> None:
    meter = DomainLossMeter(DomainLossRecorder(list(_DOMAINS), _DOMAINS), token_bytes=[1] * 16, entropy_every=2)
    labels = batch["labels"]
    domain_ids = batch["domain_ids"] if ids == "of rows" else labels
    logits = torch.zeros(2, 8, 16, device="meta")

    for split in ("train", "eval"):
        meter.update(logits, labels, domain_ids, split=split)
        targets, aligned = align(labels, domain_ids)
        meter.add(token_losses(logits, targets), targets, aligned, split=split, rows=1)
        meter.add_sum(torch.zeros((), device="meta"), targets, aligned, split=split)
    meter.discard("eval")


@pytest.mark.parametrize("loss", ["its own", "another"])
def test_the_callback_waits_for_nothing(batch: dict[str, torch.Tensor], loss: str, benchmark: Any) -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    if loss == "another":
        model.loss_function = lambda logits, *_, **__: logits.float().mean()
    callback = DomainLossCallback(list(_DOMAINS), _DOMAINS, None)
    args, state, control = benchmark.told_by_trainer()
    callback.on_init_end(args, state, control, model=model)
    callback.on_train_begin(args, state, control, model=model)

    for training in (True, False, True):
        model.train(training)
        if training:
            callback.on_step_begin(args, state, control)
        with torch.set_grad_enabled(training):
            found = model(**batch).loss
        if training:
            found.backward()
            state.global_step += 1
            callback.on_step_end(args, state, control)
        else:
            callback.on_prediction_step(args, state, control)


def test_the_gpus_table_counts_what_the_recipe_reads_and_ours_does_not(
    benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row for row in benchmark.ROWS if row.domains == 10]

    benchmark.table(torch.device("cpu"), small=True, seconds=0, blocks=0, rows=rows)

    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    reads = {cells[0]: [float(number) for number in cells[6].split(" → ")] for cells in lines[1:]}
    assert set(reads) == {*benchmark.PATHS, "recipe"}
    for path, (without, ours) in reads.items():
        assert (ours > without) == (path == "recipe"), path
