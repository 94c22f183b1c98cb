"""What is known by name through entry points: ours and third parties' alike."""

from __future__ import annotations

import importlib.metadata
from typing import Any


def named(group: str, name: str) -> Any:
    """Return what an entry point names; the exception tells which names there are.

    Args:
        group: Without `bimix_tracking.`: `formats`, `tokenizers` and so on.
        name: The entry point's.

    Raises:
        KeyError: There is none of that name; its text lists those that there are.

    >>> named("formats", "clay tablets")
    Traceback (most recent call last):
    KeyError: 'datasets, jsonl, megatron, parquet, text, tokens'
    """
    entries = importlib.metadata.entry_points(group=f"bimix_tracking.{group}")
    found = [entry for entry in entries if entry.name == name]
    if not found:
        raise KeyError(", ".join(sorted({entry.name for entry in entries})))
    return found[0].load()
