"""The 27 traps that trainers and trackers have in store, each with the test that shows we don't step into it.

Most tests stand where their subject lives; `TESTED` says where. Here stand those that have no other home, and those
that pin down what a tracker does, so that we hear of it when it changes.
"""

# ruff: noqa: E501  # a table of names

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import math
from pathlib import Path

import pytest
import wandb
from bimix_integrations.trackers.mlflow import MlflowTracker
from lightning.pytorch.loggers import MLFlowLogger
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_tracking import Observations, open_tracker
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.tracking.ports import Row

TESTS = Path(__file__).parents[1]
MIXTURE = {"code": 0.5, "web": 0.5}
TESTED = {
    "1 HF's eval_loss depends on the batch size": "adapters/trainers/test_transformers.py::test_the_evaluation_loss_depends_on_no_batch_size",
    "2 the domain column is removed silently": "adapters/trainers/test_transformers.py::test_a_dropped_column_is_told_with_what_keeps_it",
    "3 trackers end the run before our callback": "adapters/trainers/test_transformers.py::test_beside_the_trainer_s_own_mlflow_callback_there_is_one_run",
    "4 what a callback adds to logs is lost": "adapters/trainers/test_transformers.py::test_beside_the_trainer_s_own_mlflow_callback_there_is_one_run",
    "5 on_evaluate comes once a dataset": "adapters/trainers/test_transformers.py::test_a_dict_of_evaluation_sets_is_one_row",
    "6 ids must be tensors of integers": "adapters/trainers/test_torch.py::test_ids_of_a_wrong_kind_are_refused",
    "7 labels are shifted, or already are": "adapters/trainers/test_torch.py::test_shifted_labels_are_taken_as_they_are",
    "8 an absent domain is no zero": "adapters/trainers/test_torch.py::test_a_domain_that_is_absent_says_nothing",
    "9 collectives on all ranks": "e2e/test_distributed.py::*",
    "10 a wait for the device per document": "adapters/trainers/test_torch.py::test_between_records_nothing_waits_for_the_device",
    "11 fused heads have no logits": "adapters/trainers/test_torch.py::test_a_sum_alone_counts_for_one_domain_and_in_a_mixed_batch_only_its_tokens_do",
    "12 counters after a resume": "e2e/test_resume.py::*",
    "13 slugs collide": "core/data/test_metric_names.py::test_keys_are_read_back_as_they_were_written",
    "14 infinity becomes 1.797e308": "adapters/test_traps.py::test_infinite_and_missing_losses_in_a_store_are_set_aside",
    "15 bulk endpoints truncate": "adapters/mlflow/test_source.py::test_what_the_bulk_endpoint_cuts_off_is_read_all_the_same",
    "16 W&B's runs are lazy": "adapters/test_traps.py::test_wandb_reads_runs_one_request_each_unless_told",
    "17 a W&B row needs all keys": "adapters/wandb/test_wandb.py::test_a_run_comes_back_whole_whatever_its_domains_and_values",
    "18 step= in W&B drops rows": "adapters/wandb/test_host.py::test_beside_a_host_that_logs_by_step_ours_is_a_run_of_its_own",
    "19 MLflow has no file store any more": "adapters/test_traps.py::test_the_file_store_is_refused_and_ours_is_a_database",
    "20 log_table appends": "adapters/test_traps.py::test_an_artifact_written_twice_is_there_once",
    "21 asynchronous failures are silent": "core/recording/test_delivery.py::test_a_tracker_that_fails_neither_stops_training_nor_loses_a_row",
    "22 repeated values are dropped": "adapters/test_traps.py::test_a_value_that_repeats_is_a_point_all_the_same",
    "23 W&B refuses use_artifact offline": "adapters/wandb/test_source.py::test_offline_nothing_is_written_back",
    "24 W&B's reader of its own files is gone": "adapters/wandb/test_offline.py::test_the_same_as_wandb_itself_reads",
    "25 entropy of data is not that of predictions": "adapters/trainers/test_torch.py::test_entropies_of_the_stream_are_those_of_its_tokens",
    "26 documents are not tokens": "core/recording/test_drift.py::test_proportions_of_documents_instead_of_tokens_are_told",
    "27 mlflow 3.18.0 doesn't resolve": "adapters/test_traps.py::test_the_parts_of_mlflow_are_of_one_version",
}  # fmt: skip


