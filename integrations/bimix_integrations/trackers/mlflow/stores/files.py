"""MLflow's store of files (`mlruns/`), read as files: MLflow's own reader refuses it, and makes folders in it.

    EXPERIMENT/meta.yaml, EXPERIMENT/tags/NAME
    EXPERIMENT/RUN/meta.yaml, EXPERIMENT/RUN/{params,tags,metrics}/NAME, EXPERIMENT/RUN/artifacts/…

A name with a `/` is a path. A metric's file has a line a point: time, value, step. Git keeps no empty folder, so each
of them may be missing; and a clone is elsewhere than its artifacts' addresses say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.entities.run_status import RunStatus
from mlflow.utils.file_utils import local_file_uri_to_path

from bimix_integrations.trackers.mlflow.stores.experiments import Choice, deleted_experiment, no_experiment
from bimix_integrations.trackers.mlflow.stores.reading import (
    ACTIVE,
    Experiment,
    Found,
    Histories,
    RunFields,
    matching,
    newest_first,
    of_datasets,
    oldest_first,
)
from bimix_tracking.data.histories import Point
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.errors import SourceError
from bimix_tracking.files.yaml_json import load_yaml

_META = "meta.yaml"
_NO_RUNS = {"tags", "datasets", "traces", "models"}
_OF_A_RUN = (_META, "metrics", "params", "tags")
_LARGEST_META = 2**18
_LARGEST_VALUE = 2**20
_LARGEST_METRIC = 2**28
_MOST_NAMES = 100_000


def folder_of(tracking_uri: str) -> Path:
    """Return the folder that a tracking URI names: as it stands there, or as MLflow reads it (`%20`)."""
    literal = tracking_uri.removeprefix("file://") if tracking_uri.startswith("file://") else tracking_uri
    path = Path(literal.removeprefix("file:")).expanduser()
    return path if path.exists() else Path(local_file_uri_to_path(tracking_uri)).expanduser()


class Files:
    """Read a folder `mlruns/`.

    Args:
        root: The folder.
    """

    whole = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, Run] = {}
        self._points: Histories = {}
        self._unread: dict[str, dict[str, int]] = {}

    def experiment(self, wanted: Choice) -> Experiment:
        """Return the experiment that is meant."""
        broken: list[str] = []
        names: list[str] = []
        for folder, fields in self._experiments(broken):
            named = _text(fields, "name") or folder.name
            if not _is(wanted, folder, named):
                names.append(named)
            elif _text(fields, "lifecycle_stage") in (ACTIVE, None):
                return Experiment(folder.name, named, dict(_values(folder / "tags")))
        trash = self._root / ".trash"
        for folder in _folders(trash) if trash.is_dir() else ():
            if _is(wanted, folder, _name_of(folder)):
                raise deleted_experiment(wanted, str(self._root))
        if broken:
            raise SourceError(
                f"there is no {wanted} in {self._root} that can be read; broken are {'; '.join(broken[:3])}"
            )
        raise no_experiment(wanted, str(self._root), names)

    def runs(self, experiment: Experiment, condition: str | None = None) -> Found:
        """Return the runs that are not deleted, and that meet a condition."""
        if of_datasets(condition):
            raise SourceError(f"in a store of files ({self._root}) runs cannot be chosen by their datasets")
        found, broken = [], []
        for folder in _folders(self._root / experiment.id):
            if folder.name in _NO_RUNS or not any((folder / part).exists() for part in _OF_A_RUN):
                continue
            try:
                run = self._run(folder, experiment)
            except (SourceError, OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                broken.append(RunRecord.excluded(folder.name, folder.name, f"the run cannot be read: {why}"))
                continue
            if run is not None:
                found.append(run)
        self._found |= {run.info.run_id: run for run in found}
        return Found(matching(oldest_first(found), condition), broken)

    def tagged(self, experiment: Experiment, key: str, value: str) -> Sequence[Run]:
        """Return the runs with a tag, the newest first."""
        return newest_first(run for run in self.runs(experiment).runs if run.data.tags.get(key) == value)

    def run(self, run_id: str) -> Run | None:
        """Return the run of an id."""
        for folder, _ in self._experiments([]):
            if run_id in {run.name for run in _folders(folder)} - _NO_RUNS:
                return self._run(folder / run_id, Experiment(folder.name, folder.name, {}))
        return None

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return the points of some metrics of some runs."""
        return {run_id: dict(self.history(run_id, metrics)) for run_id in run_ids}

    def history(self, run_id: str, metrics: Sequence[str]) -> dict[str, list[Point]]:
        """Return the points of some metrics of a run."""
        points = self._points.get(run_id, {})
        return {name: points[name] for name in metrics if name in points}

    def mended(self, run_id: str) -> Mapping[str, int]:
        """Return what of a run's files could not be read."""
        return self._unread.get(run_id, {})

    def _experiments(self, broken: list[str]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        if not self._root.is_dir():
            what = "is not a folder" if self._root.exists() else "doesn't exist"
            raise SourceError(f"the store of files {self._root} {what}: is the path right?")
        there = [folder for folder in _folders(self._root) if (folder / _META).exists()]
        if not there:
            inner = self._root / "mlruns"
            hint = f"; is {inner} meant?" if inner.is_dir() else ""
            raise SourceError(f"{self._root} is not an MLflow store: no folder in it has a {_META}{hint}")
        for folder in there:
            try:
                yield folder, _meta(folder)
            except SourceError as error:
                broken.append(str(error))

    def _run(self, folder: Path, experiment: Experiment) -> Run | None:
        """Return a run with its points, None where it is deleted."""
        fields = _meta(folder)
        if _text(fields, "lifecycle_stage") not in (ACTIVE, None):
            return None
        status = fields.get("status")
        artifacts = folder / "artifacts"
        run = RunFields(
            folder.name,
            experiment.id,
            _text(fields, "run_name") or _text(fields, "name"),
            _text(fields, "user_id"),
            RunStatus.to_string(status) if status in RunStatus.all_status() else _text(fields, "status"),
            _whole(fields, "start_time"),
            _whole(fields, "end_time"),
            artifacts.absolute().as_uri() if artifacts.is_dir() else _text(fields, "artifact_uri"),
            tags=dict(_values(folder / "tags")),
            params=dict(_values(folder / "params")),
        )
        unread: dict[str, int] = {}
        points: dict[str, list[Point]] = {}
        for name, file in _named(folder / "metrics"):
            points[name], bad = _read_points(file)
            if bad:
                unread[f"a line of metric {name!r} cannot be read"] = bad
            if points[name]:
                step, time, value = max(points[name])
                run.latest[name] = Metric(name, value, int(time), int(step))
        self._points[folder.name], self._unread[folder.name] = points, unread
        return run.run()


def _folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{root} cannot be read: {error.strerror}") from error


def _meta(folder: Path) -> Mapping[str, Any]:
    path = folder / _META
    try:
        if not path.is_file():
            raise SourceError(f"{path} is missing")
        if path.stat().st_size > _LARGEST_META:
            raise SourceError(f"{path} has {path.stat().st_size:,} bytes: that is none of MLflow's")
        fields = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}") from error
    if not isinstance(fields, dict):
        raise SourceError(f"{path} holds no mapping")
    return fields


