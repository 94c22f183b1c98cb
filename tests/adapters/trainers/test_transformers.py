"""Hugging Face's Trainer: the callback's numbers against the plain loop's, and against the batches themselves."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback, enable_report_to
from mlflow.tracking import MlflowClient
from torch.utils.data import IterableDataset
from transformers import DataCollatorWithFlattening, GPT2Config, GPT2LMHeadModel, TrainerControl, TrainerState
from transformers.modeling_outputs import CausalLMOutput

from bimix_tracking import DomainLossRecorder
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
    plain_loop,
    run_trainer,
    without_domain,
)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_trainer_and_a_plain_loop_log_the_same_numbers(tmp_path: Path, accumulate: int) -> None:
    ours, theirs = Rows(), Rows()
    plain_loop(ours, accumulate)
    run_trainer(tmp_path, callback(theirs), arguments={"gradient_accumulation_steps": accumulate})

    mine, trainers = by_step(ours), by_step(theirs)
    assert set(mine) == set(trainers) == {2, 3, 4, 6}
    for step, row in mine.items():
        assert set(row) == set(trainers[step])
        assert trainers[step] == pytest.approx(row, rel=2e-5)  # float32 training on two code paths


def test_numbers_equal_an_independent_computation_on_the_same_batches(tmp_path: Path) -> None:
    rows = Rows()
    frozen = model()
    run_trainer(tmp_path, callback(rows), model=copy.deepcopy(frozen), arguments={"learning_rate": 0.0})

    def expected(features: Features) -> dict[str, float]:
        losses: dict[str, list[float]] = {}
        for example in features:
            with torch.no_grad():
                logits = frozen(torch.tensor([example["input_ids"]])).logits[0].double()
            for time, label in enumerate(example["labels"][1:]):
                if label != -100:
                    losses.setdefault(example["domain"], []).append(-logits[time].log_softmax(-1)[label].item())
        return {domain: float(np.mean(values)) for domain, values in losses.items()}

    merged = by_step(rows)
    slugs = {"code": "code", "web": "web", "c++": "c_372946aa"}
    for domain, loss in expected(examples(23, 2)).items():
        assert merged[3][f"bimix_eval_loss/{slugs[domain]}"] == pytest.approx(loss, rel=1e-6)
    for domain, loss in expected(examples(100, 1)[2 * BATCH : 4 * BATCH]).items():
        assert merged[4][f"bimix_train_loss/{slugs[domain]}"] == pytest.approx(loss, rel=1e-6)
    seen = examples(100, 1)[: 6 * BATCH]
    counted = {d: sum(t != -100 for e in seen if e["domain"] == d for t in e["labels"][1:]) for d in DOMAINS}
    assert merged[6]["bimix/tokens"] == sum(counted.values())
    for domain, tokens in counted.items():
        assert merged[6][f"bimix_tokens/{slugs[domain]}"] == tokens
        assert merged[6][f"bimix_share/{slugs[domain]}"] == tokens / sum(counted.values())


def test_the_evaluation_loss_depends_on_no_batch_size(tmp_path: Path) -> None:
    found = []
    for size in (1, 4, 23):
        rows = Rows()
        run_trainer(tmp_path, callback(rows), arguments={"per_device_eval_batch_size": size})
        found.append(by_step(rows)[6])

    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)


def test_a_dict_of_evaluation_sets_is_one_row(tmp_path: Path) -> None:
    together, apart = Rows(), Rows()
    features = examples(23, 2)
    run_trainer(tmp_path, callback(together))
    sets = {domain: [e for e in features if e["domain"] == domain] for domain in DOMAINS}
    run_trainer(tmp_path, callback(apart), eval_dataset=sets)

    evaluations = [row for row in apart if "bimix_eval_loss/web" in row]
    assert [row["bimix/step"] for row in evaluations] == [3, 6]
    assert by_step(apart)[6] == pytest.approx(by_step(together)[6], rel=1e-6)


def test_training_is_not_perturbed(tmp_path: Path) -> None:
    with_it = run_trainer(tmp_path, callback(Rows()))
    without = run_trainer(tmp_path, None, data_collator=without_domain)

    assert all(
        torch.equal(a, b)
        for a, b in zip(with_it.model.parameters(), without.model.parameters(), strict=True)  # type: ignore[union-attr]
    )


def test_evaluations_before_and_after_training_are_recorded(tmp_path: Path) -> None:
    rows = Rows()
    watcher = callback(rows)
    trainer = InOrder(
        model=model(), args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2), callbacks=[watcher],
    )  # fmt: skip
    trainer.evaluate()
    trainer.train()
    trainer.evaluate()

    steps = [row["bimix/step"] for row in watcher.recorder.curves()["rows"]]
    assert steps == [0, 3, 6]
    assert [row["bimix/step"] for row in rows if "bimix_eval_loss/web" in row] == steps  # the last one, once


def test_a_prediction_is_no_evaluation(tmp_path: Path) -> None:
    rows = Rows()
    trainer = run_trainer(tmp_path, callback(rows))
    trainer.predict(examples(9, 5))  # type: ignore[arg-type]
    trainer.evaluate()

    assert rows[-1]["bimix_eval_tokens/web"] == by_step(rows)[3]["bimix_eval_tokens/web"]
    assert rows[-1]["bimix_eval_loss/web"] == pytest.approx(by_step(rows)[6]["bimix_eval_loss/web"], rel=1e-6)


def test_beside_the_trainer_s_own_mlflow_callback_there_is_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shared")
    monkeypatch.chdir(tmp_path)
    watcher = DomainLossCallback(DOMAINS, {"code": 0.4, "web": 0.4, "c++": 0.2}, tracker="mlflow:shared")

    run_trainer(tmp_path, watcher, arguments={"report_to": "mlflow", "run_name": "theirs"})

    client = MlflowClient()
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    # The trainer's callback ends the run before ours hears of the end; what we then write must still go there.
    assert run.info.status == "FINISHED"
    assert "eval_loss" in run.data.metrics
    assert "bimix_eval_loss/web" in run.data.metrics
    assert "bimix/curves.json" in {file.path for file in client.list_artifacts(run.info.run_id, "bimix")}


def test_the_manifest_says_what_the_trainer_knows(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows, sweep="s"))

    assert rows.manifest.model_size == model().num_parameters(exclude_embeddings=True)
    assert rows.manifest.total_parameters == model().num_parameters()
    assert rows.manifest.sweep == "s"
    assert rows.manifest.eval_set.startswith("sums:")
    assert rows.artifact[0] == "bimix/curves.json"
    assert rows.finished


def test_other_evaluation_data_have_another_name(tmp_path: Path) -> None:
    names = []
    for seed in (2, 2, 3):
        rows = Rows()
        run_trainer(tmp_path, callback(rows), eval_dataset=examples(23, seed))
        names.append(rows.manifest.eval_set)

    assert names[0] == names[1] != names[2]


def test_a_dropped_column_is_told_with_what_keeps_it(tmp_path: Path) -> None:
    table = datasets.Dataset.from_list(examples(100, 1))

    with pytest.raises(RecorderError, match=r"no 'domain'.*remove_unused_columns=False.*DomainCollator") as told:
        run_trainer(tmp_path, callback(Rows()), train_dataset=table, arguments={"remove_unused_columns": True})
    assert "['input_ids', 'labels']" in str(told.value)


def test_a_forgotten_collator_is_told_at_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"labels, and no 'domain_ids'.*DomainCollator"):
        run_trainer(tmp_path, callback(Rows()), data_collator=without_domain)


def test_labels_that_never_reach_the_model_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecorderError, match=r"no labels reached the model.*label_smoothing_factor"):
        run_trainer(tmp_path, callback(Rows()), arguments={"label_smoothing_factor": 0.1})


@pytest.mark.parametrize(
    ("domain", "complaint"),
    [("cobol", r"unknown domain 'cobol'; choose from 'code', 'web', 'c\+\+'"), (7, "domain id 7 is outside 0..2")],
)
def test_a_domain_outside_the_list_is_named(tmp_path: Path, domain: str | int, complaint: str) -> None:
    features = examples(100, 1)
    features[1] = features[1] | {"domain": domain}

    with pytest.raises(RecorderError, match=complaint):
        run_trainer(tmp_path, callback(Rows()), train_dataset=features)


def test_packed_examples_have_an_id_a_token() -> None:
    features = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3], "domain": [0, 0, 2]} for _ in range(2)]

    batch = DomainCollator(collate, DOMAINS)(features)  # type: ignore[arg-type]

    assert batch["domain_ids"].tolist() == [[0, 0, 2], [0, 0, 2]]
    assert batch["domain_ids"].dtype == torch.int64
    assert set(batch) == {"input_ids", "labels", "domain_ids"}


def test_a_call_of_the_model_outside_the_trainer_is_left_alone(tmp_path: Path) -> None:
    rows = Rows()
    trainer = run_trainer(tmp_path, callback(rows))
    before = len(rows)

    output: Callable[..., Any] = trainer.model  # type: ignore[assignment]
    assert torch.isfinite(output(torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss)
    assert len(rows) == before


# --- What people do with a trainer -----------------------------------------------------------------------------------


class Stream(IterableDataset[dict[str, Any]]):
    """Examples that come one by one, from some source without a length."""

    def __init__(self, features: Features) -> None:
        self.features = features

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from self.features


SOURCES: dict[str, Callable[[Features], Any]] = {
    "table": datasets.Dataset.from_list,
    "streamed table": lambda features: datasets.Dataset.from_list(features).to_iterable_dataset(),
    "torch stream": Stream,
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_any_dataset_gives_the_same_rows(tmp_path: Path, make: Callable[[Features], Any]) -> None:
    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    run_trainer(tmp_path, callback(rows), train_dataset=make(examples(100, 1)), eval_dataset=make(examples(23, 2)))

    assert list(rows) == list(usual)


def test_workers_collate_as_the_trainer_s_process_does(tmp_path: Path) -> None:
    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    run_trainer(tmp_path, callback(rows), arguments={"dataloader_num_workers": 2})

    assert list(rows) == list(usual)


def test_strategies_by_epoch_log_evaluate_and_save_by_epoch(tmp_path: Path) -> None:
    rows = Rows()
    by_epoch = dict.fromkeys(("eval_strategy", "logging_strategy", "save_strategy"), "epoch")
    size = {"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 30, "load_best_model_at_end": True}
    trainer = run_trainer(tmp_path, callback(rows), arguments=by_epoch | size)

    steps = [4, 8]  # 100 examples are 4 batches
    assert [row["bimix/step"] for row in rows if "bimix_train_loss/web" in row] == steps
    assert [row["bimix/step"] for row in rows if "bimix_eval_loss/web" in row] == steps
    every = sum(label != -100 for feature in examples(100, 1) for label in feature["labels"][1:])
    assert by_step(rows)[8]["bimix/tokens"] == 2 * every
    best = trainer.state.best_model_checkpoint
    assert best is not None
    for number, step in enumerate(steps):
        state = json.loads((tmp_path / f"checkpoint-{step}" / "trainer_state.json").read_text(encoding="utf-8"))
        saved = state["stateful_callbacks"]["bimix"]
        assert sum(saved["tokens"]) == (number + 1) * every
        assert sum(saved["sets"]["eval"][0]["tokens"]) > 0  # the evaluation of this very step, whose row comes after


def test_without_logging_steps_there_is_one_row_at_the_end(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows), arguments={"logging_strategy": "no"})

    assert [row["bimix/step"] for row in rows if "bimix_train_loss/web" in row] == [STEPS]
    losses = _losses(model(), examples(100, 1)[: STEPS * BATCH])
    assert rows[-1]["bimix/tokens"] == sum(len(of) for of in losses.values())


def test_an_evaluation_on_start_is_step_0(tmp_path: Path) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows), arguments={"eval_on_start": True})

    assert [row["bimix/step"] for row in rows if "bimix_eval_loss/web" in row] == [0, 3, 6]
    expected = np.mean(_losses(model(), examples(23, 2))["web"])
    assert rows[0]["bimix_eval_loss/web"] == pytest.approx(expected, rel=1e-6)
    assert rows[0]["bimix/tokens"] == 0


def test_the_best_checkpoint_holds_its_evaluation(tmp_path: Path) -> None:
    rows = Rows()
    best = {"save_strategy": "best", "metric_for_best_model": "loss", "load_best_model_at_end": True, "eval_steps": 1}
    run_trainer(tmp_path, callback(rows), arguments=best)

    step, where = max((int(path.name.partition("-")[2]), path) for path in tmp_path.glob("checkpoint-*"))
    saved = json.loads((where / "trainer_state.json").read_text(encoding="utf-8"))["stateful_callbacks"]["bimix"]
    again = DomainLossRecorder(DOMAINS)
    again.load_state_dict(saved)
    row = again.log_eval(step)
    assert row["bimix_eval_loss/web"] == by_step(rows)[step]["bimix_eval_loss/web"]


def test_metrics_of_the_trainer_change_nothing(tmp_path: Path) -> None:
    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    trainer = InOrder(
        model=model(), args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2), callbacks=[callback(rows)],
        compute_metrics=lambda given: {"rows": float(len(given.predictions))},
    )  # fmt: skip
    trainer.train()

    assert [entry["eval_rows"] for entry in trainer.state.log_history if "eval_rows" in entry] == [23, 23]
    assert list(rows) == list(usual)


def test_a_loss_computed_outside_of_the_model_is_told(tmp_path: Path) -> None:
    def own(outputs: Any, labels: Any, **_: Any) -> Any:
        return outputs.logits.square().mean() + 0 * labels.sum()

    trainer = InOrder(
        model=model(), args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2), callbacks=[callback(Rows())],
        compute_loss_func=own,
    )  # fmt: skip
    with pytest.raises(RecorderError, match=r"no labels reached the model.*compute_loss_func.*DomainLossMeter"):
        trainer.train()


def test_a_callback_may_be_added_later(tmp_path: Path) -> None:
    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    trainer = InOrder(
        model=model(), args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2),
    )  # fmt: skip
    trainer.add_callback(callback(rows))
    trainer.train()

    assert list(rows) == list(usual)


def test_a_model_made_at_the_start_of_training_is_watched(tmp_path: Path) -> None:
    usual, rows = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    trainer = InOrder(
        model_init=model, args=arguments(tmp_path), data_collator=DomainCollator(collate, DOMAINS),
        train_dataset=examples(100, 1), eval_dataset=examples(23, 2), callbacks=[callback(rows)],
    )  # fmt: skip
    trainer.train()

    assert list(rows) == list(usual)


def test_threads_instead_of_processes_are_refused(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    args._n_gpu = 2  # what a machine with two GPUs and no torchrun says

    with pytest.raises(RecorderError, match=r"nn.DataParallel runs the model in threads: start with torchrun"):
        callback(Rows()).on_train_begin(args, TrainerState(), TrainerControl(), model=model())


def test_padding_free_batches_give_the_tokens_of_padded_ones(tmp_path: Path) -> None:
    def ragged(features: Features) -> Features:
        ends = [max(i for i, label in enumerate(f["labels"]) if label != -100) + 1 for f in features]
        whole = zip(features, ends, strict=True)
        return [f | {"input_ids": f["input_ids"][:end], "labels": f["labels"][:end]} for f, end in whole]

    padded, flat = Rows(), Rows()
    run_trainer(tmp_path, callback(padded), arguments={"learning_rate": 0.0})
    wide = GPT2LMHeadModel(GPT2Config(**model().config.to_dict() | {"n_positions": TIME}))
    wide.load_state_dict(model().state_dict())
    run_trainer(
        tmp_path, callback(flat), model=wide, arguments={"learning_rate": 0.0},
        data_collator=DomainCollator(DataCollatorWithFlattening(), DOMAINS),
        train_dataset=ragged(examples(100, 1)), eval_dataset=ragged(examples(23, 2)),
    )  # fmt: skip

    assert len(flat) == len(padded)
    for ours, theirs in zip(flat, padded, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            if "loss" not in name:  # a CPU's attention looks across the bounds of examples in one row
                assert ours[name] == theirs[name]


def test_packed_rows_are_counted_token_by_token(tmp_path: Path) -> None:
    def packed(features: Features) -> Features:
        """Put two examples into each row, and their domains a token."""
        pairs = zip(features[::2], features[1::2], strict=True)
        cut = TIME // 2
        return [
            {name: one[name][:cut] + two[name][:cut] for name in ("input_ids", "labels")}
            | {"domain": [one["domain"]] * cut + [two["domain"]] * cut}
            for one, two in pairs
        ]

    rows, train, held_out = Rows(), packed(examples(200, 1)), packed(examples(46, 2))
    trainer = run_trainer(tmp_path, callback(rows), train_dataset=train, eval_dataset=held_out)

    slugs = {"code": "code", "web": "web", "c++": "c_372946aa"}
    last = by_step(rows)[STEPS]
    for domain, losses in _losses(trainer.model, held_out).items():
        assert last[f"bimix_eval_loss/{slugs[domain]}"] == pytest.approx(np.mean(losses), rel=1e-6)
        assert last[f"bimix_eval_tokens/{slugs[domain]}"] == len(losses)
    for domain, losses in _losses(trainer.model, train[: STEPS * BATCH]).items():
        assert last[f"bimix_tokens/{slugs[domain]}"] == len(losses)


def test_left_padding_is_as_good_as_right(tmp_path: Path) -> None:
    def turned(features: Features) -> Features:
        return [f | {"labels": f["labels"][::-1], "domain": [f["domain"]] * TIME} for f in features]

    def mask(features: Features) -> dict[str, Any]:
        batch = collate(features)
        return batch | {"attention_mask": (batch["labels"] != -100).long()}

    rows = Rows()
    collator = DomainCollator(mask, DOMAINS)
    left, held_out = turned(examples(100, 1)), turned(examples(23, 2))
    run_trainer(tmp_path, callback(rows), data_collator=collator, train_dataset=left, eval_dataset=held_out)

    last = by_step(rows)[STEPS]
    for domain, slug in {"code": "code", "web": "web", "c++": "c_372946aa"}.items():
        of = [f for f in left[: STEPS * BATCH] if f["domain"][0] == domain]
        assert last[f"bimix_tokens/{slug}"] == sum(label != -100 for f in of for label in f["labels"][1:])
        of = [f for f in held_out if f["domain"][0] == domain]
        assert last[f"bimix_eval_tokens/{slug}"] == sum(label != -100 for f in of for label in f["labels"][1:])


def _losses(net: Any, features: Features) -> dict[str, list[float]]:
    """Return the losses of each domain's tokens, in float64; the domain is that of the token predicted."""
    found: dict[str, list[float]] = {}
    for feature in features:
        with torch.no_grad():
            said = net(torch.tensor([feature["input_ids"]])).logits[0].double().log_softmax(-1)
        domains = [feature["domain"]] * TIME if isinstance(feature["domain"], str) else feature["domain"]
        for time, label in enumerate(feature["labels"][1:]):
            if label != -100:
                found.setdefault(domains[time + 1], []).append(-said[time, label].item())
    return found


