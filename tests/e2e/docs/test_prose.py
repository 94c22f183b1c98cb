"""What the documentation says in words: sentences that can be read aloud, hints that work, counts that are true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bimix_tracking.exports.trainers import FORMATS

_ROOT = Path(__file__).parents[3]
_PAGES = {
    str(page.relative_to(_ROOT)): page.read_text(encoding="utf-8")
    for page in (_ROOT / "README.md", *sorted((_ROOT / "docs").rglob("*.md")), *sorted(_ROOT.glob("examples/**/*.md")))
    if "ja" not in page.parts
}
_LONGEST = 25
_NUMBERS = {8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve"}


def sentences(page: str) -> Iterator[list[str]]:
    r"""Yield the words of each sentence of a page, without its code; a table's cell ends one.

    >>> list(sentences("# Head\n\nOne, two. See [three](four.md):\n\n    five\n\n| six | seven |"))
    [['Head'], ['One,', 'two.'], ['See', 'three:'], ['six'], ['seven']]
    """
    text = re.sub(r"(?ms)^ *(```+).*?^ *\1$", "", page)
    text = re.sub(r"(?s)<!--.*?-->", "", text)
    text = re.sub(r"(?m)^    .*$", "", text)
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    for part in re.split(r"\n\s*\n|\n(?=[-|#>*\d])|\|", text):
        for sentence in re.split(r"(?<=[.!?:;])\**\s+", " ".join(part.split())):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if words:
                yield words


@pytest.mark.parametrize("name", _PAGES)
def test_no_sentence_is_too_long_to_be_read_aloud(name: str) -> None:
    long = [" ".join(words) for words in sentences(_PAGES[name]) if len(words) > _LONGEST]

    assert long == []


@pytest.mark.parametrize("name", _PAGES)
def test_nothing_is_installed_from_an_index_that_lacks_it(name: str) -> None:
    # The package is on no public index: what installs it names a folder.
    for wanted in re.findall(r"pip install ([^`\n]+)", _PAGES[name]):
        assert not wanted.strip("'").startswith("bimix"), f"pip install {wanted}"


def test_the_tools_that_are_counted_are_there() -> None:
    plain = {"yaml", "json", "csv"}
    counted = re.search(r"the forms of (\w+) tools", _PAGES["docs/how-to/export.md"])

    assert counted is not None
    assert plain < FORMATS.keys()
    assert counted[1] == _NUMBERS[len(FORMATS.keys() - plain)]
    assert not [name for name, page in _PAGES.items() if re.search(r"(?:twelve|ten|nine) trainers", page)]
