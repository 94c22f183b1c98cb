"""Where journals lie: one folder each, in the spool, its owner's alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from bimix_tracking.errors import SourceError
from bimix_tracking.files import atomic_file

DELIVERY = "delivery.json"
"""The file of a journal that makes its folder one."""
FOLDER, FILE = 0o700, 0o600
"""Rights of its folder, and of the files in there."""


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


def rows_file(path: Path) -> int:
    """Open a journal's rows; the file is its owner's alone, whatever the umask, and made so where it is there."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | atomic_file.CLOEXEC, FILE)
    if hasattr(os, "fchmod"):  # Windows has it late, and other rights
        with contextlib.suppress(OSError):
            os.fchmod(file, FILE)
    return file
