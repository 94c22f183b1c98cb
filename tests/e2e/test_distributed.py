"""Several real processes against one: torchrun, gloo, the same data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bimix_integrations.trainers.torch import DomainLossMeter

from bimix_tracking import DomainLossRecorder
from tests.e2e.scripts import hf, launch, light, plain, sharded
from tests.e2e.scripts.toy import DOMAINS, VOCABULARY, examples, stack

Rows = list[dict[str, float]]


def logged(folder: Path) -> Rows:
    """Return the rows of the only run in a folder."""
    (run,) = folder.iterdir()
    assert (run / "FINISHED").exists()
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def returned(folder: Path, rank: int) -> Rows:
    rows: Rows = json.loads((folder / "returned" / f"{rank}.json").read_text())
    return rows


def assert_equal(rows: Rows, expected: Rows, *, rel: float) -> None:
    """Assert that rows have the same keys and values: losses within `rel`, whatever is counted exactly."""
    assert [sorted(row) for row in rows] == [sorted(row) for row in expected]
    for row, one in zip(rows, expected, strict=True):
        for name, value in row.items():
            assert value == (pytest.approx(one[name], rel=rel) if "_loss/" in name else one[name]), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what one process leaves."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("train", "windows", "grouped"):
        plain.SCENARIOS[name]({"folder": str(folder / name)})
    return folder


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return what several processes leave, and how many they were."""
    folder = tmp_path_factory.mktemp(f"together{request.param}")
    scenarios = ["train", "windows", *(["grouped"] if request.param == 4 else [])]
    done = launch.run("plain.py", {"folder": str(folder), "scenarios": scenarios}, processes=request.param)
    assert done.returncode == 0, done.stderr
    return folder, request.param


@pytest.mark.parametrize("scenario", ["train", "windows"])
def test_several_processes_log_what_one_does_and_one_of_them_writes(
    scenario: str, alone: Path, together: tuple[Path, int]
) -> None:
    folder, processes = together

    expected = logged(alone / scenario / "rank0")
    assert_equal(logged(folder / scenario / "rank0"), expected, rel=1e-9)
    assert {path.name for path in (folder / scenario).glob("rank*")} == {"rank0"}
    for rank in range(1, processes):
        assert returned(folder / scenario, rank) == returned(folder / scenario, 0)


def test_targets_are_those_of_the_first_process(together: tuple[Path, int]) -> None:
    rows = logged(together[0] / "windows" / "rank0")

    assert [row["bimix_target/task"] for row in rows if "bimix_target/task" in row] == pytest.approx([0, 0.1, 0.2, 0.3])


def test_the_data_are_as_awkward_as_they_should_be(alone: Path) -> None:
    sizes = [len(batch) for batch in plain.global_batches()]
    assert {size % 2 for size in sizes} == {0, 1}
    assert min(sizes) == 1  # of two processes, one has no example
    assert plain.EVALUATED % 2 == 1
    first, *_ = logged(alone / "train" / "rank0")
    assert "bimix_train_loss/never" not in first
    assert first["bimix_tokens/never"] == 0


def test_a_record_takes_one_all_reduce(together: tuple[Path, int]) -> None:
    folder, _ = together

    rows = returned(folder / "train", 0)

    assert len(rows) == plain.STEPS // plain.LOG + plain.STEPS // plain.EVALUATE
    assert {row["reduced"] for row in rows} == {1}


def test_no_example_counts_twice_where_the_sampler_fills_up(together: tuple[Path, int]) -> None:
    folder, _ = together

    whole = stack(examples(plain.EVALUATED, 2))
    row = next(row for row in logged(folder / "train" / "rank0") if "bimix_eval_tokens/web" in row)

    for id_, name in enumerate(["code", "web", "c_372946aa"]):
        assert row[f"bimix_eval_tokens/{name}"] == (whole["labels"][whole["domain_ids"] == id_, 1:] != -100).sum()


def test_processes_with_the_same_batches_count_once_in_the_data_parallel_group(
    alone: Path, together: tuple[Path, int]
) -> None:
    folder, processes = together
    if processes == 4:
        assert_equal(logged(folder / "grouped" / "rank0"), logged(alone / "grouped" / "rank0"), rel=1e-9)
        assert {path.name for path in (folder / "grouped").glob("rank*")} == {"rank0"}


def test_an_id_outside_the_list_on_one_process_ends_all_and_all_name_it(tmp_path: Path) -> None:
    done = launch.run("plain.py", {"folder": str(tmp_path), "scenarios": ["wrong_id"]}, processes=2, started=True)

    assert done.returncode != 0
    said = [json.loads((tmp_path / "wrong_id" / "errors" / f"{rank}.json").read_text()) for rank in range(2)]
    assert (
        said
        == ["domain id 9 is outside 0..3 (0 'code', 1 'web', 2 'c++', 3 'never') (after step 2, up to step 4, rank 1)"]
        * 2
    )


