"""Where journals lie: one folder each, in the spool."""

from __future__ import annotations

import os
from pathlib import Path

from bimix_tracking.errors import SourceError

DELIVERY = "delivery.json"
"""The file of a journal that makes its folder one."""
FOLDER = 0o700
"""Rights of its folder."""


def spool() -> Path:
    """Return the folder of the journals: `BIMIX_SPOOL`, or `bimix-spool` in the working directory."""
    return Path(os.environ.get("BIMIX_SPOOL") or "bimix-spool").absolute()


def journals(directory: Path) -> list[Path]:
    """Return the folders of the journals in a spool, or that of one journal, oldest first.

    Raises:
        SourceError: There is none.
    """
    found = (
        [directory]
        if (directory / DELIVERY).exists()
        else sorted((path.parent for path in directory.glob(f"*/{DELIVERY}")), key=lambda path: path.stat().st_mtime)
    )
    if not found:
        raise SourceError(f"{directory} holds no journal (a folder with {DELIVERY}); is it the right folder?")
    return found


def made(folder: Path) -> None:
    """Make a folder that is its owner's alone; a spool that is there may be shared, and stays so."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(FOLDER, exist_ok=True)
