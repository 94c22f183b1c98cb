"""Hugging Face's Trainer: the callback's numbers against the plain loop's, and against the batches themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from bimix_integrations.trainers.transformers import DomainCollator, DomainLossCallback
from mlflow.tracking import MlflowClient

from bimix_tracking.errors import RecorderError
from tests.adapters.toys import (
    BATCH,
    DOMAINS,
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
    after = len(rows)
    trainer.evaluate()

    steps = [row["bimix/step"] for row in watcher.recorder.curves()["rows"]]
    assert steps == [0, 3, 6]
    assert rows[after]["bimix_eval_loss/web"] == pytest.approx(by_step(rows)[6]["bimix_eval_loss/web"], rel=1e-6)


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

    assert rows.manifest.model_size == sum(p.numel() for p in model().parameters())
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
    [("cobol", r"unknown domain 'cobol'; the domains are 'code', 'web', 'c\+\+'"), (7, "domain id 7 is outside 0..2")],
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
