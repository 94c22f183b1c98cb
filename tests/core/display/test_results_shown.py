"""Results where somebody types their names: three lines, a table, a card; a page that opens; progress in a line."""

from __future__ import annotations

import io
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bimix_tracking import Mixture, Observations, analyze, plan_pilot, recommend, select_law, verify
from bimix_tracking.analysis.result import Analysis
from bimix_tracking.display import notebook, progress_line
from bimix_tracking.display.card import Card

HOSTILE = '<img src=x onerror="alert(1)">'
DOMAINS = ("code", HOSTILE, "\u05d0\u05d1" + "x" * 180)


def sweep(names: tuple[str, ...] = DOMAINS) -> Observations:
    shares = [(0.6, 0.3, 0.1), (0.2, 0.6, 0.2), (0.2, 0.2, 0.6), (0.4, 0.3, 0.3), (0.3, 0.5, 0.2)]
    rows = [
        {f"p{i}": share for i, share in enumerate(row)}
        | {f"l{i}": share ** -(0.1 + 0.1 * i) * (9 / tokens**0.3 + 2) for i, share in enumerate(row)}
        | {"run": f"run-{number}", "tokens": tokens}
        for number, row in enumerate(shares)
        for tokens in (1e4, 4e4, 1.6e5)
    ]
    places = {f"p{i}": name for i, name in enumerate(names)} | {f"l{i}": f"loss {name}" for i, name in enumerate(names)}
    frame = pd.DataFrame(rows).rename(columns=places)
    losses = {name: f"loss {name}" for name in names}
    return Observations.from_wide(frame, proportions=list(names), losses=losses, run="run", tokens="tokens")


@pytest.fixture(scope="module")
def found() -> Analysis:
    return analyze(sweep(), tokens=1e9, replicates=20)


@pytest.fixture(scope="module")
def results(found: Analysis) -> dict[str, Any]:
    return {
        "Analysis": found,
        "Recommendation": found.recommendation,
        "Selection": select_law(sweep()),
        "Plan": plan_pilot(["code", HOSTILE], runs=4),
        "Verification": verify(sweep(), ["run-4"], replicates=0),
    }


