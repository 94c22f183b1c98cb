"""The host's own logging is untouched: what it logs with ours is what it logs without ours, value by value.

Every host is run twice. Rows are compared as they lie in its tracker: W&B's with its own `_step`, MLflow's with steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import mlflow
import pytest
import wandb
from accelerate import Accelerator
from bimix_integrations.trackers.wandb import WandbTracker
from bimix_integrations.trackers.wandb.offline.run_file import read_file
from bimix_integrations.trainers.collate import DomainCollator
from bimix_integrations.trainers.lightning import DomainLossCallback
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from bimix_tracking import DomainLossRecorder, open_source, open_tracker
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.tracking.ports import Tracker
from tests.adapters.trainers.test_lightning import Module, loader, quiet
from tests.adapters.trainers.toys import BATCH, DOMAINS, Features, callback, collate, examples, run_trainer
from tests.adapters.wandb.wandb_server import look_again, serving

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*",
    "ignore:.*treespec.*",
    "ignore:.*number of training batches.*is smaller than the logging interval.*",
)
STEPS, EVERY = 20, 4
PAUSE = 0.03
"""Seconds that a batch of a short training takes at least: the sender's thread gets rows in between."""
MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2}
Log = Callable[[int], object]
Host = Callable[[Path, Tracker | None], None]
Values = dict[str, list[tuple[int, float]]]
_OF_TIME = ("_timestamp", "_runtime", "runtime", "per_second")


class Ours:
    """A recorder that writes every few steps, and is waited for: rows of ours lie between the host's."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.expected, self.sent = tracker, 0, 0
        self.recorder = DomainLossRecorder(DOMAINS, MIXTURE, tracker, eval_set="e")
        log = tracker.log

        def counted(rows: Any) -> None:
            log(rows)
            self.sent += len(rows)

        tracker.log = counted  # type: ignore[method-assign]
        self.recorder.start()

    def step(self, step: int) -> None:
        """Record a step."""
        self.recorder.add([0, 1, 2], [3.0, 4.0, 5.0], [1, 1, 1])
        if step % EVERY == 0:
            self.recorder.add([0, 1, 2], [3.0 + 1 / step] * 3, [1, 1, 1], split="eval")
            self.recorder.log_train(step)
            self.recorder.log_eval(step)
            self.expected += 2
            deadline = time.monotonic() + 20
            while self.sent < self.expected:
                assert time.monotonic() < deadline
                time.sleep(0.005)


class Logging(Module):
    """The toy, which logs something itself."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        time.sleep(PAUSE)
        out = super().training_step(batch, batch_idx)
        self.log("loss", float(batch_idx))
        return out

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        self.log("val", float(self.global_step))
        return super().validation_step(batch, batch_idx, dataloader_idx)


def loop(log: Log, ours: Ours | None) -> None:
    """Train without a trainer."""
    for step in range(1, STEPS + 1):
        log(step)
        if ours is not None:
            ours.step(step)
    if ours is not None:
        ours.recorder.finish()
    log(STEPS + 1)  # the host has its last word


def every_step(step: int) -> None:
    wandb.log({"loss": 1 / step}, step=step)


def no_step(step: int) -> None:
    wandb.log({"loss": 1 / step})


