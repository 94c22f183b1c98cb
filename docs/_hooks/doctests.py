"""Griffe extension: examples of docstrings (`>>>`) as blocks of code, which Markdown would take for quotations."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"(?:^|(?<=\n\n))(?P<code>>>> .*?)(?=\n\n|\Z)", re.DOTALL)


def fenced(text: str) -> str:
    r"""Return a docstring whose examples are in fences.

    >>> fenced("Say it.\n\n>>> 1 + 1\n2").splitlines()
    ['Say it.', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    return _EXAMPLE.sub(lambda found: f"```pycon\n{found['code'].rstrip()}\n```", text)


class Doctests(griffe.Extension):
    """Fence the examples of each docstring, before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