def test_every_trap_has_its_test() -> None:
    assert [int(name.split()[0]) for name in TESTED] == list(range(1, 28))
    for place in TESTED.values():
        file, _, test = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
        assert names if test == "*" else test in names, place


def tracker(folder: Path, name: str = "run") -> MlflowTracker:
    opened = open_tracker(f"mlflow+sqlite:///{folder}/mlflow.db#traps", run_name=name)
    assert isinstance(opened, MlflowTracker)
    opened.start(RunManifest(("code", "web"), mixture=None).from_dict({"domains": ["code", "web"], "mixture": MIXTURE}))
    return opened


def row(step: int, code: float, web: float) -> Row:
    losses = {"bimix_eval_loss/code": code, "bimix_eval_loss/web": web}
    return Row(step, float(step), {"bimix/step": step, "bimix/tokens": 100.0 * step, **losses})


def test_infinite_and_missing_losses_in_a_store_are_set_aside(tmp_path: Path) -> None:
    run = tracker(tmp_path)
    for step, bad in ((1, math.inf), (2, math.nan), (3, -math.inf), (4, 1.5)):
        run.log([row(step, 2.0, bad)])
    run.finish()

    obs = Observations.from_source(f"mlflow+sqlite:///{tmp_path}/mlflow.db#traps")

    web = obs.losses[obs.losses["domain"] == "web"]
    assert web["loss"].tolist() == [1.5]
    assert len(obs.losses) == 5
    reasons = {note.reason: note.count for note in obs.notes if note.domain == "web"}
    assert reasons == {"loss is infinite": 2, "loss is NaN": 1}


def test_the_file_store_is_refused_and_ours_is_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(MlflowException, match="maintenance mode"):
        MlflowClient(f"file:{tmp_path}/mlruns").search_experiments()
    with pytest.raises(MlflowException, match="maintenance mode"):  # Lightning's default is still files
        _ = MLFlowLogger(save_dir=str(tmp_path)).run_id

    run = tracker(tmp_path)
    run.log([row(1, 2.0, 3.0)])
    run.finish()
    assert len(Observations.from_source(f"mlflow+sqlite:///{tmp_path}/mlflow.db#traps").losses) == 2


def test_an_artifact_written_twice_is_there_once(tmp_path: Path) -> None:
    run = tracker(tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        run.write_artifact("bimix/x.json", '{"a": 1}')
        client.log_table(run.run_id or "", {"a": [1]}, "bimix/table.json")

    folder = Path(client.download_artifacts(run.run_id or "", "bimix", str(tmp_path)))
    assert json.loads((folder / "x.json").read_text(encoding="utf-8")) == {"a": 1}
    assert json.loads((folder / "table.json").read_text(encoding="utf-8"))["data"] == [[1], [1]]  # why we use no tables


def test_a_value_that_repeats_is_a_point_all_the_same(tmp_path: Path) -> None:
    run = tracker(tmp_path)
    for step in range(1, 6):
        run.log([row(step, 2.0, 3.0)])
    run.finish()

    obs = Observations.from_source(f"mlflow+sqlite:///{tmp_path}/mlflow.db#traps")
    assert obs.losses[obs.losses["domain"] == "web"]["step"].tolist() == [1, 2, 3, 4, 5]


def test_the_parts_of_mlflow_are_of_one_version() -> None:
    assert len({importlib.metadata.version(part) for part in ("mlflow", "mlflow-skinny", "mlflow-tracing")}) == 1


def test_wandb_reads_runs_one_request_each_unless_told() -> None:
    assert inspect.signature(wandb.Api.runs).parameters["lazy"].default is True  # a source of ours has to say False
