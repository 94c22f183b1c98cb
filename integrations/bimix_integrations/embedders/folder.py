"""The folder or file of a model on the disk."""

from __future__ import annotations

from pathlib import Path

from bimix_tracking.errors import CorpusError
from bimix_tracking.tokens import fingerprint


def model_files(kind: str, path: str) -> list[Path]:
    """Return a model's files.

    Raises:
        CorpusError: There are none: nothing is fetched from a hub.
    """
    root = Path(path)
    found = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    if not found:
        raise CorpusError(f"{kind}:{path}: there is no such model on the disk. Fetch it first, and give its folder")
    return found


def spec(kind: str, path: str, more: str) -> str:
    """Return what a manifest says of a model."""
    return f"{kind}:{Path(path).name} ({more}, {fingerprint(model_files(kind, path))})"
