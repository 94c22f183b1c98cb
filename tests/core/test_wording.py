"""Sentences keep what they were made from, and every one that a page may show is there in each language."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import string
from collections.abc import Iterator
from functools import cache
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


WINGS = (
    # Wings of the core, and what stands beside them.
    "analysis", "cli", "data", "design", "display", "entropy", "exports", "files", "fitting", "laws", "recommendation",
    "recording", "report", "selection", "tracking", "errors.py", "messages.py", "mixture.py", "plugins.py",
    "progress.py", "quantities.py", "../integrations/bimix_integrations",
)  # fmt: skip
"""Folders and files whose texts are checked, relative to the package's own."""
MOST_WORDS = 25
NOT_ENGLISH = {
    "left-out mixtures (held-out; excluded)": r"\bleft[- ]out\b|\bleaving one out\b|\bleave (?:it|them) (?:out|away)\b",
    "mixtures not seen (held-out)": r"\bunseen\b|\b(?:not|hasn't|hadn't|never) seen\b",
    "off on, off by (error)": r"\boff (?:by|on)\b|\b(?:is|are|be) off\b",
    "set aside (excluded)": r"\bset(?:s|ting)? (?:it |them )?aside\b",
    "drawn again (run-level bootstrap, replicates)": r"\bdrawn again\b|\bdrawing runs\b|\brefits to whole runs\b",
    "was no candidate (not eligible)": r"\bno candidates?\b",
    "may be wrong isn't in it (excludes model misspecification)": r"\bform may be wrong\b",
    "standard deviation about the law (residual standard deviation of a run)": r"\bdeviation about\b|\bone run's\b",
    "used as told (kept; nominal share used)": r"\bas told\b|\bused, but\b",
    "nearly as good (near-optimal range)": r"\bnearly (?!converged)",
    "what more runs could win (expected regret); win (gain)": r"\bmore runs could\b|\b(?:would|could) win\b",
    "price (cost)": r"\bprices?\b",
    "told, telling (known, identifiable)": r"\btold\b|\btells?\b|\btelling\b",
    "smallest proportion in the law (proportion floor)": r"\bsmallest proportion in the law\b",
    "the order of the day, where this comes from (workflow, provenance)": r"\border of the day\b|\bthis comes from\b",
    "how sure, chance alone (uncertainty, noise)": r"\bhow sure\b|\bchance alone\b|\bunsure\b",
    "says nothing, nothing is known of (unknown)": r"\bsays? nothing\b|\bnothing is known\b|\bis known of\b",
    "goes on, gone on with (continues, resumed)": r"\b(?:goes|gone) on\b",
    "nobody, none of ours, stands twice, mended": r"\bnobody\b|\bnone of ours\b|\bstands twice\b|\bmend(?:ed|s)?\b",
}
"""What an engineer of this field doesn't say (and says instead), as a pattern."""


@cache
def texts() -> list[tuple[str, str]]:
    """Return every text in the source but docstrings, formulas and code, with `{}` for fields, and where it stands."""
    return list(_read())


def _read() -> Iterator[tuple[str, str]]:
    for wing in WINGS:
        root = (ROOT / wing).resolve()
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    apart |= {id(part) for part in ast.walk(node) if part is not node}
            for node in ast.walk(tree):
                if isinstance(node, ast.expr) and id(node) not in apart and len((text := _text(node)).split()) > 1:
                    yield text, f"{file.parent.name}/{file.name}:{node.lineno}"
        for file in sorted(root.rglob("*.j2")):
            for match in re.finditer(r'_\("((?:[^"\\]|\\.)*)"', file.read_text(encoding="utf-8")):
                yield _plain(match[1]), f"{file.parent.name}/{file.name}"


def _text(node: ast.AST) -> str:
    """Return a literal as a reader gets it; nothing of shell scripts, SQL, formulas and lists of names."""
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = _plain(node.value)
    else:
        return ""
    return "" if re.search(r"\n.*\n|\bSELECT\b|\^-?|^txt ", text) else text


def _plain(template: str) -> str:
    return re.sub(r"\{+[^{}]*\}+", "{}", template)


def test_no_sentence_is_longer_than_one_says_in_a_breath() -> None:
    long = {
        where: sentence
        for text, where in texts()
        for sentence in re.split(r"(?<=[.!?])\s+", text)
        if len(sentence.split()) > MOST_WORDS
    }
    assert long == {}


@pytest.mark.parametrize("what", NOT_ENGLISH)
def test_the_words_are_the_field_s(what: str) -> None:
    pattern = re.compile(NOT_ENGLISH[what], re.IGNORECASE)
    assert {where: text for text, where in texts() if pattern.search(text)} == {}


def test_the_texts_are_found() -> None:
    found = {text for text, _ in texts()}

    assert len(found) > 900
    assert "held-out error" in found
    assert "{} is not installed. Run: {}" in found


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
