"""What is known by name through entry points: ours and third parties' alike."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from bimix_tracking.errors import BimixError


def named(kind: str, name: str, failing: type[BimixError], said: str = "") -> Any:
    """Return what an entry point of the group `bimix_tracking.<kind>s` names.

    Args:
        kind: `format`, `tokenizer`, `tracker` and so on.
        name: The entry point's.
        failing: The error if there is none of that name.
        said: How the error begins, if it has more to say than the name.

    Raises:
        BimixError: There is none; lists those that there are.

    >>> named("format", "clay", BimixError)
    Traceback (most recent call last):
    bimix_tracking.errors.BimixError: no format 'clay'; there are datasets, jsonl, megatron, parquet, text, tokens
    """
    entries = importlib.metadata.entry_points(group=f"bimix_tracking.{kind}s")
    found = [entry for entry in entries if entry.name == name]
    if not found:
        known = ", ".join(sorted({entry.name for entry in entries}))
        raise failing(f"{said or f'no {kind} {name!r}'}; there are {known}")
    try:
        return found[0].load()
    except AttributeError as error:  # of another version than its package: a package that is missing says so itself
        raise failing(f"{kind} {name!r} cannot be loaded from {found[0].value}: {error}") from error
