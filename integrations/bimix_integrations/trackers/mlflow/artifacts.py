"""Text artifacts of a run: read whole, within a size limit, without a progress bar a file."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow.entities import Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.utils.file_utils import get_local_path_or_none
from mlflow.utils.rest_utils import http_request

from bimix_integrations.trackers.mlflow.refusals import RefusedForGoodError, artifact_is_refused
from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import SourceError

LARGEST = 2**28
"""Bytes of an artifact that are read at most: what a tracker holds is not ours to trust."""
_PACKAGES = {
    "s3": "boto3",
    "b2": "boto3",
    "gs": "google-cloud-storage",
    "wasbs": "azure-storage-blob azure-identity",
    "abfss": "azure-storage-file-datalake azure-identity",
    "hdfs": "pyarrow",
    "sftp": "pysftp",
}
"""What MLflow needs for artifacts at an address of that scheme."""
_BEHIND_A_SERVER = "mlflow-artifacts:"


class ArtifactError(SourceError):
    """Artifacts that cannot be read or written from here: a package is missing, or rights, or the place itself."""


def read_text(store: Store, run: Run, path: str) -> str | None:
    """Return a text artifact of a run, or None where there is none.

    Raises:
        ArtifactError: The run's artifacts cannot be read from here.
        SourceError: It is larger than any of ours.
        UnicodeDecodeError: It is not text.
    """
    root = run.info.artifact_uri
    if not root:
        return None
    local = get_local_path_or_none(root)
    if local is not None:
        return _from_file(run, Path(local), path)
    if root.startswith(f"{_BEHIND_A_SERVER}/") and not root.startswith(f"{_BEHIND_A_SERVER}//") and not store.http:
        raise ArtifactError(
            f"the artifacts of run {run.info.run_id} are behind its MLflow server ({root}): name its http address"
        )
    try:
        # Not the client's own list: it asks the tracking store three times more, for models that might be the run's.
        repository = get_artifact_repository(root, tracking_uri=store.tracking_uri)
        listed = {file.path: file for file in repository.list_artifacts(path.rpartition("/")[0])}
        if path not in listed:
            return None
        _check(run, path, listed[path].file_size or 0)
        with TemporaryDirectory() as folder:
            target = Path(folder) / "artifact"
            # MLflow's public way draws a progress bar for each file of each run.
            repository._download_file(path, str(target))  # noqa: SLF001
            content = target.read_bytes()
    except SourceError:
        raise
    except Exception as error:  # each store of artifacts has a package of its own, and that its own errors
        raise refused(run, "read", error) from error
    return content.decode("utf-8")


def write_text(store: Store, run: Run, path: str, text: str) -> None:
    """Write a text artifact of a run, over an earlier one of that path.

    Raises:
        RefusedForGoodError: The run's artifacts cannot be written from here.
        ArtifactError: They couldn't be written just now.
    """
    root = str(run.info.artifact_uri)
    try:
        repository = get_artifact_repository(root, tracking_uri=store.tracking_uri)
        if isinstance(repository, HttpArtifactRepository):
            # MLflow's own way tries for minutes, also what its server answers for good.
            answer = http_request(
                repository._host_creds,  # noqa: SLF001  # it is nowhere else
                f"/{path}",
                "PUT",
                data=text.encode(),
                extra_headers={"Content-Type": mimetypes.guess_type(path)[0] or "text/plain"},
                max_retries=0,
                raise_on_status=False,
            )
            answer.raise_for_status()
            return
        with TemporaryDirectory() as folder:
            file = Path(folder) / path.rpartition("/")[2]
            file.write_text(text, encoding="utf-8")
            repository.log_artifact(str(file), path.rpartition("/")[0] or None)
    except Exception as error:  # each store of artifacts has a package of its own, and that its own errors
        refusal = refused(run, "written", error)
        if artifact_is_refused(error):
            raise RefusedForGoodError(str(refusal)) from error
        raise refusal from error


def _from_file(run: Run, root: Path, path: str) -> str | None:
    file = root / path
    try:
        if not file.is_file():
            return None
        _check(run, path, file.stat().st_size)
        content = file.read_bytes()
    except OSError as error:
        raise refused(run, "read", error) from error
    return content.decode("utf-8")


def _check(run: Run, path: str, size: int) -> None:
    if size > LARGEST:
        raise SourceError(f"{path} of run {run.info.run_id} has {size:,} bytes: not written by this package")


def refused(run: Run, what: str, error: Exception) -> ArtifactError:
    """Return the error that a run's artifacts cannot be read, or written, and what helps."""
    root = str(run.info.artifact_uri)
    where = f"the artifacts of run {run.info.run_id} ({without_credentials(root)}) cannot be {what}"
    if isinstance(error, ImportError):
        imported = (error.name or "").partition(".")[0]
        needed = _PACKAGES.get(root.partition(":")[0], imported or "mlflow[extras]")
        return ArtifactError(f"{where}: a package is missing. Run: pip install {needed}")
    said = " ".join(without_credentials(str(error)).split())[:300]
    return ArtifactError(f"{where}: {type(error).__name__}: {said}")
