"""Sentences keep what they were made from, and every one that a page may show is there in each language."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bimix_tracking
from bimix_tracking.messages import Said, joined, said, translated
from bimix_tracking.report.language import Language, catalogue, languages

ROOT = Path(bimix_tracking.__file__).parent
TRANSLATED = [code for code in languages() if code != "en"]


def sentences() -> Iterator[tuple[str, str]]:
    """Return the templates of the package, each with where it stands."""
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "said":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value), f"{file.name}:{node.lineno}"
                elif file.name != "language.py":  # whose one is handed on
                    pytest.fail(f"{file.name}:{node.lineno}: the sentence is no literal")
    for file in ROOT.rglob("*.j2"):
        for match in re.finditer(r'_\("((?:[^"\\]|\\.)*)"', file.read_text(encoding="utf-8")):
            yield match[1], file.name


def fields(template: str) -> list[tuple[str, str, str]]:
    """Return the fields of a template with their formats, and what the explorer's script fills in."""
    own = [
        (name, spec or "", turn or "") for _, name, spec, turn in string.Formatter().parse(template) if name is not None
    ]
    return sorted(own) + sorted((name, "", "") for name in re.findall(r"\{\{(\w+)\}\}", template))


@pytest.mark.parametrize("code", TRANSLATED)
def test_every_sentence_has_its_translation_with_the_same_fields(code: str) -> None:
    known, used = catalogue(code), dict(sentences())
    assert {text: where for text, where in used.items() if text not in known} == {}
    assert sorted(set(known) - set(used)) == []
    known = {text: known[text] for text in known if text != "{count}"}  # `quantities.tokens` has more to choose from
    assert {text: known[text] for text in known if fields(text) != fields(known[text])} == {}


values = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), values, max_size=4))
def test_a_sentence_is_its_template_filled_in_any_language(content: dict[str, object]) -> None:
    template = " ".join(f"{name} {{{name}}}" for name in content)
    found = said(template, **content)

    assert found == template.format(**content)
    assert isinstance(found, Said)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):  # noqa: S301  # our own, made here
        assert (again, again.template, again.values) == (found, template, content)
    assert translated(found, {template: f"<{template}>"}.get) == f"<{found}>"
    assert translated(str(found), {template: "other"}.get) == found  # a plain string is nobody's sentence


def test_sentences_within_sentences_are_translated_too() -> None:
    inner = said("{runs} runs", runs=3)
    outer = joined([said("There are {what}.", what=inner), "", "Plain."])
    other = {"{runs} runs": "{runs} 件", "There are {what}.": "{what}あります。"}

    assert outer == "There are 3 runs. Plain."
    assert translated(outer, other.get) == "3 件あります。 Plain."
    assert Language()(outer) == outer


def test_a_name_with_braces_is_no_template() -> None:
    assert said("{name} is", name="{0} {x.__class__}") == "{0} {x.__class__} is"
    assert joined([said("{name}", name="{a}"), "{b}"]) == "{a} {b}"
