"""Observations: bad input is refused or set aside by name, and nothing good is lost."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, fit_law
from bimix_tracking.data.manifest import RunManifest, RunRecord
from bimix_tracking.errors import ObservationsError

MakeSweep = Callable[..., Observations]
HOSTILE = ("c++", "C#", "web/en", "<script>alert(1)</script>", "ä")
LAWS = {name: (0.1 + 0.02 * i, 0.5, 900.0, 2.0 + i) for i, name in enumerate(HOSTILE)}


def table(**columns: list[object]) -> pd.DataFrame:
    base = {
        "run": ["one", "one", "two", "two"],
        "a": [0.2, 0.2, 0.6, 0.6],
        "b": [0.8, 0.8, 0.4, 0.4],
        "tokens": [1e6, 2e6, 1e6, 2e6],
        "la": [3.0, 2.9, 2.8, 2.7],
        "lb": [2.0, 1.9, 2.2, 2.1],
    }
    return pd.DataFrame(base | columns)


def read(frame: pd.DataFrame) -> Observations:
    return Observations.from_wide(
        frame, proportions=["a", "b"], losses={"a": "la", "b": "lb"}, tokens="tokens", run="run"
    )


def test_a_table_is_read_whole() -> None:
    obs = read(table())

    assert obs.runs == ("one", "two")
    assert obs.domains == obs.targets == ("a", "b")
    assert obs.mixture("two") == Mixture({"a": 0.6, "b": 0.4})
    assert obs.notes == ()
    point = obs.losses.query("run == 'two' and domain == 'b' and tokens == 2e6")
    assert point["loss"].tolist() == [2.1]
    assert len(obs.losses) == 8


@pytest.mark.parametrize(
    ("columns", "reason", "left"),
    [
        ({"la": [3.0, math.nan, 2.8, 2.7]}, "excluded: loss is NaN (run 'one', domain 'a'; 1×)", 7),
        ({"la": [3.0, math.inf, 2.8, 2.7]}, "excluded: loss is infinite (run 'one', domain 'a'; 1×)", 7),
        ({"la": [3.0, 1.7976931348623157e308, 2.8, 2.7]}, "excluded: loss is infinite (run 'one', domain 'a'; 1×)", 7),
        ({"lb": [2.0, 1.9, 0.0, -1.0]}, "excluded: loss is not positive, which a law on log losses cannot use", 6),
        ({"tokens": [0.0, 2e6, 1e6, 2e6]}, "excluded: evaluated before training (0 tokens) (run 'one', domain 'a'", 6),
        ({"tokens": [math.nan, 2e6, 1e6, 2e6]}, "excluded: the token count is not finite (run 'one', domain 'a'", 6),
        ({"tokens": [2e6, 2e6, 1e6, 2e6]}, "excluded: an earlier value of a point logged again", 6),
        ({"tokens": [2e6, 2e6, 1e6, 2e6], "la": [3.0, 3.0, 2.8, 2.7]},
         "excluded: the same point logged twice (run 'one', domain 'a'; 1×)", 6),
    ],
)  # fmt: skip
def test_a_bad_number_is_set_aside_with_its_run_and_domain(
    columns: dict[str, list[object]], reason: str, left: int
) -> None:
    obs = read(table(**columns))

    assert any(str(note).startswith(reason) for note in obs.notes)
    assert len(obs.losses) == left
    assert np.isfinite(obs.losses[["loss", "tokens"]].to_numpy(float)).all()


def test_of_a_point_logged_again_the_later_value_counts() -> None:
    obs = read(table(tokens=[2e6, 2e6, 1e6, 2e6]))

    assert obs.losses.query("run == 'one' and domain == 'a'")["loss"].tolist() == [2.9]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"b": [0.8, 0.8, 0.5, 0.5]}, r"run 'two': proportions sum to 1\.1, not 1.*percentages\?"),
        ({"a": [-0.2, -0.2, 0.6, 0.6], "b": [1.2, 1.2, 0.4, 0.4]}, r"run 'one': the proportion of domain 'a' is -0\.2"),
        ({"a": [math.nan, math.nan, 0.6, 0.6]}, r"run 'one': the proportion of domain 'a' is nan"),
        ({"a": [0.2, 0.3, 0.6, 0.6], "b": [0.8, 0.7, 0.4, 0.4]}, r"run 'one' has more than one mixture.*vary by 0\.1"),
        ({"a": [0.6, 0.1, 0.6, 0.6], "b": [0.4] * 4}, r"run 'one' has more than one mixture.*vary by 0\.5"),
        ({"a": [math.nan, 0.2, 0.6, 0.6]}, r"run 'one': the proportion of domain 'a' is nan"),
        ({"b": [0.8, math.nan, 0.4, 0.4]}, r"run 'one': the proportion of domain 'b' is nan"),
        ({"b": [0.8, 0.8, math.inf, math.inf]}, r"run 'two': the proportion of domain 'b' is inf"),
        ({"b": [0.8, 0.8, "some", 0.4]}, r"column 'b' must hold numbers: .*'some'"),
        ({"la": ["diverged", 2.9, 2.8, 2.7]}, r"column 'la' must hold numbers: .*'diverged'"),
        ({"tokens": [1e6, "2M", 1e6, 2e6]}, r"column 'tokens' must hold numbers: .*'2M'"),
        ({"la": [math.nan] * 4, "lb": [math.nan] * 4}, r"no usable loss is left.*loss is NaN"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(columns: dict[str, list[object]], complaint: str) -> None:
    with pytest.raises(ObservationsError, match=complaint):
        read(table(**columns))


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(ObservationsError, match=r"lacks the columns 'lb'; it has 'run', 'a', 'b', 'tokens', 'la'"):
        read(table().drop(columns="lb"))


def test_a_run_that_has_nothing_left_goes_and_the_others_stay() -> None:
    obs = read(table(la=[math.nan, math.nan, 2.8, 2.7], lb=[math.nan, math.nan, 2.2, 2.1]))

    assert obs.runs == ("two",)
    assert "excluded: no usable loss is left (run 'one'; 1×)" in map(str, obs.notes)


def test_proportions_rounded_to_three_decimals_are_rescaled_and_noted() -> None:
    third = [1 / 3, 1 / 3]
    obs = read(table(a=[0.333, 0.333, *third], b=[0.669, 0.669, 2 * third[0], 2 * third[0]]))

    assert obs.mixture("one")["a"] == pytest.approx(0.333 / 1.002)
    assert [str(n) for n in obs.notes] == [
        "adjusted: proportions summed to 1 only within rounding and were rescaled (1×)"
    ]


def test_without_a_run_column_rows_of_one_mixture_are_a_run() -> None:
    obs = Observations.from_wide(table(), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")

    assert obs.runs == ("mixture-1", "mixture-2")
    assert obs.losses["run"].value_counts().tolist() == [2, 2]


def test_csv_round_trip_with_hostile_names(sweep: MakeSweep, tmp_path: Path) -> None:
    obs = sweep(LAWS, noise=0.01)
    obs = Observations(obs.mixtures, obs.losses.assign(eval_tokens=4096.0, step=obs.losses["tokens"] / 4096))

    obs.to_csv(tmp_path / "sweep.csv")
    again = Observations.from_csv(tmp_path / "sweep.csv")

    assert again.domains == HOSTILE
    assert again.data_hash == obs.data_hash
    keys = ["run", "tokens", "domain"]
    pd.testing.assert_frame_equal(
        again.losses.sort_values(keys).reset_index(drop=True), obs.losses.sort_values(keys).reset_index(drop=True)
    )


def test_a_table_written_and_read_predicts_the_same(sweep: MakeSweep, tmp_path: Path) -> None:
    obs = sweep(LAWS, noise=0.01)
    obs.to_csv(tmp_path / "sweep.csv")
    mixture = Mixture.uniform(HOSTILE)

    here, there = (fit_law(data).predict(mixture, 1e9) for data in (obs, Observations.from_csv(tmp_path / "sweep.csv")))

    pd.testing.assert_frame_equal(there, here, check_exact=True)


@pytest.mark.parametrize("name", ["NA", "null", "nan", "None", "007", "1e3", "-", 'run, with "quotes"'])
def test_a_run_keeps_its_name_whatever_it_reads_like(name: str, tmp_path: Path) -> None:
    obs = read(table(run=[name, name, "two", "two"]))
    obs.to_csv(tmp_path / "sweep.csv")

    again = Observations.from_csv(tmp_path / "sweep.csv")

    assert again.runs == (name, "two")
    assert again.data_hash == obs.data_hash


def test_runs_that_share_no_checkpoint_need_no_table_of_all_their_checkpoints() -> None:
    runs, checkpoints = 40, 50
    rows = [
        {"run": f"r{i}", "step": k, "tokens": 1e6 * k + i, "a": 0.1 + i / 50, "b": 0.9 - i / 50, "la": 2 + 1 / k}
        for i in range(runs)
        for k in range(1, checkpoints + 1)
    ]
    obs = Observations.from_wide(
        pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens", run="run", step="step"
    )

    tracemalloc.start()
    wide = obs.to_wide()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(wide) == runs * checkpoints
    assert wide["loss/a"].tolist() == [row["la"] for row in rows]
    assert peak < 20e6  # a table of runs × steps × token counts takes ten times that


def test_the_hash_is_of_the_mixtures_and_tokens_too() -> None:
    other_mixture = table(a=[0.2, 0.2, 0.5, 0.5], b=[0.8, 0.8, 0.5, 0.5])
    other_tokens = table(tokens=[1e6, 2e6, 1e6, 3e6])

    assert len({read(frame).data_hash for frame in (table(), other_mixture, other_tokens)}) == 3


def test_the_hash_is_of_the_numbers(sweep: MakeSweep) -> None:
    obs = sweep(LAWS)
    other = obs.losses.assign(loss=obs.losses["loss"] + 1e-9 * (obs.losses.index == 3))

    assert obs.data_hash == sweep(LAWS).data_hash
    assert obs.data_hash != Observations(obs.mixtures, other).data_hash


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00"])
def test_a_file_that_is_no_sweep_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")

    with pytest.raises(ObservationsError, match=r"x\.csv"):
        Observations.from_csv(tmp_path / "x.csv")


WIDE = "run,tokens,proportion/a,proportion/b,loss/a,loss/b\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run,tokens,proportion/a,proportion/b,loss/a,loss/a\nx,1,0.5,0.5,2,3\n", "line 1: .*'loss/a' appears twice"),
        (WIDE + "x,1,0.5,0.5,2,3\nx,2,0.5,0.5,2,3,4\n", "line 3: 7 cells, but the header has 6"),
        (WIDE + "x,1,0.5,0.5,2\n", "line 2: 5 cells"),
        (WIDE + "x,1,0.5,0.5,2,3\n\nx,1,000,0.5,0.5,2,3\n", "line 4: 7 cells"),
        (WIDE + 'x,1,0.5,0.5,2,3\n\nx,"1,000",0.5,0.5,2,3\n', "line 4: the column 'tokens' must hold .* got '1,000'"),
        (WIDE + "x,1,50%,0.5,2,3\n", "line 2: the column 'proportion/a' must hold a number, got '50%'"),
        (WIDE + "x,1,0.5,0.5,2," + "y" * 9999 + "\n", "line 2: the column 'loss/b' must hold a number, got 'yyy"),
        (WIDE.replace(",", ";") + "x;1;0,5;0,5;2;3\n", "line 1: its cells are separated by ';'"),
        (WIDE + '"x,1,0.5,0.5,2,3\n', "line 2: unexpected end of data"),
        (WIDE + "x,1,True,0,2,3\n", "line 2: the column 'proportion/a' must hold a number, got 'True'"),
    ],
)
def test_a_table_whose_cells_are_wrong_names_the_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")

    with pytest.raises(ObservationsError, match=said) as told:
        Observations.from_csv(tmp_path / "x.csv")
    assert len(str(told.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_as_spreadsheets_leave_it(end: str, encoding: str, tmp_path: Path) -> None:
    lines = [
        "note,run,tokens,proportion/a,proportion/ä,loss/a,loss/π",
        'x,"r, 1",1e6,0,1,2.5,3',
        "",
        "y,1,1e6,.5,.5,,3",
    ]
    (tmp_path / "x.csv").write_text(end.join([*lines, ",,,,,,", ""]), encoding=encoding, newline="")

    obs = Observations.from_csv(tmp_path / "x.csv")

    assert obs.runs == ("r, 1", "1")
    assert (obs.domains, obs.targets) == (("a", "ä"), ("a", "π"))
    assert obs.losses["loss"].tolist() == [2.5, 3.0, 3.0]
    assert dict(obs.mixture("r, 1")) == {"a": 0.0, "ä": 1.0}


def test_losses_of_no_domain_and_proportions_of_nothing_are_read(tmp_path: Path) -> None:
    # A sweep over one corpus, measured on another: no target is a domain.
    (tmp_path / "x.csv").write_text(
        "run,tokens,proportion/c4,proportion/github,loss/pile-arxiv,loss/pile-law\nr1,1e9,1,0,3.0,2.5\nr2,1e9,0.5,0.5,2.0,2\n",
        encoding="utf-8",
    )

    obs = Observations.from_csv(tmp_path / "x.csv")

    assert obs.domains == ("c4", "github")
    assert obs.targets == ("pile-arxiv", "pile-law")
    assert len(obs.losses) == 4
    assert obs.notes == ()


def test_a_table_of_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(WIDE, encoding="utf-16")

    with pytest.raises(ObservationsError, match=r"cannot read .*x\.csv as CSV: 'utf-8' codec"):
        Observations.from_csv(tmp_path / "x.csv")


def record(name: str, **manifest: object) -> RunRecord:
    given = {"domains": ["a", "b"], "mixture": {"a": 0.25, "b": 0.75}} | manifest
    row = {"bimix/step": 1.0, "bimix/tokens": 1e6, "bimix_eval_loss/a": 3.0, "bimix_eval_loss/b": 2.0}
    return RunRecord(f"id-{name}", name, RunManifest.from_dict(given), [row, row | {"bimix/tokens": 2e6}])


@pytest.mark.parametrize(
    ("field", "one", "other", "said"),
    [
        ("tokenizer", "gpt2", "neox", r"differ in tokenizer.*'gpt2': x, y; 'neox': z"),
        ("eval_set", "v1", "v2", r"differ in eval set.*'v1': x, y; 'v2': z"),
        ("domains", ["a", "b"], ["a", "b", "c"], r"differ in domains.*'a, b': x, y; 'a, b, c': z"),
    ],
)
def test_runs_that_must_not_be_compared_are_named(field: str, one: object, other: object, said: str) -> None:
    records = [record("x", **{field: one}), record("y", **{field: one}), record("z", **{field: other})]

    with pytest.raises(ObservationsError, match=said):
        Observations.from_records(records, source="test")


def test_runs_of_one_name_are_told_apart_by_their_ids() -> None:
    twins = [record("x"), dataclasses.replace(record("x"), run_id="other")]

    obs = Observations.from_records(twins, source="test")

    assert obs.runs == ("x (id-x)", "x (other)")
    assert obs.run_ids == {"x (id-x)": "id-x", "x (other)": "other"}


def test_a_domain_that_a_mixture_leaves_out_has_share_zero() -> None:
    obs = Observations.from_records([record("x"), record("y", mixture={"b": 1.0})], source="test")

    assert obs.mixtures.loc["y"].to_numpy(float).tolist() == [0.0, 1.0]


def test_a_run_set_aside_has_no_say_in_the_others_domains() -> None:
    other = record("other", domains=["x"], mixture=None)

    obs = Observations.from_records([other, record("x", mixture={"b": 1.0}), record("y")], source="test")

    assert obs.domains == ("a", "b")
    assert obs.mixtures.loc["x"].to_numpy(float).tolist() == [0.0, 1.0]


def test_runs_without_mixture_or_evaluation_are_set_aside() -> None:
    blind = RunRecord("id", "blind", record("x").manifest, [{"bimix/step": 1.0, "bimix/tokens": 1.0}])
    obs = Observations.from_records([record("x"), record("bare", mixture=None), blind], source="test")

    assert obs.runs == ("x",)
    assert [str(note) for note in obs.notes] == [
        "excluded: the run has no mixture in its manifest (run 'bare'; 1×)",
        "excluded: the run has no evaluation (run 'blind'; 1×)",
    ]
    with pytest.raises(ObservationsError, match=r"none of the 1 runs of test can be used.*the run has no evaluation"):
        Observations.from_records([blind], source="test")
