"""A tracker that keeps what it is given, and fails where it is told to."""

from __future__ import annotations

from collections.abc import Sequence

from bimix_tracking.manifest import RunManifest
from bimix_tracking.tracking import Row


class Tracker:
    """Keeps what it is given; fails where it is told to."""

    uri = "memory:"
    certain = True

    def __init__(self, fails: str = "", *, times: int = 10**9, remote: bool = False) -> None:
        self.remote = remote
        self.fails, self.times = fails, times
        self.rows: list[dict[str, float]] = []
        self.manifests: list[RunManifest] = []
        self.files: dict[str, str] = {}
        self.ended = False
        self.run_id: str | None = None
        self.resumed: tuple[str, int] | None = None

    def adopt_active(self) -> None:
        pass

    def resume(self, run_id: str, rows: int) -> list[dict[str, float]]:
        self.resumed = (run_id, rows)
        return []

    def _perhaps(self, what: str) -> None:
        if what == self.fails and self.times > 0:
            self.times -= 1
            raise ConnectionError(f"no {what}")

    def start(self, manifest: RunManifest) -> None:
        self._perhaps("start")
        self.manifests.append(manifest)

    def log(self, rows: Sequence[Row]) -> None:
        self._perhaps("log")
        self.rows += [dict(row.metrics) for row in rows]

    def write_artifact(self, path: str, text: str) -> None:
        self._perhaps("artifact")
        self.files[path] = text

    def finish(self, *, ended: bool = True) -> None:
        self._perhaps("finish")
        self.ended = True