# --- Bits per byte, the environment, and data that are odd -----------------------------------------------------------


def test_bits_per_byte_are_nats_over_the_bytes_of_the_same_tokens(tmp_path: Path) -> None:
    rows = Rows()
    lengths = [1 + i % 4 for i in range(VOCABULARY)]
    run_trainer(tmp_path, callback(rows, token_bytes=lengths))

    last = by_step(rows)[STEPS]
    for domain, slug in {"code": "code", "web": "web", "c++": "c_372946aa"}.items():
        labels = [t for f in examples(23, 2) if f["domain"] == domain for t in f["labels"][1:] if t != -100]
        nats = last[f"bimix_eval_loss/{slug}"] * last[f"bimix_eval_tokens/{slug}"]
        expected = nats / math.log(2) / sum(lengths[t] for t in labels)
        assert last[f"bimix_eval_bpb/{slug}"] == pytest.approx(expected, rel=1e-12)


def test_report_to_takes_its_callback_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = transformers.integrations.integration_utils.INTEGRATION_TO_CALLBACK
    monkeypatch.setitem(known, "bimix", None)  # undone afterwards
    enable_report_to()
    (tmp_path / "mixture.yaml").write_text("mixture: {code: 0.4, web: 0.4, c++: 0.2}\n", encoding="utf-8")
    monkeypatch.setenv("BIMIX_MIXTURE", str(tmp_path / "mixture.yaml"))
    monkeypatch.setenv("BIMIX_TRACKER", f"jsonl:{tmp_path}/runs")
    monkeypatch.setenv("BIMIX_SWEEP", "pilot")
    usual = Rows()
    run_trainer(tmp_path / "out", callback(usual))
    run_trainer(tmp_path / "out", None, arguments={"report_to": ["bimix"]})

    (folder,) = (tmp_path / "runs").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["sweep"], manifest["domains"]) == ("pilot", DOMAINS)
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == list(usual)
    assert (folder / "FINISHED").exists()


