"""CSV files: no name in one is a formula to a spreadsheet, and each is read back as it was."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking import Mixture, Observations, export
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.files.spreadsheet import defused, restored, table_csv

FORMULAS = ("=1+1", "+1", "-5", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20a")
NAMES = (*FORMULAS, "'=1+1", "''=1", "'web", "'", "web", "null", '=HYPERLINK("http://x","y")', "a,b", "1e3")
_DANGER = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.text("'=+-@\t\r\nab", max_size=6) | st.text(max_size=6))
def test_a_text_is_no_formula_and_comes_back(text: str) -> None:
    written = defused(text)

    assert not written.startswith(_DANGER)
    assert restored(written) == text
    assert written in (text, f"'{text}")


@given(st.text("'=-a", max_size=5), st.text("'=-a", max_size=5))
def test_two_texts_are_never_written_alike(one: str, other: str) -> None:
    assert (defused(one) == defused(other)) == (one == other)


def test_observations_are_read_back_as_they_were_and_hold_no_formula(tmp_path: Path) -> None:
    shares = [0.2 + 0.02 * number for number in range(len(NAMES))]
    table = pd.DataFrame(
        {
            "name": [name for name in NAMES for _ in range(2)],
            "s": [1e6, 2e6] * len(NAMES),
            "p": [share for share in shares for _ in range(2)],
            "l": [3.0, 2.5] * len(NAMES),
        }
    ).assign(q=lambda frame: 1 - frame["p"])
    shares_of = {"=a": "p", "-b": "q"}
    obs = Observations.from_wide(table, tokens="s", run="name", proportions=shares_of, losses={"=a": "l"})

    obs.to_csv(tmp_path / "sweep.csv")

    read = Observations.from_csv(tmp_path / "sweep.csv")
    assert read.runs == obs.runs == NAMES
    assert read.data_hash == obs.data_hash
    with (tmp_path / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert not [cell for row in csv.reader(file) for cell in row if cell.startswith(_DANGER)]


def test_a_table_of_ours_that_others_wrote_without_escapes_is_read_as_it_is(tmp_path: Path) -> None:
    rows = "run,tokens,proportion/a,proportion/b,loss/a\n=x,1,0.5,0.5,2\n'y,1,0.4,0.6,2\n"
    (tmp_path / "theirs.csv").write_text(rows)

    assert Observations.from_csv(tmp_path / "theirs.csv").runs == ("=x", "'y")


@pytest.mark.parametrize("name", [name for name in FORMULAS if name.isprintable()])
def test_exports_and_plans_hold_no_formula(name: str) -> None:
    mixture = Mixture({name: 0.25, "web": 0.75})
    exported = cells(export(mixture, "csv", paths={name: "=cmd|' /C calc'!A0"}))
    planned = cells(PlannedRuns(("=run",), (mixture,), (0,)).to_csv())

    assert not [cell for row in (*exported, *planned) for cell in row if cell.startswith(_DANGER)]
    assert [restored(cell) for cell in exported[1]] == [name, "0.25", "=cmd|' /C calc'!A0"]


def test_numbers_stay_numbers_negative_ones_too() -> None:
    table = pd.DataFrame({"=name": ["-1", "a"], "n": [-1, 2], "x": [-0.5, float("nan")], "ok": [True, False]})

    written = table_csv(table)

    assert cells(written) == [["'=name", "n", "x", "ok"], ["'-1", "-1", "-0.5", "True"], ["a", "2", "", "False"]]