class Tags(HTMLParser):
    """The tags of a fragment, and its text."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words = ""
        self.feed(fragment)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags |= {tag, *(name for name, _ in attrs if name.startswith("on"))}

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize("name", ["Analysis", "Recommendation", "Selection", "Plan", "Verification"])
def test_a_result_has_three_lines_a_table_and_a_card(results: dict[str, Any], name: str) -> None:
    result = results[name]
    lines = repr(result).splitlines()
    assert 2 <= len(lines) <= 3
    assert all(len(line) < 600 for line in lines)
    table = result.to_frame()
    assert isinstance(table, pd.DataFrame)
    assert len(table) >= 3

    fragment = result._repr_html_()
    read = Tags(fragment)
    assert not read.tags & {"img", "script", "iframe", "link", "onerror"}
    assert "table" in read.tags
    assert fragment.count("<bdi") >= len(table)  # a name turns nothing around
    assert not re.search(r"https?://|url\(|@import", fragment)  # it loads nothing


def test_a_card_begins_with_the_verdict_and_has_the_picture(found: Analysis) -> None:
    words = " ".join(Tags(found._repr_html_()).words.split())
    sentence = found.verdict.sentence
    assert sentence in words
    assert words.index(sentence) < words.index("recommended") < words.index("change")
    assert repr(found).splitlines()[1].strip() == sentence
    assert found.to_frame()["recommended"].to_dict() == dict(found.recommendation.mixture)
    for caveat in found.verdict.caveats[:2]:
        assert " ".join(caveat.text.split()) in words


def test_a_card_is_in_the_report_s_language() -> None:
    words = Tags(analyze(sweep(("code", "web", "math")), tokens=1e9, replicates=0, lang="ja")._repr_html_()).words
    letters = re.sub(r"\.bx.*?\}|@container.*?\{|\}|--bx\S+|\.bx\S+", " ", words)
    assert "混合比" in letters
    assert not re.search(r"\b(recommended|predicted|reference|tokens)\b", letters)


def test_a_mixture_keeps_its_repr_and_has_a_card() -> None:
    mixture = Mixture({"code": 0.25, HOSTILE: 0.75})
    assert eval(repr(mixture)) == mixture  # noqa: S307  # that is what a repr is for
    read = Tags(mixture._repr_html_())
    assert HOSTILE in read.words
    assert "75.00 %" in read.words
    assert "img" not in read.tags


def test_of_many_rows_a_card_has_the_first() -> None:
    card = Card("many", "of them", head=["domain", "n"], rows=[[f"d{i}", str(i)] for i in range(1000)])
    assert card.html().count("<tr>") == 32  # the head, thirty, and how many more
    assert "… 970" in card.html()


def test_in_a_script_the_page_is_given_to_a_browser_and_nobody_waits(
    found: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = tmp_path / "seen"
    slow = tmp_path / "browser"
    slow.write_text(f'#!/bin/sh\necho "$1" > {seen}.part && mv {seen}.part {seen}\nsleep 5\n')
    slow.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{slow} %s")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = found.show()
    assert path is not None
    assert path.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert str(path) in capsys.readouterr().err
    for _ in range(200):
        if seen.exists():
            break
        time.sleep(0.05)
    assert seen.read_text().strip() == path.as_uri()


def test_without_a_browser_the_page_is_written_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BROWSER", "/nowhere/browser")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = notebook.show_page("<p>page</p>")
    assert path is not None
    assert path.read_text() == "<p>page</p>"
    assert path.parent.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(sys, "executable", "")
    assert notebook.show_page("<p>page</p>") is not None


@pytest.fixture
def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have IPython say that this is a kernel; return what it is given to display."""
    displayed: list[Any] = []
    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=displayed.append))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    return displayed


def test_in_a_notebook_the_page_is_below_the_cell(found: Analysis, in_a_notebook: list[Any]) -> None:
    assert found.show() is None
    (frame,) = in_a_notebook
    assert frame._repr_html_().startswith("<iframe")
    assert 'sandbox="allow-scripts"' in frame._repr_html_()
    assert "<script" not in frame._repr_html_()  # it is escaped, within the frame's attribute


def test_progress_is_a_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(progress_line, "_SECONDS", 0.0)
    line = progress_line.Line()
    line("a long name of a stage", 1, 4)
    line("short", 2, 4)
    line("short", 4, 4)
    assert "\n" not in out.getvalue()
    screen: list[str] = []
    for part in out.getvalue().split("\r"):
        screen = [*part, *screen[len(part) :]]
    assert "".join(screen).strip() == ""
    assert "█████░░░░░░░░░░░░░░░ 1/4" in out.getvalue()


def test_a_notebook_shows_progress_unless_told_and_a_script_only_if(
    in_a_notebook: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not in_a_notebook
    monkeypatch.setattr(progress_line, "_SECONDS", 0.0)
    analyze(sweep(), tokens=1e9, replicates=0)
    assert "\r" in capsys.readouterr().out
    analyze(sweep(), tokens=1e9, replicates=0, progress=False)
    assert capsys.readouterr().out == ""
    monkeypatch.delitem(sys.modules, "IPython")
    analyze(sweep(), tokens=1e9, replicates=0)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
    analyze(sweep(), tokens=1e9, replicates=0, progress=True)
    assert "\r" in capsys.readouterr().err


def test_a_recommendation_says_when_the_gain_is_nothing() -> None:
    fit = analyze(sweep(), tokens=1e9, replicates=0).fit
    best = recommend(fit, 1e9).mixture
    said = repr(recommend(fit, 1e9, reference=best)).splitlines()[1]
    assert said.endswith(": inside the noise.")