def test_a_domain_whose_labels_are_all_ignored_and_one_that_never_appears_say_nothing(tmp_path: Path) -> None:
    rows = Rows()
    features = examples(100, 1, ["code", "web"])
    masked = [f | {"labels": [-100] * TIME} if f["domain"] == "web" else f for f in features]
    run_trainer(tmp_path, callback(rows), train_dataset=masked, eval_dataset=examples(23, 2, ["code"]))

    for row in rows:
        assert not any(name.startswith(("bimix_train_loss", "bimix_eval")) and name.endswith("web") for name in row)
        assert not any(name.startswith(("bimix_train_loss", "bimix_eval")) and "372946aa" in name for name in row)
    last = by_step(rows)[STEPS]
    assert (last["bimix_share/code"], last["bimix_share/web"], last["bimix_tokens/c_372946aa"]) == (1.0, 0.0, 0.0)


def test_a_batch_without_any_label_adds_nothing(tmp_path: Path) -> None:
    rows = Rows()
    features = examples(100, 1)
    features[BATCH : 3 * BATCH] = [f | {"labels": [-100] * TIME} for f in features[BATCH : 3 * BATCH]]
    changes = {"logging_steps": 1, "learning_rate": 0.0, "max_steps": 4, "eval_strategy": "no"}
    run_trainer(tmp_path, callback(rows), train_dataset=features, arguments=changes)

    tokens = [row["bimix/tokens"] for row in rows]
    assert tokens[0] == tokens[1] == tokens[2] < tokens[3]
    assert all(any(name.startswith("bimix_train_loss") for name in row) == (i in (0, 3)) for i, row in enumerate(rows))


