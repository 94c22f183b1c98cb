"""The Japanese README and the page for a meeting: the figures and files of the English ones, on one sheet of paper."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

_ROOT = Path(__file__).parents[3]
_ENGLISH, _JAPANESE = _ROOT / "README.md", _ROOT / "README.ja.md"
_MEETING = _ROOT / "docs" / "ja" / "meeting.md"


def figures(text: str) -> set[str]:
    """Return the numbers with decimals of what the demo shows."""
    return set(re.findall(r"[−+]?\d+\.\d+", text.partition("```text")[2].partition("\n## ")[0]))


def test_the_japanese_readme_has_the_figures_of_the_english_one() -> None:
    english, japanese = (path.read_text(encoding="utf-8") for path in (_ENGLISH, _JAPANESE))

    found = figures(japanese)
    assert len(found) >= 25
    assert found <= figures(english)
    assert "(README.ja.md)" in english
    assert "(README.md)" in japanese


def test_its_snippet_is_that_of_the_english_one() -> None:
    snippets = [
        re.sub(r" *#.*", "", re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)[0])
        for path in (_ENGLISH, _JAPANESE)
    ]
    assert snippets[0] == snippets[1]


@pytest.mark.parametrize("page", [_JAPANESE, _MEETING], ids=lambda page: page.name)
def test_links_lead_somewhere_and_the_page_is_set_as_japanese_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    plain = re.sub(r"```.*?```|`[^`]*`|<!--.*?-->|\]\([^)]*\)|^    .*$", "", text, flags=re.DOTALL | re.MULTILINE)
    wide = "\u3040-\u30ff\u4e00-\u9fff"
    assert re.findall(rf".*(?:[{wide}] ?[(:;,?!~]|[)~] ?[{wide}]|\d %).*", plain) == []


def test_the_figures_for_a_meeting_are_those_of_the_readme() -> None:
    readme = figures(_JAPANESE.read_text(encoding="utf-8"))
    meeting = _MEETING.read_text(encoding="utf-8")

    gain = re.search(r"\| 予測改善量 \| (\S+) nats（90%区間 (\S+)〜(\S+)）", meeting)
    assert gain is not None
    assert set(gain.groups()) <= readme
    for shared in ("0.351 nats", "0.91%（法則なし 5.31%）", "0.69"):
        assert shared in meeting


def test_the_page_for_a_meeting_is_one_sheet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.goto((tmp_path / "ja" / "meeting.html").as_uri())
        assert opened.locator("[lang=ja] h1").inner_text().startswith("会議で示す1枚")
        sheets = re.findall(rb"/Type\s*/Page[^s]", opened.pdf(prefer_css_page_size=True))
        browser.close()
    assert len(sheets) == 1
