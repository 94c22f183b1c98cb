"""A training killed with -9 and resumed from its checkpoint, against one that nobody interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from bimix_tracking import Observations
from tests.e2e.scripts import hf, launch, light, plain

Options = dict[str, Any]
_TRAIN: dict[str, Callable[[Options], None]] = {"plain": plain.train, "hf": hf.train, "light": light.train}
_SAVING: dict[str, Options] = {
    "plain": {},
    "hf": {"arguments": {"save_strategy": "steps", "save_steps": 4}},
    "light": {"saved": "validation"},
}
_CHECKPOINT = {"plain": "step{}.pt", "hf": "checkpoints/checkpoint-{}", "light": "checkpoints/step={}.ckpt"}


def rows_of(folder: Path) -> list[dict[str, float]]:
    """Return the rows of the only run in a folder, which has ended."""
    (run,) = folder.iterdir()
    assert (run / "FINISHED").exists()
    return [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]


def points_of(store: str, experiment: str) -> dict[tuple[int, str], float]:
    """Return what the only run of an experiment, which has ended, has at each step of each metric: the newest."""
    client = MlflowClient(store)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    points = {}
    for name in run.data.metrics:
        for metric in sorted(client.get_metric_history(run.info.run_id, name), key=lambda one: one.timestamp):
            points[metric.step, name] = metric.value
    return points


def assert_equal(found: dict[Any, float], expected: dict[Any, float]) -> None:
    """Assert the same keys and values: losses as float32 training has them, whatever is counted exactly."""
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value == (pytest.approx(expected[key], rel=1e-6) if "_loss/" in str(key) else expected[key]), key


def assert_same_observations(source: str, expected: str) -> None:
    """Assert that an analyzer reads the same, but for the run's name."""
    frames = [Observations.from_source(uri).to_wide() for uri in (source, expected)]
    assert len(frames[0]) > 0
    one, two = (frame.drop(columns="run") for frame in frames)
    pd.testing.assert_frame_equal(one, two, rtol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Options], Path]:
    """Return the folder of an uninterrupted training; each kind is run once."""
    known: dict[str, Path] = {}

    def run(trainer: str, options: Options) -> Path:
        name = json.dumps([trainer, options])
        if name not in known:
            known[name] = tmp_path_factory.mktemp(f"whole-{trainer}")
            _TRAIN[trainer](options | {"folder": str(known[name])})
        return known[name]

    return run


def killed_and_resumed(
    trainer: str, folder: Path, pause: Any, checkpoint: int, options: Options, *, processes: int = 1
) -> None:
    """Train until a process of its own is killed there, and go on from a checkpoint."""
    own = folder / "train"
    given = options | {"pause": pause}
    several = given | {"scenarios": ["train"]} if trainer == "plain" else {"scenarios": {"train": given}}
    launch.kill_when_reached(f"{trainer}.py", several | {"folder": str(folder)}, folder, processes=processes)
    saved = own / _CHECKPOINT[trainer].format(checkpoint)
    assert saved.exists()
    _TRAIN[trainer](options | {"folder": str(own), "resume": str(saved)})


_BY_DOMAIN: Options = {"sets": True}
_RESTORED: Options = {"arguments": {**_SAVING["hf"]["arguments"], "restore_callback_states_from_checkpoint": True}}
_CASES = {
    "plain, in mid-run": ("plain", 10, 8, {}),
    "plain, after an evaluation": ("plain", 8, 8, {}),
    "Trainer, in mid-run, callbacks restored": ("hf", ["step_end", 7], 4, _RESTORED | _BY_DOMAIN),
    "Trainer, after an evaluation": ("hf", ["save", 4], 4, {}),
    "Lightning, in mid-run": ("light", ["step", 6], 4, {}),
    "Lightning, after an evaluation": ("light", ["step", 8], 8, {}),
    "Trainer, a checkpoint that another callback asked for": ("hf", ["step_end", 7], 6, {"save_at": 6}),
}


# Lightning's ModelCheckpoint(every_n_train_steps=…) saves before the validation of the same step, and Lightning doesn't
# repeat that when it resumes.
_BEFORE = ("light", ["step", 6], 4, {"saved": "step"})


@pytest.mark.parametrize(
    ("trainer", "pause", "checkpoint", "more"),
    [*_CASES.values(), _BEFORE],
    ids=[*_CASES, "Lightning, a checkpoint before the step's validation"],
)
def test_a_killed_run_that_is_resumed_has_the_rows_of_an_uninterrupted_one(
    trainer: str, pause: Any, checkpoint: int, more: Options, tmp_path: Path, whole: Callable[[str, Options], Path]
) -> None:
    options = _SAVING[trainer] | more
    killed_and_resumed(trainer, tmp_path, pause, checkpoint, options)

    expected = whole(trainer, options)
    found, wanted = rows_of(tmp_path / "train" / "rank0"), rows_of(expected / "rank0")
    assert len(found) == len(wanted)
    for row, one in zip(found, wanted, strict=True):
        assert_equal(row, one)
    assert_same_observations(f"jsonl:{tmp_path / 'train' / 'rank0'}", f"jsonl:{expected / 'rank0'}")


def test_a_run_of_two_processes_goes_on_in_one(tmp_path: Path, whole: Callable[[str, Options], Path]) -> None:
    killed_and_resumed("plain", tmp_path, 6, 4, {}, processes=2)

    expected = whole("plain", {})
    found = rows_of(tmp_path / "train" / "rank0")
    for row, one in zip(found, rows_of(expected / "rank0"), strict=True):
        assert_equal(row, one)
    assert_same_observations(f"jsonl:{tmp_path / 'train' / 'rank0'}", f"jsonl:{expected / 'rank0'}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the tracking URI of a store that all tests share, each with an experiment of its own."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.mark.parametrize(
    ("trainer", "pause", "checkpoint"), [("plain", 6, 4), ("hf", ["step_end", 7], 4), ("light", ["step", 6], 4)]
)
def test_a_killed_run_goes_on_in_mlflow_as_the_same_run(
    trainer: str, pause: Any, checkpoint: int, store: str, tmp_path: Path
) -> None:
    uris = [f"mlflow+{store}#{trainer}-{name}" for name in ("killed", "whole")]
    options = {"saved": "step"} if trainer == "light" else _SAVING[trainer]
    killed_and_resumed(trainer, tmp_path, pause, checkpoint, options | {"uri": uris[0]})
    (tmp_path / "whole").mkdir()
    _TRAIN[trainer](options | {"uri": uris[1], "folder": str(tmp_path / "whole")})

    assert_equal(points_of(store, f"{trainer}-killed"), points_of(store, f"{trainer}-whole"))
    assert_same_observations(*uris)
