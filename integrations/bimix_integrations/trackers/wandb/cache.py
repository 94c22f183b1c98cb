"""What was read of finished runs, kept on the local disk as JSON: a run that ended doesn't change.

Only their owner can read the files: they hold what only members of a team can see at W&B.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bimix_tracking.data.manifest import parse_json

LARGEST = 2**25
"""Bytes of one run at most: what is larger is read again."""
LARGEST_ALL = 2**29
"""Bytes of all runs at most: the ones not used for longest go first."""
_SCHEMA = 1


def folder() -> Path:
    """Return the cache's folder: `BIMIX_CACHE`, else `bimix` in the user's cache directory."""
    named = os.environ.get("BIMIX_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(named) if named else home / "bimix") / "wandb"


def find(place: Sequence[str], state: Sequence[object]) -> Any:
    """Return what was kept of a run in that state; None where there is nothing, or nothing that can be read.

    Args:
        place: Server, entity, project, run id, and what was read of it.
        state: What changes whenever the run does, as JSON types.
    """
    path = _path(place)
    try:
        if path.stat().st_size > LARGEST:
            return None
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA or content["place"] != list(place) or content["state"] != list(state):
            return None
        os.utime(path)
        return content["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(place: Sequence[str], state: Sequence[object], content: Any) -> None:
    """Keep what was read of a run; a cache that cannot be written is none."""
    text = json.dumps({"schema": _SCHEMA, "place": list(place), "state": list(state), "content": content})
    if len(text) > LARGEST:
        return
    path = _path(place)
    with contextlib.suppress(OSError):
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(0o700, exist_ok=True)
        path.parent.chmod(0o700)  # one that an earlier version has made
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as part:
            part.write(text)
        Path(part.name).replace(path)


def trim() -> None:
    """Delete what was not used for longest, down to `LARGEST_ALL`."""
    with contextlib.suppress(OSError):
        found = sorted(((file.stat(), file) for file in folder().iterdir()), key=lambda f: -f[0].st_mtime)
        total = 0
        for stat, file in found:
            total += stat.st_size
            if total > LARGEST_ALL:
                file.unlink(missing_ok=True)


def _path(place: Sequence[str]) -> Path:
    # A run's id may be anything that somebody chose: no part of a file's name.
    return folder() / f"{hashlib.sha256(json.dumps(list(place)).encode()).hexdigest()[:32]}.json"
