"""Lightning's callback: the same toy as everywhere, the same numbers, and what is Lightning's own."""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
import yaml
from bimix_integrations.autolog import lightning_callbacks
from bimix_integrations.trackers.mlflow import MlflowTracker
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.environment import from_environment
from bimix_integrations.trainers.lightning import DomainLossCallback
from bimix_integrations.trainers.torch import align, token_losses
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from mlflow.tracking import MlflowClient
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from bimix_tracking import Mixture, Observations
from bimix_tracking.errors import MixtureError, RecorderError
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    Features,
    Rows,
    by_step,
    collate,
    examples,
    model,
    plain_loop,
    run_trainer,
)
from tests.adapters.trainers.toys import callback as of_transformers
from tests.warm import program

MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
Loaders = Any

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:You defined a `validation_step` but have no `val_dataloader`.*",
    "ignore:.*`isinstance.treespec, LeafSpec.*",
    "ignore:.*number of training batches.*is smaller than the logging interval.*",
    "ignore:Checkpoint directory .* exists and is not empty",
    "ignore:The dirpath has changed from",
    "ignore:.*treespec.*:DeprecationWarning",
)


class Module(LightningModule):
    """The toy, trained as the trainer of transformers does.

    Args:
        shows: How callbacks get to see the losses: `hooks` of the model inside, or what the steps return.
        accumulate: Micro-batches of a step, by whose labels together the loss is divided.
    """

    def __init__(self, shows: str = "hooks", accumulate: int = 1) -> None:
        super().__init__()
        self.model = model()
        self.shows = shows
        labels = [sum(label != -100 for label in example["labels"]) for example in examples(100, 1)]
        self.counted = [
            sum(labels[first : first + BATCH * accumulate]) / accumulate
            for first in range(0, 100, BATCH * accumulate)
            for _ in range(accumulate)
        ]

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.shows == "hooks":
            items = self.model(**batch).loss
            batch.pop("domain_ids", None)
            return items * (align(batch["labels"], batch["labels"])[0] != -100).sum(), {}
        logits = self.model(batch["input_ids"]).logits
        losses = token_losses(logits, align(batch["labels"], batch["labels"])[0])
        return losses.sum(), {"logits": logits} if self.shows == "logits" else {"token_losses": losses}

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        total, more = self._step(batch)
        return {"loss": total / self.counted[batch_idx], **more}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return self._step(batch)[1]

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-8)


