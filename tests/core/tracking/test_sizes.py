"""Model sizes and schedules of runs: as a mixtures file gives them, as tools log them, and what is no size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bimix_tracking.data.histories import Point
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.other_tools.runs import ForeignRuns
from bimix_tracking.tracking.other_tools.sizes import Given, sized, with_sizes
from bimix_tracking.tracking.ports import Wanted

History = Mapping[str, list[Point]]
HALVES = Mixture({"code": 0.5, "web": 0.5})
BARE = RunManifest(("code", "web"), HALVES)
LOGGED: dict[str, tuple[dict[str, Any], int | None, int | None]] = {
    "hf-wandb": ({"model/num_parameters": 124_439_808}, 124_439_808, 124_439_808),
    "levanter": ({"parameter_count": 1.5e8}, 150_000_000, 150_000_000),
    "llm-foundry": ({"n_params": 125e6, "n_active_params": 1e6}, 125_000_000, 125_000_000),
    "lm-eval": ({"config": {"model_num_parameters": 7e9}, "model_num_parameters": 7e9}, 7 * 10**9, 7 * 10**9),
    "both": ({"num_non_embedding_params": 85e6, "num_params": "124M"}, 85_000_000, 124_000_000),
    "text": ({"model_size": "1.2B"}, 1_200_000_000, None),
    "a name": ({"model_size": "base"}, None, None),
    "a name and a count": ({"model_size": "base", "num_params": 5e6}, 5_000_000, 5_000_000),
    "unknown": ({"model_num_parameters": -1, "lr": 0.1}, None, None),
    "a flag": ({"model_size": True}, None, None),
    "none": ({"model_size": None, "num_params": float("nan")}, None, None),
}
PLANNED: dict[str, tuple[dict[str, Any], int | None]] = {
    "hf": ({"max_steps": 100}, 5000),
    "hf by epochs": ({"max_steps": "-1", "num_train_epochs": "3"}, None),
    "levanter": ({"trainer": {"num_train_steps": 200}}, 10_000),
    "torchtitan": ({"training": {"steps": 300, "seq_len": 2048}}, 15_000),
    "megatron": ({"train_iters": 300, "lr_decay_iters": 400}, 20_000),
    "megatron without": ({"train_iters": 300, "lr_decay_iters": None}, 15_000),
    "nanotron": ({"tokens": {"train_steps": 10, "sequence_length": 64}}, 500),
    "composer in batches": ({"max_duration": "4800ba"}, 240_000),
    "composer in tokens": ({"max_duration": "2e9tok"}, 2 * 10**9),
    "composer in epochs": ({"max_duration": "1ep"}, None),
    "olmo-core in tokens": ({"trainer": {"max_duration": {"value": 3e9, "unit": "tokens"}}}, 3 * 10**9),
    "olmo-core in steps": ({"trainer": {"max_duration": {"value": 60, "unit": "steps"}}}, 3000),
    "olmo-core in epochs": ({"trainer": {"max_duration": {"value": 1, "unit": "epochs"}}}, None),
    "said": ({"schedule_tokens": "20B", "max_steps": 100}, 20 * 10**9),
    "endless": ({"max_steps": float("inf")}, None),
}


@pytest.mark.parametrize(("logged", "size", "total"), LOGGED.values(), ids=LOGGED)
def test_sizes_are_read_as_tools_log_them(logged: dict[str, Any], size: int | None, total: int | None) -> None:
    manifest, notes = sized(BARE, ("id", "name"), Given(), logged)

    assert (manifest.model_size, manifest.total_parameters) == (size, total)
    assert notes == {}


@pytest.mark.parametrize(("logged", "tokens"), PLANNED.values(), ids=PLANNED)
def test_schedules_are_read_as_tools_log_them(logged: dict[str, Any], tokens: int | None) -> None:
    assert sized(BARE, ("id",), Given(), logged, per_step=50)[0].schedule_tokens == tokens
    in_tokens = "tok" in str(logged.get("max_duration")) or "schedule_tokens" in logged or "'tokens'}" in str(logged)
    unknown = sized(BARE, ("id",), Given(), logged)[0].schedule_tokens
    assert unknown == (tokens if in_tokens else None)  # steps alone are no volume


def test_what_is_given_counts_more_than_the_manifest_and_that_more_than_what_is_logged() -> None:
    logged = {"model_size": 1e6, "schedule_tokens": 1e6, "num_params": 9e6}
    said = RunManifest(("code", "web"), HALVES, model_size=2_000_000, schedule_tokens=2_000_000)

    by_name = Given({"name": "3M"}, {"name": 3e6})
    assert sized(said, ("id", "name"), Given(), logged)[0] == RunManifest(
        ("code", "web"), HALVES, model_size=2_000_000, schedule_tokens=2_000_000, total_parameters=9_000_000
    )
    found = sized(said, ("id", "name"), by_name, logged)[0]
    assert (found.model_size, found.schedule_tokens) == (3_000_000, 3_000_000)
    found = sized(BARE, ("id", "other"), by_name, logged)[0]
    assert (found.model_size, found.schedule_tokens) == (1_000_000, 1_000_000)
    assert sized(BARE, ("id",), Given("4M"), logged)[0].model_size == 4_000_000
    assert sized(BARE, ("id",), Given("my.size", "my.length"), {"my": {"size": 5e6, "length": "6M"}})[0] == RunManifest(
        ("code", "web"), HALVES, model_size=5_000_000, schedule_tokens=6_000_000
    )


def test_a_toy_whose_parameters_were_counted_has_no_size_whatever_its_tables_are() -> None:
    toy = RunManifest(("code", "web"), HALVES, total_parameters=2112)

    assert sized(toy, ("id",), Given(), {"model/num_parameters": 2112}) == (toy, {})


def test_a_logged_number_that_is_no_size_is_noted() -> None:
    manifest, notes = sized(BARE, ("id",), Given(), {"model_size": 7, "num_params": 0})

    assert manifest.model_size is None
    assert list(notes) == ["'model_size' says no size: the model size is 7 parameters: did you mean 7e9 (7B)?"]


# --- runs of other tools


def run(
    foreign: ForeignRuns, logged: Mapping[str, object], metric: str = "eval/{}_loss", more: History | None = None
) -> RunRecord:
    history = {metric.format(d): [(10.0, 0.0, 3.0), (20.0, 1.0, 2.5)] for d in ("code", "web")}
    return foreign.record("id", "name", {**history, **(more or {})}, logged)


def test_a_foreign_run_has_its_size_and_the_schedule_that_its_steps_give() -> None:
    seen: list[Point] = [(10.0, 0.0, 1e6), (20.0, 1.0, 2e6)]
    logged = {"model/num_parameters": 5e6, "max_steps": 50}
    found = run(ForeignRuns({"id": HALVES}), logged, more={"train/num_input_tokens_seen": seen})

    assert found.manifest.model_size == found.manifest.total_parameters == 5_000_000
    assert found.manifest.schedule_tokens == 5_000_000  # 2M tokens in 20 of 50 steps
    assert run(ForeignRuns({"id": HALVES}, tokens_per_step=1000), logged).manifest.schedule_tokens == 50_000


def test_steps_that_may_be_a_tracker_s_own_give_no_schedule() -> None:
    foreign = ForeignRuns({"id": HALVES}, pattern="val/(?P<domain>.+)", tokens="seen")
    seen: list[Point] = [(10.0, 0.0, 1e6), (20.0, 1.0, 2e6)]
    logged = {"max_steps": 50}

    assert run(foreign, logged, "val/{}", {"seen": seen}).manifest.schedule_tokens is None
    steps: list[Point] = [(10.0, 0.0, 20.0), (20.0, 1.0, 40.0)]
    with_steps = run(foreign, logged, "val/{}", {"seen": seen, "global_step": steps})
    assert with_steps.manifest.schedule_tokens == 2_500_000  # W&B counts calls, the run its steps


# --- the mixtures file


def fields(tmp_path: Path, text: str, name: str = "mixtures.yaml") -> ForeignRuns:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return ForeignRuns.from_file(path)


def test_a_mixtures_file_says_sizes_for_all_runs_for_each_or_by_a_name(tmp_path: Path) -> None:
    every = fields(tmp_path, "model_size: 122M\nschedule_tokens: 2e9\n")
    each = fields(tmp_path, "model_size: {a: 122M, b: 7.0e+9}\nschedule_tokens: {a: 20B}\n")
    named = fields(tmp_path, "model_size: model.params\nschedule_tokens: plan\n")

    assert every.given == Given(122_000_000, 2_000_000_000)
    assert each.given == Given({"a": 122_000_000, "b": 7_000_000_000}, {"a": 20_000_000_000})
    assert named.given == Given("model.params", "plan")


def test_a_table_of_mixtures_may_have_both_as_columns(tmp_path: Path) -> None:
    text = "run,model_size,code,web,schedule_tokens\na,122M,0.3,0.7,2B\nb,1.2e9,0.5,0.5,\n"
    table = fields(tmp_path, text, "table.csv")

    assert table.mixtures == {"a": Mixture({"code": 0.3, "web": 0.7}), "b": HALVES}
    assert table.given == Given({"a": 122_000_000, "b": 1_200_000_000}, {"a": 2_000_000_000})
    assert fields(tmp_path, "mixtures: table.csv") == table
    other = fields(tmp_path, "model_size: {b: 7B}\nmixtures: table.csv")  # what is said beside it counts
    assert other.given == fields(tmp_path, "mixtures: table.csv\nmodel_size: {b: 7B}").given
    assert other.given == Given({"b": 7_000_000_000}, {"a": 2_000_000_000})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model_size: 7", r"model_size is 7 parameters: did you mean 7e9 \(7B\)\?"),
        ("model_size: '7'", r"model_size is 7 parameters: did you mean 7e9 \(7B\)\?"),
        ("model_size: true", "entry 'model_size' must be a number, got true"),
        ("model_size: .nan", r"entry 'model_size' must be a number, got \.nan"),
        ("model_size: [7e9]", "entry 'model_size' must be a number, got"),
        ("model_size: {a: 122M, b: -7e9}", "model_size of run 'b' must be a positive number of parameters, got -7"),
        ("model_size: {a: large}", "model_size of run 'a': 'large' is not a number of parameters, such as 7B"),
        ("model_size: {a: true}", "entry 'model_size', 'a', must be a number, got true"),
        ("schedule_tokens: 0", "schedule_tokens must be a positive number of tokens, such as 20B or 5e9, got 0"),
        ("schedule_tokens: {a: .inf}", "schedule_tokens of run 'a' must be a positive number of tokens, .* got inf"),
    ],
)
def test_a_mixtures_file_with_what_is_no_size_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint):
        fields(tmp_path, text)


def test_a_cell_that_is_no_size_is_refused_by_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"table\.csv: model_size of run 'a': '7' is not a number .* did you mean 7B"):
        fields(tmp_path, "run,model_size,code,web\na,7,0.3,0.7\n", "table.csv")


# --- pooled


def ours(name: str, share: float, size: int | None, **manifest: Any) -> RunRecord:
    rows = [
        {"bimix/step": s, "bimix/tokens": 100.0 * s, "bimix_eval_loss/code": 3.0 - s / 10, "bimix_eval_loss/web": 2.0}
        for s in (1, 2, 3)
    ]
    mixture = Mixture({"code": share, "web": 1 - share})
    said = RunManifest(("code", "web"), mixture, model_size=size, **manifest)
    return RunRecord(name, name, said, rows)


def test_runs_of_two_sizes_are_pooled_if_asked_and_keep_size_and_schedule() -> None:
    records = [ours("a", 0.3, 10**6, schedule_tokens=600, batch_tokens=100), ours("b", 0.6, 10**6, batch_tokens=100)]
    records += [ours("big", 0.3, 10**7, batch_tokens=200)]
    obs = Wanted(pool_sizes=True).pooled(records, "memory:")

    assert obs.sizes == {"a": 1e6, "b": 1e6, "big": 1e7}
    assert obs.schedules == {"a": 600.0}
    assert (obs.schedule_of("a"), obs.schedule_of("big")) == (600.0, 300.0)
    with pytest.raises(ObservationsError, match=r"differ in model size.*1M: a, b; 10M: big.*--model-size 10M"):
        Wanted().pooled(records, "memory:")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"tokenizer": "b"}, "the runs differ in tokenizer"),
        ({"eval_set": "y"}, "the runs differ in eval set"),
    ],
)
def test_across_sizes_what_makes_another_loss_is_refused_all_the_same(fields: dict[str, str], complaint: str) -> None:
    said = {"tokenizer": "a", "eval_set": "x"}
    records = [ours("a", 0.3, 10**6, **said), ours("b", 0.6, 10**6, **said), ours("big", 0.3, 10**7, **said | fields)]

    with pytest.raises(ObservationsError, match=complaint):
        Wanted(pool_sizes=True).pooled(records, "memory:")


def test_a_size_that_some_runs_lack_is_told_by_their_names() -> None:
    records = [ours("a", 0.3, 10**6), ours("b", 0.6, None), ours("c", 0.9, None)]

    with pytest.raises(ObservationsError, match=r"2 of 3 runs have no model size: 'b', 'c'\. The others have 1M"):
        Wanted(pool_sizes=True).pooled(records, "memory:")
    given = Given({"b": "1M", "c": 1e6})
    obs: Observations = Wanted().pooled([with_sizes(one, given, {}) for one in records], "memory:")
    assert obs.sizes == dict.fromkeys("abc", 1e6)
