"""A tracker and its source, over a dictionary: what a database or a service of yours would be asked."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from bimix_tracking import Observations, Wanted
from bimix_tracking.data import RunManifest, RunRecord
from bimix_tracking.errors import SourceError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking import RunState, WriteBack, read_each
from bimix_tracking.tracking.ports import Row

RUNS: dict[str, tuple[RunManifest, dict[int, dict[str, float]], bool]] = {}
"""Id → manifest, rows by step, whether it has ended."""


class MemoryTracker:
    """Writes a run."""

    remote = False
    certain = True

    def __init__(self, uri: str, *, run_name: str | None = None) -> None:
        self.uri, self.run_name = uri, run_name
        self.key: str | None = None
        self.run_id: str | None = None

    def another(self) -> MemoryTracker:
        return MemoryTracker(self.uri, run_name=self.run_name)

    def adopt_active(self) -> None:
        pass

    def resume(self, run_id: str | None, rows: int) -> Sequence[Mapping[str, float]]:
        self.run_id = run_id
        return [] if run_id is None else list(RUNS[run_id][1].values())

    def start(self, manifest: RunManifest) -> None:
        self.run_id = self.run_id or self.run_name or uuid.uuid4().hex
        rows = RUNS[self.run_id][1] if self.run_id in RUNS else {}
        RUNS[self.run_id] = (manifest, rows, False)

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:  # the same rows may come twice
            RUNS[str(self.run_id)][1].setdefault(row.step, {"bimix/step": row.step}).update(row.metrics)

    def write_artifact(self, path: str, text: str) -> None:
        pass

    def finish(self, *, ended: bool = True) -> None:
        manifest, rows, _ = RUNS[str(self.run_id)]
        RUNS[str(self.run_id)] = (manifest, rows, ended)


class MemorySource:
    """Reads them back."""

    def __init__(self, uri: str, *, wanted: Wanted | None = None) -> None:
        self.uri = uri

    def records(self, progress: Progress | None = None) -> list[RunRecord]:
        def read(name: str) -> RunRecord:
            manifest, rows, _ = RUNS[name]
            return RunRecord(name, name, manifest, [rows[step] for step in sorted(rows)])

        return read_each([name for name in RUNS if RUNS[name][2]], read, lambda name: (name, name), progress=progress)

    def observations(self, progress: Progress | None = None) -> Observations:
        return Observations.from_records(self.records(progress), source=self.uri)

    def states(self) -> list[RunState]:
        return [RunState(name, name, run[0].sweep, "finished" if run[2] else "running") for name, run in RUNS.items()]

    def write_back(self, analysis: WriteBack) -> str:
        raise SourceError(f"{self.uri} cannot be written to: use --out")

    def find_analysis(self, key: str | None = None) -> str | None:
        return None
