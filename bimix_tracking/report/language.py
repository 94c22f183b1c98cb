"""The languages that a page can be in."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from bimix_tracking.display.texts import WIDE
from bimix_tracking.errors import did_you_mean
from bimix_tracking.messages import Said, said, translated
from bimix_tracking.plugins import added, of_package
from bimix_tracking.quantities import tokens

_CODE = re.compile(r"[a-z]{2,8}(-[A-Za-z0-9]{2,8})*")
"""A language as HTML's `lang` has it."""


@cache
def languages() -> tuple[str, ...]:
    """Return the codes: English, which the sentences are written in; those with a catalogue here; other packages'.

    >>> languages()[:2]
    ('en', 'ja')
    """
    ours = ("en", *_ours())
    return (*ours, *added("language", ours))


class Language:
    """Says sentences in one language.

    Args:
        code: One of `languages()`.

    Attributes:
        code: As HTML's `lang` has it.
        gap: What stands between two sentences.

    Raises:
        ValueError: No such language.
        PluginError: It is another package's, and cannot be used; names the package.

    >>> Language("en")(said("{runs} runs", runs=3))
    '3 runs'
    >>> Language("fr")
    Traceback (most recent call last):
    ValueError: there is no report in 'fr'; choose from 'en', 'ja'

    >>> Language("ja")("41.24 %"), Language("ja")("a name")
    ('41.24%', 'a name')
    """

    def __init__(self, code: str = "en") -> None:
        if code not in languages():
            raise ValueError(f"there is no report in {code!r}; {did_you_mean(code, languages())}")
        self.code = code
        self._find = None if code == "en" else catalogue(code).get
        self.gap = "" if code == "ja" else " "

    def __call__(self, text: str) -> str:
        """Return a sentence of `said` in this language, or a number as it is written there; a name stays as it is."""
        if self._find is None:
            return str(text)
        said_so = translated(text, self._find)
        return japanese(said_so) if self.code == "ja" and (isinstance(text, Said) or _is_number(text)) else said_so

    def template(self, template: str, **values: object) -> str:
        """Return a sentence that a template of a page holds: a literal, with its fields."""
        return self(template if isinstance(template, Said) else said(template, **values))

    def units(self) -> list[tuple[float, str]]:
        """Return the units that large numbers of tokens are counted in, the largest first.

        >>> Language().units()[0], Language("ja").units()
        ((1000000000000.0, 'T'), [(1000000000000.0, '兆'), (100000000.0, '億'), (10000.0, '万')])
        """
        powers = [(10.0**power, self(tokens(10.0**power))) for power in range(12, 2, -1)]
        return [(size, text[1:]) for size, text in powers if re.fullmatch(r"1[^\d,]", text)]


_JAPANESE = (
    (re.compile(r"(?<=\d)[ \u00a0]%"), "%"),
    (re.compile(r"(?<=\d)[ \u00a0]pp\b"), "ポイント"),
    (re.compile(r"(?<=\d)(%?)\u2013(?=[\d\u2212][\d.]*\.\d|\d+%)"), "\\1\u301c"),
    (re.compile("(?:(?<=です)|(?<=ます)|(?<=せん)|(?<=ください)); "), "\u3002"),
    (re.compile(f"(?<=[%{WIDE}])[,;] "), "\u3001"),
    (re.compile(f"(?<=[{WIDE}]): "), "\uff1a"),
    (re.compile(r"(?<=[\u3001\u3002\u300d\uff01\uff09\uff1a\uff1f]) +| +(?=[\u300c\uff08])"), ""),
)
"""What is looked for, and what stands there instead, in this order."""


def japanese(text: str) -> str:
    """Return a Japanese sentence or a number as it is set: no space before %, none beside full-width punctuation.

    What a sentence is joined of brings English separators along, and numbers are printed before it is translated.

    >>> japanese("割合は 12.3–45.6 %。 推奨: code 41 %, web 59 %")
    '割合は 12.3〜45.6%。推奨：code 41%、web 59%'
    """
    for pattern, replacement in _JAPANESE:
        text = pattern.sub(replacement, text)
    return text


def _is_number(text: str) -> bool:
    """Say whether a text is a number or a range, such as cells hold, and no name."""
    return re.fullmatch(r"[<±+−]?[\d.,]+(–[−\d.,]+)?( ± [\d.,]+)?([ \u00a0](%|pp))?", text) is not None


@cache
def catalogue(code: str) -> Mapping[str, str]:
    """Return a language's sentences by the English ones; what a catalogue lacks stays English.

    Raises:
        PluginError: It is another package's, and cannot be used; names the package.
    """
    if code not in _ours():
        return of_package("language", code, lambda found: _checked(found, code))
    import yaml  # noqa: PLC0415  # `--help` lists the languages without it

    text = resources.files("bimix_tracking.report").joinpath(f"{code}.yaml").read_text(encoding="utf-8")
    sentences: dict[str, str] = yaml.safe_load(text) or {}
    return sentences


def _ours() -> list[str]:
    """Return the languages with a catalogue beside this module."""
    files = [file.name for file in resources.files("bimix_tracking.report").iterdir()]
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def _checked(found: Any, code: str) -> Mapping[str, str]:
    """Return another package's catalogue, if its sentences can be filled in as ours are."""
    if not _CODE.fullmatch(code):
        raise ValueError(f"{code!r} is no code of a language, such as fr or pt-BR")
    if not isinstance(found, Mapping):
        raise TypeError(f"a catalogue is a mapping of English sentences to those of the language, not {type(found)}")
    for template, sentence in found.items():
        if not (isinstance(template, str) and isinstance(sentence, str)):
            raise TypeError(f"{template!r} and what it is translated to must be texts")
        if _fields(template) != _fields(sentence):
            raise ValueError(f"the translation of {template!r} has other fields: {sentence!r}")
    return found


def _fields(template: str) -> list[tuple[str, str, str]]:
    """Return the fields of a sentence with their formats, and what the explorer's script fills in."""
    parts = string.Formatter().parse(template)
    own = [(name, spec or "", turn or "") for _, name, spec, turn in parts if name is not None]
    return sorted(own) + sorted((name, "", "") for name in re.findall(r"\{\{(\w+)\}\}", template))
