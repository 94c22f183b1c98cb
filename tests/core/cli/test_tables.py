"""Tables fit the width that there is: headings wrap, then names; columns go whole, numbers are never cut."""

from __future__ import annotations

import unicodedata

import pytest

from bimix_tracking.cli.console import Cells, Column, print_in_tables, print_table, say

COLUMNS: list[Column] = [
    ("domain", "left"), ("recommended", "right"), ("near-optimal range", "right"), ("tried", "right"),
    ("held-out error", "right"),
]  # fmt: skip
NAMES = ["code", "a" * 200, "[red]web[/red]", "\u2068\u05e2\u05d1\u05e8\u05d9\u05ea\u2069", "日本語ウェブ"]
ROWS = [[name, "46.64 %", "24.4–66.7 %", "11.1–66.7 %", "1.00 %"] for name in NAMES]


def cells(line: str) -> int:
    """Return how many cells of a terminal a line takes: two a Japanese letter, none a mark of direction."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in line)
    return len(line) + wide - sum(letter in "\u2068\u2069" for letter in line)


@pytest.mark.parametrize(
    ("columns", "shown"), [(140, "tried"), (80, "tried"), (62, "tried"), (60, "held-out"), (44, "near-optimal")]
)
def test_no_line_is_longer_and_no_number_is_cut(
    columns: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    print_table(COLUMNS, ROWS, ("tried", "held-out error"))

    lines = capsys.readouterr().out.splitlines()
    assert max(map(cells, lines)) <= columns
    assert shown in "\n".join(lines)
    numbers = [line for line in lines if "46.64 %" in line]
    assert len(numbers) == len(ROWS)
    assert all("24.4–66.7 %" in line for line in numbers)
    assert "".join(line.split()[0] for line in lines if line.startswith("aa")) == "a" * 200  # wrapped, and whole
    assert any(line.startswith("[red]web[/r") for line in lines)
    assert any(line.startswith("日本語ウェブ") for line in lines)


def test_a_column_is_dropped_whole_the_least_important_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    print_table(COLUMNS, ROWS, ("tried", "held-out error"))

    printed = capsys.readouterr().out
    assert "tried" not in printed
    assert "11.1" not in printed
    assert "error" in printed
    assert printed.count("1.00 %") == len(ROWS)


def test_columns_go_on_in_another_table_that_begins_with_the_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    names: Cells = (("domain", "left"), ["code", "web"])
    runs: list[Cells] = [((f"pilot-{i:02}", "right"), [f"{i}0.00 %", f"{9 - i}0.00 %"]) for i in range(1, 8)]

    print_in_tables([names], [[run] for run in runs])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert [line.split() for line in lines if line.startswith("domain")] == [
        ["domain", "pilot-01", "pilot-02", "pilot-03"],
        ["domain", "pilot-04", "pilot-05", "pilot-06"],
        ["domain", "pilot-07"],
    ]
    shown = [line.split()[1::2] for line in lines if line.startswith("code")]
    assert sum(shown, []) == [f"{i}0.00" for i in range(1, 8)]  # noqa: RUF017  # three lists


def test_a_sentence_is_wrapped_where_the_width_is_known_and_a_path_never(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Held-out error: 0.91 % (without a law 5.31 %); rank correlation 0.69."
    monkeypatch.delenv("COLUMNS", raising=False)
    say(text)
    assert capsys.readouterr().out == f"{text}\n"

    monkeypatch.setenv("COLUMNS", "40")
    say(text)
    wrapped = capsys.readouterr().out.splitlines()
    assert max(map(len, wrapped)) <= 40
    assert " ".join(" ".join(wrapped).split()) == text
    say(f"Artifacts: /{'x' * 60}", whole=True)
    assert capsys.readouterr().out == f"Artifacts: /{'x' * 60}\n"