def test_losses_of_one_domain_that_are_no_number_leave_the_others_right(tmp_path: Path) -> None:
    class Breaks(GPT2LMHeadModel):
        """Has no finite logits where the input begins with token 0."""

        def forward(self, input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
            outputs = super().forward(input_ids=input_ids)
            logits = outputs.logits.masked_fill((input_ids[:, :1] == 0).unsqueeze(-1), torch.nan)
            kept = logits[input_ids[:, 0] != 0]
            return CausalLMOutput(loss=kept.square().mean(), logits=logits)

    def marked(features: Features) -> Features:
        return [f | {"input_ids": [int(f["domain"] != "web"), *f["input_ids"][1:]]} for f in features]

    net = Breaks(model().config)
    net.load_state_dict(model().state_dict())
    rows = Rows()
    changes = {"learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 6, "logging_steps": 6}
    with pytest.warns(UserWarning, match=r"losses of domain 'web' up to step 6 were NaN"):
        run_trainer(
            tmp_path, callback(rows), model=net, arguments=changes,
            train_dataset=marked(examples(100, 1)), eval_dataset=marked(examples(23, 2)),
        )  # fmt: skip

    last = by_step(rows)[STEPS]
    assert "bimix_train_loss/web" not in last
    assert "bimix_eval_loss/web" not in last
    assert last["bimix_nonfinite/web"] > 0
    for domain, losses in _losses(model(), marked(examples(23, 2))).items():
        slug = {"code": "code", "c++": "c_372946aa"}.get(domain)
        if slug is not None:
            assert last[f"bimix_eval_loss/{slug}"] == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize(
    ("id_", "complaint"), [(7, "domain id 7 is outside 0..2"), (-1, "domain id -1 is outside 0..2")]
)
def test_an_id_outside_the_list_is_named_with_its_step(tmp_path: Path, id_: int, complaint: str) -> None:
    features = examples(100, 1)
    features[3 * BATCH] = features[3 * BATCH] | {"domain": id_}

    with pytest.raises(RecorderError, match=rf"{complaint} .*\(after step 2, up to step 4\)"):
        run_trainer(tmp_path, callback(Rows()), train_dataset=features, arguments={"eval_strategy": "no"})


def test_an_id_in_the_evaluation_set_outside_the_list_is_named(tmp_path: Path) -> None:
    features = examples(23, 2)
    features[20] = features[20] | {"domain": 3}

    with pytest.raises(RecorderError, match=r"domain id 3 is outside 0..2"):
        run_trainer(tmp_path, callback(Rows()), eval_dataset=features)
