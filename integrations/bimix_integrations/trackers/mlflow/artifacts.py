"""Text artifacts of a run: read whole, within a size limit, without a progress bar a file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from bimix_integrations.trackers.mlflow.store import Store
from bimix_tracking.errors import SourceError

LARGEST = 2**28
"""Bytes of an artifact that are read at most: what a tracker holds is not ours to trust."""


def read_text(store: Store, run: Run, path: str) -> str | None:
    """Return a text artifact of a run, or None where there is none.

    Raises:
        SourceError: It is larger than any of ours.
    """
    # Not the client's own list: it asks the tracking store three times more, for models that might be the run's.
    repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=store.tracking_uri)
    listed = {file.path: file for file in repository.list_artifacts(path.rpartition("/")[0])}
    if path not in listed:
        return None
    if (listed[path].file_size or 0) > LARGEST:
        raise SourceError(f"{path} of run {run.info.run_id} has {listed[path].file_size:,} bytes: that is none of ours")
    with TemporaryDirectory() as folder:
        target = Path(folder) / "artifact"
        # MLflow's public way draws a progress bar for each file of each run.
        repository._download_file(path, str(target))  # noqa: SLF001
        return target.read_text(encoding="utf-8")
