"""A field by its name, in objects within objects too: `data.text` is `text` of the object `data`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

OTHER_FIELD = "Give the text's field: --text-field FIELD, for one domain DOMAIN=FIELD (text_field, text_fields)"
"""What to do if it isn't there."""
_MOST_NAMED = 10
_LONGEST_NAME = 60
_DEEPEST = 8
"""Objects within objects whose fields are named in an error; a field is found however deep it lies."""


def path_of(name: str, fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names that lead to a field, from the outermost; None if there is no such field.

    A field that is literally called so wins, dots and all: at each level the longest name that is there.

    Args:
        name: Such as `text`, or `data.text`.
        fields: What there is; a value that is a mapping itself holds fields.

    >>> path_of("data.text", {"data": {"text": "inner"}})
    ('data', 'text')
    >>> path_of("data.text", {"data": {"text": "inner"}, "data.text": "outer"})
    ('data.text',)
    """
    if name in fields:
        return (name,)
    end = name.rfind(".")
    while end >= 0:
        inner = fields.get(name[:end])
        rest = path_of(name[end + 1 :], inner) if isinstance(inner, Mapping) else None
        if rest is not None:
            return (name[:end], *rest)
        end = name.rfind(".", 0, end)
    return None


def named(fields: Mapping[str, Any], within: str = "") -> str:
    """Return the names of the first fields there are, for an error; those within objects with dots.

    >>> named({"id": 1, "data": {"text": "a", "url": "b"}})
    "'id', 'data.text', 'data.url'"
    """
    found = [*itertools.islice(_leaves(fields, within), _MOST_NAMED + 1)]
    shown = [repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…") for name in found[:_MOST_NAMED]]
    return ", ".join(shown) + (" and more" if len(found) > _MOST_NAMED else "") or "none"


def _leaves(fields: Mapping[str, Any], within: str, depth: int = 0) -> Iterator[str]:
    for name, value in fields.items():
        called = f"{within}.{name}" if within else name
        if isinstance(value, Mapping) and value and depth < _DEEPEST:
            yield from _leaves(value, called, depth + 1)
        else:
            yield called
