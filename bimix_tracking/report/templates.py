"""Pages from the templates of this folder: everything is escaped unless it is a figure or a script of ours."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

from bimix_tracking.errors import MissingDependencyError
from bimix_tracking.messages import Said
from bimix_tracking.report.language import Language

_GAP = re.compile("(\u3002(?:</\\w+>)?)\\s+(?=[^\\s<])")
"""A template's space or line break after a full stop of full width."""


def fill(template: str, language: Language, /, **content: object) -> str:
    """Return the page of a template.

    A template says its own sentences by `_("…")`, and every sentence of the content is said in the language too.

    Args:
        template: Its file in this folder.
        language: Of the page.
        content: What it asks for; a `Verbatim` goes in as it is.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    try:
        import jinja2  # noqa: PLC0415  (only pages need it)
    except ModuleNotFoundError as error:
        if error.name != "jinja2":
            raise
        raise MissingDependencyError("jinja2", extra="report") from error
    page = str(_environment(jinja2, language.code).get_template(template).render(**content))
    return page if language.gap else _GAP.sub(r"\1", page)


@cache
def _environment(jinja2: Any, code: str) -> Any:
    """Return where templates are kept once they are compiled, which takes longer than to fill them."""
    language = Language(code)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(own_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: _shown(value, language),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bare"] = lambda text: str(text).removesuffix(" %")  # the unit is in the head of its column
    environment.globals.update(_=lambda text, **values: _whole(language.template(text, **values)), lang=code)
    return environment


def _shown(value: object, language: Language) -> object:
    """Return a sentence, or a number by itself, in the language; what is HTML already stays as it is."""
    if type(value) is Said:
        return _whole(language(value))
    return language(value) if type(value) is str else value


def _whole(sentence: str) -> str:
    """Keep a number and its percent sign on one line."""
    return sentence.replace(" %", "\u00a0%")


class Verbatim(str):
    """SVG or a script of ours, whose texts are escaped: a template takes it as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def own_text(name: str) -> str:
    """Return a file of this folder."""
    return resources.files("bimix_tracking.report").joinpath(name).read_text(encoding="utf-8")
