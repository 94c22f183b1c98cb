"""The folder or file of a model on the disk."""

from __future__ import annotations

from pathlib import Path

from bimix_tracking.entropy.corpora.tokenizers import fingerprint
from bimix_tracking.errors import CorpusError


def model_files(kind: str, path: str) -> list[Path]:
    """Return a model's files.

    Raises:
        CorpusError: There are none: nothing is fetched from a hub.
    """
    if not path:
        raise CorpusError(f"{kind}: which model? Give its folder or file on the disk: {kind}:PATH")
    root = Path(path)
    found = [root] if root.is_file() else sorted(file for file in root.rglob("*") if _of_the_model(file, root))
    if not found:
        raise CorpusError(f"{kind}:{path}: there is no such model on the disk. Fetch it first, and give its folder")
    return found


def spec(kind: str, path: str, more: str) -> str:
    """Return what a manifest says of a model."""
    return f"{kind}:{Path(path).name} ({more}, {fingerprint(model_files(kind, path))})"


def _of_the_model(file: Path, root: Path) -> bool:
    # What is hidden is a hub's or Git's: it shows when the model was fetched, not what it is.
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
