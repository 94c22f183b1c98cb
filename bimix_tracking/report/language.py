"""The languages that a page can be in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

from bimix_tracking.messages import Said, said, translated

LANGUAGES = ("en", "ja")
"""English, which the sentences are written in, and those with a catalogue beside this module."""


class Language:
    """Says sentences in one language.

    Args:
        code: One of `LANGUAGES`.

    Raises:
        ValueError: No such language.

    >>> Language("en")(said("{runs} runs", runs=3))
    '3 runs'
    >>> Language("fr")
    Traceback (most recent call last):
    ValueError: there is no report in 'fr'; there are en, ja
    """

    def __init__(self, code: str = "en") -> None:
        if code not in LANGUAGES:
            raise ValueError(f"there is no report in {code!r}; there are {', '.join(LANGUAGES)}")
        self.code = code

    def __call__(self, text: str) -> str:
        """Return a sentence of `said` in this language; a name or a number stays as it is."""
        return str(text) if self.code == "en" else translated(text, catalogue(self.code).get)

    def template(self, template: str, **values: object) -> str:
        """Return a sentence that a template of a page holds: a literal, with its fields."""
        return self(template if isinstance(template, Said) else said(template, **values))


@cache
def catalogue(code: str) -> Mapping[str, str]:
    """Return a language's sentences by the English ones."""
    text = resources.files("bimix_tracking.report").joinpath(f"{code}.yaml").read_text(encoding="utf-8")
    sentences: dict[str, str] = yaml.safe_load(text) or {}
    return sentences
