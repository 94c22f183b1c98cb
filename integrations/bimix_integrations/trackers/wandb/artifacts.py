"""Text files of W&B artifacts: found by name, read within a size limit, never at a path that the server chooses."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import wandb
from wandb.apis.public import Api
from wandb.errors import CommError

from bimix_integrations.trackers.wandb.project import is_absent
from bimix_tracking.errors import SourceError

LARGEST = 2**28
"""Bytes of a file that are read at most: what a tracker holds is not ours to trust."""
_LONGEST_NAME = 128


def run_artifact(run_id: str) -> str:
    """Return the name of the artifact that holds a run's files.

    >>> run_artifact("ab/12")
    'bimix-run-ab_12'
    """
    return f"bimix-run-{re.sub(r'[^A-Za-z0-9_.-]', '_', run_id)}"[:_LONGEST_NAME]


def find(api: Api, path: str) -> wandb.Artifact | None:
    """Return an artifact's version by `ENTITY/PROJECT/NAME:ALIAS`; None where there is none."""
    try:
        found: wandb.Artifact = api.artifact(path)
    except CommError as error:
        if is_absent(error):
            return None
        raise
    return found


def read_text(artifact: wandb.Artifact, path: str) -> str | None:
    """Return a text file of an artifact; None where it has none of that path.

    Raises:
        SourceError: It is larger than any of ours, or would be fetched from, or written to, somewhere else.
    """
    entries = artifact.manifest.entries
    entry = entries.get(path)
    if entry is None:
        return None
    # A reference may point at a file of this machine; and what begins with the path is fetched along with it.
    if entry.ref is not None or any(name.startswith(path) and name != path for name in entries):
        raise SourceError(
            f"{path} of artifact {artifact.name} is a reference, or has others below it: not written by this package"
        )
    if (entry.size or 0) > LARGEST:
        raise SourceError(f"{path} of artifact {artifact.name} has {entry.size:,} bytes: not written by this package")
    with TemporaryDirectory() as folder:
        artifact.download(root=folder, path_prefix=path, skip_cache=True)
        target = Path(folder) / path
        if not target.is_file() or target.stat().st_size > LARGEST:
            raise SourceError(
                f"{path} of artifact {artifact.name} is not what its manifest says: not written by this package"
            )
        return target.read_text(encoding="utf-8")
