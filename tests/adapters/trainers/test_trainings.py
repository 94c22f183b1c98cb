"""One callback, one training, one run: what begins anew, what goes on, what has failed, and which evaluations count."""

from __future__ import annotations

import contextlib
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bimix_integrations.trainers import leaving
from bimix_integrations.trainers.lightning import DomainLossCallback as OfLightning
from bimix_integrations.trainers.session import Session
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, WandbLogger
from transformers import TrainerCallback

from tests.adapters.trainers.test_lightning import Module, loader, quiet
from tests.adapters.trainers.toys import (
    BATCH,
    DOMAINS,
    STEPS,
    Rows,
    by_step,
    callback,
    examples,
    make_trainer,
    model,
    run_trainer,
)

MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*`isinstance.treespec, LeafSpec.*",
    "ignore:.*treespec.*:DeprecationWarning",
    "ignore:Checkpoint directory .* exists and is not empty",
)


def steps_of(rows: Rows, quantity: str = "bimix_eval_loss/web") -> list[float]:
    return [row["bimix/step"] for row in rows if quantity in row]


# --- The Trainer of transformers: several trainings ------------------------------------------------------------------


def test_each_training_of_a_trainer_is_a_run_from_zero(tmp_path: Path) -> None:
    rows, usual = Rows(), Rows()
    run_trainer(tmp_path, callback(usual))
    watcher = callback(rows, run_name="p3")
    trainer = make_trainer(tmp_path, watcher, model_init=model)
    for _ in range(3):
        trainer.train()

    assert rows == usual
    assert rows.later == [usual, usual]
    assert [each.finished for each in (rows, *rows.later)] == [True] * 3
    assert len({each.run_name for each in (rows, *rows.later)}) == 3
    assert rows.run_name == "p3"
    assert len(watcher.recorder.curves()["rows"]) == 2


def test_trials_of_a_search_are_runs_by_their_names(tmp_path: Path) -> None:
    rows, usual = Rows(), Rows()
    run_trainer(tmp_path, callback(usual), arguments={"max_steps": 3, "learning_rate": 0.0})
    trainer = make_trainer(tmp_path, callback(rows), model_init=lambda *_: model(), arguments={"max_steps": 3})
    trainer.hyperparameter_search(
        backend="optuna", n_trials=2, direction="minimize", hp_name=lambda trial: f"trial-{trial.number}",
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 0.0, 0.0)},
    )  # fmt: skip

    assert [rows, *rows.later] == [usual, usual]
    assert [rows.run_name, *(each.run_name for each in rows.later)] == ["trial-0", "trial-1"]


def test_a_try_that_ran_out_of_memory_leaves_nothing_in_the_counts(tmp_path: Path) -> None:
    class Small(TrainerCallback):
        """Has no room for a second batch of more than two examples."""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if trainer._train_batch_size > 2 and state.global_step == 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    rows, usual = Rows(), Rows()
    changes = {"auto_find_batch_size": True, "logging_steps": 2, "eval_steps": 3}
    trainer = make_trainer(tmp_path, callback(rows), arguments=changes, callbacks=[Small()])
    trainer.train()
    made = trainer._train_batch_size
    run_trainer(tmp_path, callback(usual), arguments={"per_device_train_batch_size": made})

    assert made < BATCH
    assert rows.finished is False
    assert rows.later[-1].finished is True
    tokens = {step: row["bimix/tokens"] for step, row in by_step(usual).items()}
    assert {step: row["bimix/tokens"] for step, row in by_step(rows.later[-1]).items()} == tokens


@pytest.mark.filterwarnings("ignore:the learning-rate schedule was made for")
def test_a_training_that_resumes_goes_on_with_the_checkpoint_s_run(tmp_path: Path) -> None:
    whole, uri = Rows(), f"jsonl:{tmp_path / 'runs'}"
    run_trainer(tmp_path / "whole", callback(whole))
    watcher = callback()
    watcher = type(watcher)(DOMAINS, MIXTURE, tracker=uri)
    changes = {"save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    trainer = make_trainer(tmp_path / "cut", watcher, arguments=changes)
    trainer.train()
    trainer.args.max_steps = STEPS
    trainer.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))

    (run,) = [each for each in (tmp_path / "runs").iterdir() if (each / "rows.jsonl").exists()]
    found = Rows(json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines())
    assert {step: row["bimix/tokens"] for step, row in by_step(found).items()} == {
        step: row["bimix/tokens"] for step, row in by_step(whole).items()
    }


# --- The Trainer of transformers: failures ---------------------------------------------------------------------------


class Boom(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise RuntimeError("node lost")


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    assert what()


def test_an_exception_that_somebody_catches_has_failed_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EVERY", 0.02)
    rows = Rows()
    trainer = make_trainer(tmp_path, callback(rows), callbacks=[Boom()])
    with pytest.raises(RuntimeError, match="node lost") as kept:  # with all frames, as in a notebook
        trainer.train()
    wait_for(lambda: rows.finished is False)

    assert kept.traceback
    trainer.remove_callback(Boom)
    trainer.train()
    assert rows.finished is False
    assert rows.later[-1].finished is True


def test_a_training_begun_again_at_once_has_failed_the_one_before(tmp_path: Path) -> None:
    rows = Rows()
    trainer = make_trainer(tmp_path, callback(rows), callbacks=[Boom()])
    with pytest.raises(RuntimeError, match="node lost"):
        trainer.train()
    trainer.remove_callback(Boom)
    trainer.train()

    assert rows.finished is False
    assert rows.later[-1].finished is True


def test_nothing_looks_at_a_training_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EVERY", 0.02)
    rows, before = Rows(), set(threading.enumerate())
    run_trainer(tmp_path, callback(rows))
    wait_for(lambda: set(threading.enumerate()) <= before)

    assert rows.finished is True


def test_a_training_inside_another_one_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EVERY", 0.02)
    failed: list[str] = []

    class Run(SimpleNamespace):
        def fail(self) -> None:
            failed.append(self.name)

    outer, inner = Run(name="outer"), Run(name="inner")

    def train(runs: list[Run]) -> None:
        ended = leaving.when_left(__name__, "train", runs[0].fail)
        assert ended is not None
        if len(runs) > 1:
            with pytest.raises(RuntimeError):
                train(runs[1:])
            wait_for(lambda: bool(failed))
            ended.set()
            return
        raise RuntimeError

    train([outer, inner])
    time.sleep(0.1)
    assert failed == ["inner"]
    assert leaving.when_left(__name__, "train", outer.fail) is None


def test_a_trainer_that_is_gone_has_failed_and_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_EVERY", 0.02)
    rows, kept = Rows(), []

    def train() -> None:
        trainer = make_trainer(tmp_path, callback(rows), callbacks=[Boom()])
        kept.append(weakref.ref(trainer.model))
        trainer.train()

    with contextlib.suppress(RuntimeError):
        train()
    gc.collect()
    assert kept[0]() is None
    wait_for(lambda: rows.finished is False)


# --- The Trainer of transformers: evaluations ------------------------------------------------------------------------


def test_a_test_set_after_training_stays_out_of_the_curve_and_is_told(tmp_path: Path) -> None:
    rows = Rows()
    watcher = callback(rows)
    trainer = run_trainer(tmp_path, watcher)
    curves = watcher.recorder.curves()
    test: Any = examples(9, 5)
    with pytest.warns(UserWarning, match="'test' is not an evaluation of the held-out set"):
        trainer.evaluate(test, metric_key_prefix="test")
    trainer.evaluate(test, metric_key_prefix="test")  # told once: a second warning would be an error here

    assert watcher.recorder.curves() == curves
    assert steps_of(rows) == [3, 6]
    trainer.evaluate()
    assert watcher.recorder.curves() == curves


def test_an_evaluation_of_the_best_weights_is_none_of_the_last_step(tmp_path: Path) -> None:
    rows = Rows()
    watcher = callback(rows)
    changes = {
        "load_best_model_at_end": True, "save_strategy": "steps", "save_steps": 3, "metric_for_best_model": "loss",
        "learning_rate": 5.0,
    }  # fmt: skip
    trainer = run_trainer(tmp_path, watcher, arguments=changes)
    assert trainer.state.best_global_step == 3
    curves = watcher.recorder.curves()
    with pytest.warns(UserWarning, match="load_best_model_at_end has loaded the weights of step 3"):
        trainer.evaluate()

    assert watcher.recorder.curves() == curves


def test_a_process_that_only_evaluates_is_no_run(tmp_path: Path) -> None:
    rows = Rows()
    watcher = callback(rows)
    trainer = make_trainer(tmp_path, watcher)
    for _ in range(2):
        trainer.evaluate()
    assert rows == []
    assert not hasattr(rows, "manifest")

    trainer.train()
    assert steps_of(rows) == [0, 3, 6]
    assert rows[0]["bimix_eval_tokens/web"] == by_step(rows)[6]["bimix_eval_tokens/web"]


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"), [(None, "theirs", "theirs"), ("ours", "theirs", "ours"), (None, None, None)]
)
def test_a_run_is_called_as_the_trainer_s(
    tmp_path: Path, ours: str | None, theirs: str | None, expected: str | None
) -> None:
    rows = Rows()
    run_trainer(tmp_path, callback(rows, run_name=ours), arguments={"run_name": theirs, "max_steps": 1})

    assert rows.run_name == expected


LOGGERS: dict[str, tuple[Callable[[Path], Any], str | None]] = {
    "mlflow": (lambda folder: MLFlowLogger("e", run_name="p3", tracking_uri=f"sqlite:///{folder}/m.db"), "p3"),
    "wandb": (lambda folder: WandbLogger("p3", save_dir=folder, offline=True), "p3"),
    "folder": (lambda folder: CSVLogger(folder, "sweep", "p3"), "p3"),
    "folder of runs": (CSVLogger, None),
}


@pytest.mark.parametrize(("make", "expected"), LOGGERS.values(), ids=LOGGERS)
def test_a_run_is_called_as_a_logger_of_lightning_s_calls_it(
    tmp_path: Path, make: Callable[[Path], Any], expected: str | None
) -> None:
    rows, shared = Rows(), []
    rows.share = lambda: shared.append(True)  # type: ignore[attr-defined]  # as the tracker of Weights & Biases has it
    watcher = OfLightning(DOMAINS, MIXTURE, rows)
    logger = make(tmp_path)
    trainer: Any = SimpleNamespace(global_step=0, loggers=[logger], estimated_stepping_batches=STEPS)
    watcher.on_train_start(trainer, Module())

    assert rows.run_name == expected
    assert bool(shared) == isinstance(logger, WandbLogger)


def test_a_logger_of_weights_and_biases_may_be_shared_with(tmp_path: Path) -> None:
    rows, shared = Rows(), []
    rows.share = lambda: shared.append(True)  # type: ignore[attr-defined]  # as above
    watcher = callback(rows)
    trainer = make_trainer(tmp_path, watcher, arguments={"max_steps": 1})
    trainer.args.report_to = ["wandb"]
    trainer.train()

    assert shared == [True]


# --- Lightning -------------------------------------------------------------------------------------------------------


def trainer_of(folder: Path, watcher: OfLightning, **options: Any) -> Trainer:
    return Trainer(**quiet(folder, callbacks=[watcher], log_every_n_steps=2, val_check_interval=3) | options)


def fit(trainer: Trainer, module: Module, **options: Any) -> None:
    trainer.fit(module, loader(examples(100, 1), BATCH), loader(examples(23, 2), 7), **options)


def test_a_second_fit_from_zero_is_a_run_of_its_own(tmp_path: Path) -> None:
    rows = Rows()
    watcher = OfLightning(DOMAINS, MIXTURE, rows)
    for _ in range(2):
        fit(trainer_of(tmp_path, watcher), Module())

    assert rows.later == [list(rows)]
    assert rows.later[0].finished is True


@pytest.mark.filterwarnings("ignore:the learning-rate schedule was made for")
def test_a_fit_that_goes_on_where_the_last_one_ended_is_the_same_run(tmp_path: Path) -> None:
    rows = Rows()
    trainer, module = trainer_of(tmp_path, OfLightning(DOMAINS, MIXTURE, rows), max_steps=4), Module()
    fit(trainer, module)
    trainer.fit_loop.epoch_loop.max_steps = STEPS
    fit(trainer, module)

    assert not rows.later
    features = [*examples(100, 1)[: 4 * BATCH], *examples(100, 1)[: 2 * BATCH]]
    assert rows[-1]["bimix/tokens"] == sum(label != -100 for each in features for label in each["labels"][1:])
    assert steps_of(rows, "bimix_train_loss/web") == [2, 4, 6]


@pytest.mark.parametrize("error", [RuntimeError("node lost"), KeyboardInterrupt()])
def test_an_exception_in_lightning_has_failed_the_run(tmp_path: Path, error: BaseException) -> None:
    class Dies(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 3:
                raise error
            return super().training_step(batch, batch_idx)

    rows = Rows()
    watcher = OfLightning(DOMAINS, MIXTURE, rows)
    with pytest.raises((RuntimeError, SystemExit)):
        fit(trainer_of(tmp_path, watcher), Dies())
    assert rows.finished is False

    fit(trainer_of(tmp_path, watcher), Module())
    assert rows.later[0].finished is True
    assert rows.later[0][-1]["bimix/tokens"] > rows[-1]["bimix/tokens"]


def test_a_failure_after_training_is_none_of_the_run_s(tmp_path: Path) -> None:
    class Dies(Module):
        def test_step(self, *args: Any) -> Any:
            raise RuntimeError("no room")

    rows, module = Rows(), Dies()
    trainer = trainer_of(tmp_path, OfLightning(DOMAINS, MIXTURE, rows))
    fit(trainer, module)
    with pytest.raises(RuntimeError, match="no room"):
        trainer.test(module, loader(examples(9, 5), 4), verbose=False)

    assert rows.finished is True


def test_a_validation_of_a_checkpoint_after_training_stays_out_of_the_curve(tmp_path: Path) -> None:
    rows = Rows()
    watcher, module = OfLightning(DOMAINS, MIXTURE, rows), Module()
    saving = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    trainer = trainer_of(tmp_path, watcher, callbacks=[watcher, saving], enable_checkpointing=True)
    fit(trainer, module)
    curves, validation = watcher.recorder.curves(), loader(examples(23, 2), 7)
    with pytest.warns(UserWarning, match=r"a validation of .*step=2.ckpt is not of the weights at step"):
        trainer.validate(module, validation, ckpt_path=tmp_path / "saved" / "step=2.ckpt", verbose=False)
    assert watcher.recorder.curves() == curves
    trainer.validate(module, validation, verbose=False)
    assert watcher.recorder.curves() == curves


# --- Any of them -----------------------------------------------------------------------------------------------------


def test_what_fails_after_its_end_has_not_failed() -> None:
    rows = Rows()
    session = Session(DOMAINS, MIXTURE, rows)
    session.fail()
    assert rows.finished is None
    session.begin(None)
    session.finish(0)
    session.fail()
    assert rows.finished is True


def test_a_second_training_forgets_what_the_first_one_left() -> None:
    rows = Rows()
    session = Session(DOMAINS, MIXTURE, rows, entropy_every=1)
    for _ in range(2):
        session.begin(None)
        losses, targets = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)
        session.meter.add(losses, targets, torch.zeros(2, dtype=torch.int64))
    session.finish(1)

    assert rows == []
    assert rows.finished is False
    assert rows.later[0][-1]["bimix/tokens"] == 6