def _name_of(experiment: Path) -> str | None:
    try:
        return _text(_meta(experiment), "name")
    except SourceError:
        return None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _whole(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None


def _named(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder and the names that they are of; a pipe, or a folder's link, is none."""
    count = 0
    for root, _, files in os.walk(folder):
        for file in sorted(files):
            path = Path(root) / file
            if path.is_file():
                count += 1
                if count > _MOST_NAMES:
                    raise SourceError(f"{folder} has more than {_MOST_NAMES:,} files")
                yield path.relative_to(folder).as_posix(), path


def _values(folder: Path) -> Iterator[tuple[str, str]]:
    for name, path in _named(folder):
        if path.stat().st_size > _LARGEST_VALUE:
            raise SourceError(f"{path} has {path.stat().st_size:,} bytes: that is not a param or tag")
        yield name, path.read_text(encoding="utf-8", errors="replace")


def _read_points(path: Path) -> tuple[list[Point], int]:
    """Return a metric's points, and how many lines are none: one may be cut off where a writer was killed."""
    if path.stat().st_size > _LARGEST_METRIC:
        raise SourceError(f"{path} has {path.stat().st_size:,} bytes: that is not a metric of a run")
    text = path.read_text(encoding="utf-8", errors="replace")
    points: list[Point] = []
    bad = 0
    fields = 0
    for line in text.splitlines():
        parts = line.split()
        if not parts:
            continue
        fields = fields or min(max(len(parts), 2), 3)
        try:
            time, value, *rest = parts
            # MLflow before 1.0 had no steps
            points.append((int(rest[0]) if fields == 3 else 0, int(time), float(value)))
        except (ValueError, IndexError):
            bad += 1
    if text and not text.endswith("\n") and len(points) > 1 and not bad and points[-1][0] < points[-2][0]:
        points.pop()  # the last step was written half: 10 of 100
        bad += 1
    return points, bad


def _is(wanted: Choice, folder: Path, named: str | None) -> bool:
    return folder.name == wanted.id if wanted.name is None else named == wanted.name