def test_a_record_before_the_first_batch_doesn_t_bind_the_sums_to_a_device() -> None:
    meter = DomainLossMeter(DomainLossRecorder(DOMAINS))
    meter.state_dict()  # before the first batch, no process knows its device
    logits = torch.zeros(2, 3, VOCABULARY, device="meta")

    meter.update(logits, torch.ones(2, 3, dtype=torch.int64, device="meta"), torch.zeros(2, dtype=torch.int64))

    assert meter._held is not None
    assert meter._held[0].device.type == "meta"


def in_two(script: str, options: dict[str, Any], folder: Path) -> Path:
    """Run a script in two processes and return the folder it filled."""
    done = launch.run(script, options | {"folder": str(folder)}, processes=2)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr)
    return folder


_ACCUMULATED = {"gradient_accumulation_steps": 3}
_EACH_READS_ALL = {"accelerator_config": {"dispatch_batches": False}}
_SPLIT = {
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 6,
    "accelerator_config": {"split_batches": True},
}
_TRAINER: dict[str, dict[str, Any]] = {
    "map": {},
    "accumulated": {"arguments": _ACCUMULATED},
    "by domain": {"sets": True},
    "split": {"arguments": _SPLIT},
    "dropped": {"arguments": {"dataloader_drop_last": True}},
    "dispatched": {"stream": "unsized"},
    "each reads all": {"stream": "sized", "arguments": _EACH_READS_ALL},
}


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return what Hugging Face's Trainer leaves in two processes, and in one."""
    # Last, since nobody can count right there: examples of a stream of unknown length, read by each process.
    scenarios = _TRAINER | {"lost": {"stream": "unsized", "arguments": _EACH_READS_ALL}}
    one = tmp_path_factory.mktemp("trainer1")
    for name, options in scenarios.items():
        hf.train({"folder": str(one / name)} | options)
    return in_two("hf.py", {"scenarios": scenarios}, tmp_path_factory.mktemp("trainer2")), one


@pytest.mark.parametrize("scenario", _TRAINER)
def test_the_trainer_in_two_processes_logs_what_it_does_in_one(scenario: str, trainers: tuple[Path, Path]) -> None:
    two, one = trainers

    assert_equal(logged(two / scenario / "rank0"), logged(one / scenario / "rank0"), rel=1e-5)
    assert {path.name for path in (two / scenario).glob("rank*")} == {"rank0"}


def test_a_stream_that_is_filled_up_by_nobody_knows_how_much_is_told(trainers: tuple[Path, Path]) -> None:
    two, _ = trainers

    assert "examples of a stream of unknown length may count twice" in (two / "said.txt").read_text()


@pytest.fixture(scope="module")
def sharded_(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return what sharded models and Accelerate's loaders leave in two processes, and in one."""
    one = tmp_path_factory.mktemp("sharded1")
    for name, scenario in sharded.SCENARIOS.items():
        scenario(one / name)
    return in_two("sharded.py", {}, tmp_path_factory.mktemp("sharded2")), one


# Hugging Face's Trainer takes no FSDP on a CPU: accelerate 1.15 says "There are currently no available devices found,
# must be one of 'XPU', 'CUDA', …" to version 1, and silently runs DDP for version 2. So FSDP is tested as torch has it.
@pytest.mark.parametrize("scenario", sharded.SCENARIOS)
def test_sharded_models_and_data_log_what_one_process_does(scenario: str, sharded_: tuple[Path, Path]) -> None:
    two, one = sharded_

    assert_equal(logged(two / scenario / "rank0"), logged(one / scenario / "rank0"), rel=1e-5)
    assert {path.name for path in (two / scenario).glob("rank*")} == {"rank0"}


@pytest.fixture(scope="module")
def lightnings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return what Lightning leaves in two processes, and in one."""
    one = tmp_path_factory.mktemp("lightning1")
    for name, options in _LIGHTNING.items():
        light.train({"folder": str(one / name)} | options)
    return in_two("light.py", {"scenarios": _LIGHTNING}, tmp_path_factory.mktemp("lightning2")), one


_LIGHTNING: dict[str, dict[str, Any]] = {"one set": {}, "two sets": {"sets": "list"}, "named sets": {"sets": "dict"}}


@pytest.mark.parametrize("scenario", _LIGHTNING)
def test_lightning_in_two_processes_logs_what_it_does_in_one(scenario: str, lightnings: tuple[Path, Path]) -> None:
    two, one = lightnings

    assert_equal(logged(two / scenario / "rank0"), logged(one / scenario / "rank0"), rel=1e-9)
    assert {path.name for path in (two / scenario).glob("rank*")} == {"rank0"}