def epochs(step: int) -> None:
    if step % 5 == 0:
        wandb.log({"loss": 1 / step}, step=step // 5)


def every_seventh(step: int) -> None:
    wandb.log({"loss": 1 / step}, step=7 * step)


def twice_a_step(step: int) -> None:
    wandb.log({"loss": 1 / step}, step=step)
    wandb.log({"lr": step}, step=step)


def in_two_parts(step: int) -> None:
    wandb.log({"loss": 1 / step}, commit=False)
    wandb.log({"lr": step})


def from_zero_again(step: int) -> None:
    wandb.log({"loss": 1 / step}, step=step % 10)  # W&B itself drops half of these


def plain(log: Log) -> Host:
    def train(_: Path, tracker: Tracker | None) -> None:
        wandb.init(project="hosts", name="host")
        loop(log, None if tracker is None else Ours(tracker))

    return train


def accelerate(_: Path, tracker: Tracker | None) -> None:
    accelerator = Accelerator(log_with="wandb", cpu=True)
    accelerator.init_trackers("hosts", config={"lr": 1.0}, init_kwargs={"wandb": {"name": "host"}})
    loop(
        lambda step: accelerator.log({"loss": 1 / step}, step=step),
        None if tracker is None else Ours(tracker),
    )
    accelerator.end_training()


def shared(tracker: Tracker | None) -> Tracker | None:
    """Say what the trainers' callbacks find out themselves: the logger never logs by step."""
    if isinstance(tracker, WandbTracker):
        tracker.share()
    return tracker


def lightning(folder: Path, tracker: Tracker | None) -> None:
    fit(WandbLogger(project="hosts", name="host", save_dir=folder, offline=True), folder, tracker)


def fit(logger: Any, folder: Path, tracker: Tracker | None) -> None:
    ours = [] if tracker is None else [DomainLossCallback(DOMAINS, MIXTURE, shared(tracker))]
    trainer = pl.Trainer(**quiet(folder, callbacks=ours, logger=logger, log_every_n_steps=2, val_check_interval=3))
    trainer.fit(Logging(), loader(examples(100, 1), BATCH), loader(examples(23, 2), 7))


def transformers(folder: Path, tracker: Tracker | None, *, report_to: str = "wandb") -> None:
    ours = None if tracker is None else callback(shared(tracker))
    changes = {"report_to": [report_to], "run_name": "host"}
    run_trainer(folder / "out", ours, arguments=changes, data_collator=DomainCollator(slowly, DOMAINS))


def slowly(features: Features) -> dict[str, Any]:
    time.sleep(PAUSE)
    return collate(features)


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with serving(tmp_path_factory.mktemp("wandb"), WANDB_MODE="offline", WANDB_PROJECT="hosts"):
        yield


WANDB_HOSTS = {
    "plain, step=": (plain(every_step), 21),
    "plain, no step": (plain(no_step), 21),
    "plain, epochs": (plain(epochs), 4),
    "plain, every 7th": (plain(every_seventh), 21),
    "plain, two rows of a step": (plain(twice_a_step), 21),
    "plain, commit=False": (plain(in_two_parts), 21),
    "plain, steps from 0 again": (plain(from_zero_again), 9),
    "Accelerate": (accelerate, 21),
    "Lightning": (lightning, 5),
    "Trainer": (transformers, 6),
}


@pytest.mark.parametrize("name", WANDB_HOSTS)
def test_rows_of_a_wandb_host_are_the_same_with_ours(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, count = WANDB_HOSTS[name]
    found = []
    for tracker in (None, open_tracker("wandb:")):
        folder = tmp_path / ("with" if tracker else "without")
        monkeypatch.setenv("WANDB_DIR", str(folder))
        folder.mkdir()
        look_again()
        try:
            train(folder, tracker)
        finally:
            wandb.finish()
        found.append(host_rows(folder, None if tracker is None else str(tracker.run_id)))

    without, with_ours = found
    assert with_ours == [pytest.approx(row, rel=1e-5) for row in without]
    assert len(without) == count
    check_ours(open_source(f"wandb-offline:{tmp_path / 'with'}").records(), trainer=name in {"Lightning", "Trainer"})
    runs = {file.stem for file in (tmp_path / "with").rglob("run-*.wandb")}
    assert len(runs) == (1 if name in {"Lightning", "Trainer"} else 2)


def host_rows(folder: Path, ours: str | None) -> list[dict[str, float]]:
    """Return what the host has logged, of its one run: the one that isn't ours, or the one that is both's."""
    files = sorted(folder.rglob("run-*.wandb"), key=lambda file: file.stem == f"run-{ours}")
    deadline = time.monotonic() + 20
    while (read := read_file(files[0], lambda _: True)).exit_code is None:  # W&B's `finish` may return before it
        assert time.monotonic() < deadline
        time.sleep(0.02)
    mine = [{name: value for name, value in row.items() if is_hosts(name)} for row in read.rows]
    return [row for row in mine if row.keys() - {"_step"}]


def is_hosts(metric: str) -> bool:
    return not metric.startswith("bimix") and not metric.endswith(_OF_TIME)


def check_ours(records: Sequence[RunRecord], *, trainer: bool) -> None:
    """Check that ours is one run with all its rows and values."""
    (record,) = records
    losses = {
        row[metric_names.STEP]: row[f"{metric_names.EVAL_LOSS}/web"]
        for row in record.rows
        if f"{metric_names.EVAL_LOSS}/web" in row
    }
    if trainer:
        assert list(losses) == [3, 6]
        return
    assert losses == {step: 3.0 + 1 / step for step in range(EVERY, STEPS + 1, EVERY)}
    assert {row.get(f"{metric_names.TRAIN_LOSS}/web", 4.0) for row in record.rows} == {4.0}


def mlflow_plain(experiment: str, _: Path, tracker: Tracker | None) -> None:
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="host"):
        loop(
            lambda step: mlflow.log_metrics({"loss": 1 / step, "tokens": step}, step=7 * step),
            None if tracker is None else Ours(tracker),
        )


def mlflow_transformers(_: str, folder: Path, tracker: Tracker | None) -> None:
    transformers(folder, tracker, report_to="mlflow")


def mlflow_lightning(experiment: str, folder: Path, tracker: Tracker | None) -> None:
    fit(MLFlowLogger(experiment, run_name="host", tracking_uri=mlflow.get_tracking_uri()), folder, tracker)


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store that all tests share: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.mark.parametrize("train", [mlflow_plain, mlflow_transformers, mlflow_lightning])
def test_histories_of_an_mlflow_host_are_the_same_with_ours(
    train: Callable[[str, Path, Tracker | None], None], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(store)
    source = f"mlflow+{store}#{train.__name__}-with"
    found = []
    for experiment, tracker in ((f"{train.__name__}-without", None), (f"{train.__name__}-with", open_tracker(source))):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        try:
            train(experiment, tmp_path / experiment, tracker)
        finally:
            mlflow.end_run()
        found.append(histories(MlflowClient(store), experiment))

    without, with_ours = found
    assert {metric: approximately(points) for metric, points in without.items()} == with_ours
    assert sum(map(len, without.values())) >= 5
    check_ours(open_source(source).records(), trainer=train is not mlflow_plain)


def approximately(points: list[tuple[int, float]]) -> Any:
    """Return points to be equalled but for what a training's own arithmetic varies from one to the next."""
    return [(step, pytest.approx(value, rel=1e-5)) for step, value in points]


def histories(client: MlflowClient, experiment: str) -> Values:
    """Return the host's metrics, all points of each."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = [run for run in client.search_runs([found.experiment_id]) if run.info.run_name == "host"]

    def points(metric: str) -> list[tuple[int, float]]:
        history: list[Metric] = client.get_metric_history(run.info.run_id, metric)
        return [(point.step, point.value) for point in history]

    return {metric: points(metric) for metric in run.data.metrics if is_hosts(metric)}