def loader(features: Features, size: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(features, batch_size=size, collate_fn=DomainCollator(collate, DOMAINS), **options)  # type: ignore[arg-type]


def quiet(folder: Path, **options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "max_steps": STEPS, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder,
    }  # fmt: skip
    return given | options


def fit(
    folder: Path, rows: Rows | str | None, *, module: Module | None = None, loaders: Loaders = None, **options: Any
) -> tuple[Trainer, DomainLossCallback]:
    accumulate = options.get("accumulate_grad_batches", 1)
    watcher = DomainLossCallback(DOMAINS, MIXTURE, rows)
    resume = options.pop("ckpt_path", None)
    callbacks = [watcher, *options.pop("callbacks", [])]
    given = quiet(folder, log_every_n_steps=2, val_check_interval=3 * accumulate, callbacks=callbacks)
    training = options.pop("training", None) or loader(examples(100, 1), BATCH)
    trainer = Trainer(**given | options)
    validation = loader(examples(23, 2), 7) if loaders is None else loaders
    trainer.fit(module or Module(accumulate=accumulate), training, validation, ckpt_path=resume)
    return trainer, watcher


@pytest.mark.parametrize("shows", ["hooks", "token_losses", "logits"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_plain_loop_the_trainer_of_transformers_and_lightning_log_the_same_numbers(
    tmp_path: Path, shows: str, accumulate: int
) -> None:
    plain, transformers_, ours = Rows(), Rows(), Rows()
    plain_loop(plain, accumulate)
    run_trainer(tmp_path, of_transformers(transformers_), arguments={"gradient_accumulation_steps": accumulate})
    fit(tmp_path, ours, module=Module(shows, accumulate), accumulate_grad_batches=accumulate)

    expected, theirs, found = by_step(plain), by_step(transformers_), by_step(ours)
    assert set(expected) == set(theirs) == set(found) == {2, 3, 4, 6}
    for step, row in expected.items():
        assert set(row) == set(theirs[step]) == set(found[step])
        assert theirs[step] == pytest.approx(row, rel=2e-5)
        assert found[step] == pytest.approx(row, rel=2e-5)


@pytest.mark.parametrize("shows", ["hooks", "token_losses", "logits"])
def test_training_is_not_perturbed(tmp_path: Path, shows: str) -> None:
    modules = [Module(shows) for _ in range(2)]
    fit(tmp_path, Rows(), module=modules[0])
    without = [{k: v for k, v in e.items() if k != "domain"} for e in examples(100, 1)]
    Trainer(**quiet(tmp_path)).fit(modules[1], DataLoader(without, batch_size=BATCH, collate_fn=collate))  # type: ignore[arg-type]

    pairs = list(zip(modules[0].parameters(), modules[1].parameters(), strict=True))
    if shows == "hooks":  # the same loss, added up in another order
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs)
    else:
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("shape", ["list", "dict", "nested"])
def test_several_validation_sets_are_one_row(tmp_path: Path, shape: str) -> None:
    together, apart = Rows(), Rows()
    features = examples(23, 2)
    fit(tmp_path, together)
    parts = [loader([e for e in features if e["domain"] == domain], 4) for domain in DOMAINS]
    shapes: dict[str, Loaders] = {
        "list": parts, "dict": dict(zip(DOMAINS, parts, strict=True)), "nested": {"a": parts[:2], "b": parts[2]},
    }  # fmt: skip
    fit(tmp_path, apart, loaders=shapes[shape])

    rows = [row for row in apart if "bimix_eval_loss/web" in row]
    assert [row["bimix/step"] for row in rows] == [3, 6]
    assert by_step(apart)[6] == pytest.approx(by_step(together)[6], rel=1e-6)


def test_examples_that_a_sampler_repeats_count_once(tmp_path: Path) -> None:
    features, counted = examples(7, 5), 0.0
    for rank in range(2):
        rows = Rows()
        mine: DistributedSampler[Any] = DistributedSampler(features, 2, rank, shuffle=False)  # type: ignore[arg-type]
        # The second loader begins to count anew.
        fit(tmp_path, rows, loaders=[loader(features, 3, sampler=mine) for _ in range(2)], max_steps=3)
        counted += sum(value for name, value in by_step(rows)[3].items() if name.startswith("bimix_eval_tokens"))

    assert counted == 2 * sum(label != -100 for example in features for label in example["labels"][1:])


def test_a_validation_set_without_domains_is_told_and_does_no_harm(tmp_path: Path) -> None:
    class Bare(Module):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
            return {"logits": self.model(batch).logits}

    rows = Rows()
    bare: Any = torch.zeros(6, 5, dtype=torch.int64)
    with pytest.warns(UserWarning, match="the evaluation at step 3 had no domain ids"):
        fit(tmp_path, rows, module=Bare("logits"), loaders=DataLoader(bare), max_steps=3)
    assert [row["bimix/step"] for row in rows] == [2, 3]


def test_the_sanity_check_tests_and_predictions_leave_no_trace(tmp_path: Path) -> None:
    checked, plain = Rows(), Rows()
    fit(tmp_path, plain, num_sanity_val_steps=0)
    trainer, watcher = fit(tmp_path, checked, num_sanity_val_steps=2)
    assert checked == plain

    curves = watcher.recorder.curves()
    trainer.test(Module(), loader(examples(9, 5), 4), verbose=False)
    trainer.predict(Module(), loader(examples(9, 5), 4))
    assert checked == plain
    assert watcher.recorder.curves() == curves
    assert not watcher.recorder.evaluated


def test_validations_before_and_after_training_are_recorded(tmp_path: Path) -> None:
    rows, in_fit = Rows(), Rows()
    fit(tmp_path, in_fit)
    watcher, module, validation = DomainLossCallback(DOMAINS, MIXTURE, rows), Module(), loader(examples(23, 2), 5)
    trainer = Trainer(**quiet(tmp_path, callbacks=[watcher], log_every_n_steps=2, val_check_interval=3))
    trainer.validate(module, validation, verbose=False)
    trainer.fit(module, loader(examples(100, 1), BATCH), validation)
    trainer.validate(module, loader(examples(23, 2), 4), verbose=False)

    assert [row["bimix/step"] for row in watcher.recorder.curves()["rows"]] == [0, 3, 6]
    assert rows[0]["bimix/tokens"] == 0
    expected = next(row for row in in_fit if row["bimix/step"] == 6 and "bimix_eval_loss/web" in row)
    assert rows[-1] == pytest.approx(expected, rel=1e-6)


def test_without_logging_steps_there_is_one_row_at_the_end(tmp_path: Path) -> None:
    rows, often = Rows(), Rows()
    fit(tmp_path, rows, log_every_n_steps=0)
    fit(tmp_path, often, log_every_n_steps=1)

    assert [row["bimix/step"] for row in rows if "bimix_train_loss/web" in row] == [6]
    assert rows[-1]["bimix/tokens"] == often[-1]["bimix/tokens"]
    assert [row["bimix/step"] for row in often if "bimix_share/web" in row] == [1, 2, 3, 4, 5, 6]


class Resumable:
    """The training batches, from where a checkpoint was."""

    def __init__(self) -> None:
        self.done = 0

    def __len__(self) -> int:  # without a length, Lightning would take a batch ahead, to know the last one
        return 100 // BATCH

    def __iter__(self) -> Iterator[Any]:
        for batch in itertools.islice(loader(examples(100, 1), BATCH), self.done, None):
            self.done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def written(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """Return the rows and the curves of the only run in a folder."""
    (run,) = folder.iterdir()
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    return rows, json.loads((run / "curves.json").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:the learning-rate schedule was made for")  # of the part alone
@pytest.mark.parametrize("saved", [2, 3, 5])  # beside a training row, an evaluation, and neither
def test_a_run_cut_in_two_is_one_run(tmp_path: Path, saved: int) -> None:
    def part(name: str, steps: int = STEPS, resume: Path | None = None) -> DomainLossCallback:
        saving = ModelCheckpoint(
            tmp_path / f"{name}-{steps}", filename="{step}", every_n_train_steps=saved, save_top_k=-1
        )
        _, watcher = fit(
            tmp_path, f"jsonl:{tmp_path / name}", training=Resumable(), max_steps=steps,
            enable_checkpointing=True, callbacks=[saving], ckpt_path=resume,
        )  # fmt: skip
        return watcher

    whole = part("whole")
    part("cut", saved)
    checkpoint = tmp_path / f"cut-{saved}" / f"step={saved}.ckpt"
    state = torch.load(checkpoint, weights_only=True)["callbacks"]["DomainLossCallback"]
    assert json.loads(json.dumps(state)) == state
    rest = part("cut", resume=checkpoint)

    rows, curves = written(tmp_path / "cut")
    expected = written(tmp_path / "whole")
    # Where the first part ended between two training rows, it wrote one for what was left, and that is dropped.
    assert by_step(Rows(rows)) == by_step(Rows(expected[0]))
    assert len(rows) == len(expected[0])
    assert curves == expected[1]
    assert rest.recorder.state_dict()["tokens"] == whole.recorder.state_dict()["tokens"]


def test_a_checkpoint_without_the_callback_is_told(tmp_path: Path) -> None:
    trainer = Trainer(**quiet(tmp_path, max_steps=2))
    trainer.fit(Module(), Resumable())
    trainer.save_checkpoint(tmp_path / "bare.ckpt")

    with pytest.warns(UserWarning, match="step 2's checkpoint is without bimix: tokens count from here"):
        fit(tmp_path, Rows(), training=Resumable(), ckpt_path=tmp_path / "bare.ckpt")


def test_a_validation_of_a_checkpoint_leaves_the_checkpoint_s_run_alone(tmp_path: Path) -> None:
    uri = f"jsonl:{tmp_path / 'runs'}"
    trainer, _ = fit(tmp_path, uri, max_steps=3, training=Resumable())
    trainer.save_checkpoint(tmp_path / "at-3.ckpt")
    (run,) = (tmp_path / "runs").iterdir()
    before = (run / "rows.jsonl").read_text(encoding="utf-8")

    fresh = Trainer(**quiet(tmp_path, callbacks=[DomainLossCallback(DOMAINS, MIXTURE, uri)]))
    with pytest.warns(UserWarning, match=r"a validation of .*at-3.ckpt is not of the weights"):
        fresh.validate(Module(), loader(examples(23, 2), 5), ckpt_path=tmp_path / "at-3.ckpt", verbose=False)
    assert (run / "rows.jsonl").read_text(encoding="utf-8") == before
    assert (run / "FINISHED").exists()


_LOOK = """
import json, sys
import lightning.pytorch, pytorch_lightning
found = []
for package in (lightning.pytorch, pytorch_lightning):
    trainer = package.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    found += [type(c).__module__ for c in trainer.callbacks if type(c).__name__ == "DomainLossCallback"]
print(json.dumps([found, "bimix_integrations.trainers.lightning" in sys.modules]))
"""


def trainers_of_a_fresh_process(**variables: str) -> Any:
    """Return whose callbacks the Trainers of both packages have, and whether our module is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BIMIX_")} | variables
    command = [program("python", training=True), "-c", _LOOK]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_line_of_code_the_environment_switches_it_on(tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": MIXTURE}), encoding="utf-8")
    switched = {"BIMIX_MIXTURE": str(tmp_path / "mixture.yaml"), "BIMIX_TRACKER": f"jsonl:{tmp_path}"}

    ours = "bimix_integrations.trainers.lightning"
    assert trainers_of_a_fresh_process(BIMIX_AUTOLOG="1", **switched) == [[ours, ours], True]
    assert trainers_of_a_fresh_process(**switched) == [[], False]


def test_the_environment_configures_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"mixture": MIXTURE}), encoding="utf-8")
    for name, value in (
        ("AUTOLOG", "1"), ("MIXTURE", str(tmp_path / "mixture.yaml")), ("TRACKER", f"jsonl:{tmp_path / 'runs'}"),
        ("DOMAINS", ",".join(DOMAINS)), ("SWEEP", "pilot-3"),
    ):  # fmt: skip
        monkeypatch.setenv(f"BIMIX_{name}", value)
    trainer = Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, val_check_interval=3,
    )  # fmt: skip
    trainer.fit(Module(), loader(examples(100, 1), BATCH), loader(examples(23, 2), 7))

    obs = Observations.from_source(f"jsonl:{tmp_path / 'runs'}")
    assert obs.losses["step"].unique().tolist() == [3, 6]
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "manifest.json").read_text(encoding="utf-8"))["sweep"] == "pilot-3"


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("", False), ("0", False), ("No", False)])
def test_the_switch_is_off_where_it_says_so(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv("BIMIX_AUTOLOG", value)
    monkeypatch.setenv("BIMIX_DOMAINS", ",".join(DOMAINS))
    monkeypatch.delenv("BIMIX_MIXTURE", raising=False)
    assert [type(callback) for callback in lightning_callbacks()] == ([DomainLossCallback] if on else [])


def test_switched_on_without_domains_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIMIX_AUTOLOG", "1")
    monkeypatch.delenv("BIMIX_MIXTURE", raising=False)
    with pytest.raises(RecorderError, match="set BIMIX_MIXTURE to a mixture file, or BIMIX_DOMAINS"):
        Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")


def test_the_mixture_may_be_json_as_a_plans_script_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BIMIX_DOMAINS", raising=False)
    monkeypatch.setenv("BIMIX_MIXTURE", '{"code": 0.25, "web": 0.75}')
    assert from_environment()["mixture"] == Mixture({"code": 0.25, "web": 0.75})
    monkeypatch.setenv("BIMIX_MIXTURE", json.dumps({"😀": 0.25, "no": 0.75}))
    assert from_environment()["mixture"] == Mixture({"😀": 0.25, "no": 0.75})
    for bad in ("{", '{"code": 0.5}', '{"code": "x", "web": 1}', '{"code": 1, "code": 1}', "{no: 1}", '{"a":' * 9999):
        monkeypatch.setenv("BIMIX_MIXTURE", bad)
        with pytest.raises(MixtureError):
            from_environment()


def test_it_works_under_lightning_s_other_name(tmp_path: Path) -> None:
    class Other(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Module("token_losses")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.inner.training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return self.inner.configure_optimizers()

    rows = Rows()
    trainer = pytorch_lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, log_every_n_steps=2,
        callbacks=[DomainLossCallback(DOMAINS, MIXTURE, rows)],  # type: ignore[list-item]  # of the other name
    )  # fmt: skip
    trainer.fit(Other(), loader(examples(100, 1), BATCH))

    expected = Rows()
    plain_loop(expected)
    assert rows[0] == pytest.approx(expected[0], rel=2e-5)


def test_beside_lightning_s_loggers_there_is_no_second_run_of_theirs(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logger = MLFlowLogger("shared", tracking_uri=uri)
    watcher = DomainLossCallback(DOMAINS, MIXTURE, f"mlflow+{uri}#shared")
    loggers = [logger, CSVLogger(tmp_path)]
    trainer = Trainer(**quiet(tmp_path, callbacks=[watcher], logger=loggers, log_every_n_steps=2, val_check_interval=3))
    module, validation = Module(), loader(examples(23, 2), 7)
    trainer.validate(module, validation, verbose=False)
    trainer.fit(module, loader(examples(100, 1), BATCH), validation)

    client = MlflowClient(uri)
    (run,) = client.search_runs([str(logger.experiment_id)])
    assert run.info.run_id == logger.run_id
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "bimix_eval_loss/web")
    assert [metric.step for metric in history] == [0, 3, 6]
    assert len(Observations.from_source(f"mlflow+{uri}#shared").mixtures) == 1


def test_a_run_of_another_store_than_the_tracker_s_is_not_its_run(tmp_path: Path) -> None:
    tracker = MlflowTracker(f"mlflow+sqlite:///{tmp_path}/ours.db#shared")
    tracker.adopt("theirs", f"sqlite:///{tmp_path}/theirs.db")
    assert tracker._adopted is None
    tracker.adopt("theirs", f"sqlite:///{tmp_path}/ours.db")
    assert tracker._adopted == "theirs"


def _batches_without(entry: str) -> Iterator[Any]:
    for batch in loader(examples(100, 1), BATCH):
        yield {name: values for name, values in batch.items() if name != entry}


@pytest.mark.parametrize(
    ("entry", "shows", "said"),
    [
        ("domain_ids", "hooks", r"labels, and no 'domain_ids'.*DomainCollator"),
        ("domain_ids", "token_losses", r"labels, and no 'domain_ids'.*DomainCollator"),
    ],
)
def test_a_batch_without_domains_is_told_with_what_helps(tmp_path: Path, entry: str, shows: str, said: str) -> None:
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[DomainLossCallback(DOMAINS, MIXTURE, None)],
    )  # fmt: skip
    with pytest.raises(RecorderError, match=said):
        trainer.fit(Module(shows), DataLoader(list(_batches_without(entry)), batch_size=None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (torch.tensor([0, 9, 1, 0]), r"domain id 9 is outside 0\.\.2 .*after step 0, up to step 2"),
        (torch.tensor([0.0, 1.0, 1.0, 0.0]), "must be integers, got torch.float32"),
        (torch.tensor([0, 1]), r"must be \(batch,\) or \(batch, time\)"),
    ],
)
def test_ids_that_are_none_are_named(tmp_path: Path, ids: Tensor, said: str) -> None:
    bad = copy.deepcopy(next(iter(loader(examples(100, 1), BATCH)))) | {"domain_ids": ids}
    trainer = Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[DomainLossCallback(DOMAINS, MIXTURE, None)],
        log_every_n_steps=2,
    )  # fmt: skip
    with pytest.raises(RecorderError, match=said):
        trainer.fit(Module("token_losses"), DataLoader([bad, bad], batch_size=None))  # type: ignore[arg-type]
