"""Model sizes and schedules of runs: read, kept, and refused where they can't be."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.data.model_sizes import distinct, nearest
from bimix_tracking.errors import ObservationsError


def table(**columns: npt.NDArray[np.float64]) -> pd.DataFrame:
    rows = [
        {"run": f"{name}{a}", "a": a, "b": 1 - a, "tokens": s, "la": 3.0 - a - s / 1e5 - size / 1e8, "size": size}
        for name, size in (("small", 1e6), ("large", 1e7))
        for a in (0.2, 0.5, 0.8)
        for s in (1e3, 2e3)
    ]
    return pd.DataFrame(rows).assign(**columns)


def read(found: pd.DataFrame, **columns: str | float | None) -> Observations:
    asked = {"model_size": "size", "schedule_tokens": None} | columns
    return Observations.from_wide(
        found,
        proportions=["a", "b"],
        losses={"a": "la"},
        tokens="tokens",
        run="run",
        model_size=asked["model_size"],
        schedule_tokens=asked["schedule_tokens"],
    )


def test_each_run_has_its_size_and_schedule_and_a_csv_keeps_them(tmp_path: Path) -> None:
    obs = read(table(schedule=np.where(np.arange(12) < 6, 4e3, np.nan)), schedule_tokens="schedule")
    assert obs.model_sizes == (1e6, 1e7)
    assert obs.several_sizes
    assert obs.sizes["small0.2"] == 1e6
    assert (obs.schedule_of("small0.2"), obs.schedule_of("large0.2")) == (4e3, 2e3)
    obs.to_csv(tmp_path / "sweep.csv")
    again = Observations.from_csv(tmp_path / "sweep.csv")
    assert (again.sizes, again.schedules, again.data_hash) == (obs.sizes, obs.schedules, obs.data_hash)
    assert obs.only(["small0.2", "small0.5"]).model_sizes == (1e6,)


def test_one_size_is_the_same_data_as_none() -> None:
    one = table().query("size == 1e6")
    assert read(one).data_hash == read(one, model_size=None).data_hash == read(one, model_size=2e6).data_hash
    assert not read(one).several_sizes


def test_the_same_mixture_at_another_size_is_another_run() -> None:
    obs = Observations.from_wide(
        table(), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens", model_size="size"
    )
    assert len(obs.runs) == 6


def test_runs_without_a_size_are_named() -> None:
    broken = table()
    broken.loc[broken["run"] == "large0.5", "size"] = np.nan
    with pytest.raises(ObservationsError, match=r"1 of 6 runs have no model size: 'large0\.5'.*1M, 10M parameters"):
        read(broken)


def test_a_size_in_billions_is_asked_for() -> None:
    with pytest.raises(ObservationsError, match=r"run 'small0\.2': the model size is 7 parameters: did you mean 7e9"):
        read(table(), model_size=7)


def test_a_schedule_that_ends_too_early_is_noted_and_not_used() -> None:
    obs = read(table(), schedule_tokens=1500.0)
    assert obs.schedule_of("small0.2") == 2e3
    assert sum("its schedule of 1.5k tokens ends before" in str(note) for note in obs.notes) == 6


@pytest.mark.parametrize(
    ("sizes", "found"), [([1.22e8, 3.1e8, 1.23e8, 1.22e8], (1.22e8, 3.1e8)), ([5e6], (5e6,)), ([], ())]
)
def test_sizes_within_two_per_cent_are_one(sizes: list[float], found: tuple[float, ...]) -> None:
    assert distinct(sizes) == found


def test_the_size_that_is_meant() -> None:
    assert nearest(7e9, [1e9, 6.7e9]) == 6.7e9
    assert nearest(7e9, [1e9, 3e9]) is None


def record(name: str, **facts: object) -> RunRecord:
    manifest = RunManifest(("a", "b"), Mixture({"a": 0.5, "b": 0.5}), **facts)  # type: ignore[arg-type]
    rows = [{"bimix/step": 1.0, "bimix/tokens": 1e3, "bimix_eval_loss/a": 2.0}]
    return RunRecord(name, name, manifest, rows)


def test_sizes_are_pooled_only_where_that_is_asked_for() -> None:
    records = [record("s", model_size=10**6, batch_tokens=8), record("l", model_size=10**7, batch_tokens=64)]
    with pytest.raises(
        ObservationsError, match=r"differ in model size.*: 1M: s; 10M: l.*--model-size 10M.*--group-by model_size"
    ):
        Observations.from_records(records, source="x")
    obs = Observations.from_records(records, source="x", pool_sizes=True)
    assert obs.sizes == {"s": 1e6, "l": 1e7}
    assert "model_size" not in obs.shared
    other = [*records, record("t", model_size=10**7, batch_tokens=32)]
    with pytest.raises(ObservationsError, match="differ in batch tokens"):
        Observations.from_records(other, source="x", pool_sizes=True)
    strange = [*records, record("u", model_size=10**7, batch_tokens=64, tokenizer="other")]
    with pytest.raises(ObservationsError, match="differ in tokenizer"):
        Observations.from_records(strange, source="x", pool_sizes=True)
