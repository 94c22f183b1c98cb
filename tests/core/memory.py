"""A tracker that keeps what it is given, fails where it is told to, and refuses what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import RefusedError
from bimix_tracking.tracking.ports import Row

Refuses = Callable[[str, float], bool]


class Tracker:
    """Keeps what it is given; fails or refuses for good where it is told to.

    Args:
        fails: The call that raises an outage: `start`, `log`, `artifact` or `finish`.
        times: How often.
        remote: As the protocol has it.
        refused: Calls that are refused for good.
        refuses: Whether a metric of a name and value is refused for good.
    """

    uri = "memory:"
    certain = True

    def __init__(
        self,
        fails: str = "",
        *,
        times: int = 10**9,
        remote: bool = False,
        refused: Sequence[str] = (),
        refuses: Refuses | None = None,
    ) -> None:
        self.remote = remote
        self.fails, self.times = fails, times
        self.refused, self.refuses = refused, refuses
        self.rows: list[dict[str, float]] = []
        self.times_of: list[float] = []
        self.manifests: list[RunManifest] = []
        self.files: dict[str, str] = {}
        self.calls: list[str] = []
        self.others: list[Tracker] = []
        self.ended = self.failed = False
        self.run_id: str | None = None
        self.run_name: str | None = None
        self.key: str | None = None
        self.resumed: tuple[str | None, int] | None = None

    def another(self) -> Tracker:
        other = Tracker(self.fails, times=self.times, remote=self.remote, refused=self.refused, refuses=self.refuses)
        other.run_name = self.run_name
        self.others.append(other)
        return other

    def adopt_active(self) -> None:
        pass

    def resume(self, run_id: str | None, rows: int) -> list[dict[str, float]]:
        self._perhaps("resume")
        self.resumed = (run_id, rows)
        return []

    def _perhaps(self, what: str) -> None:
        self.calls.append(what)
        if what == self.fails and self.times > 0:
            self.times -= 1
            raise ConnectionError(f"no {what}")
        if what in self.refused:
            raise RefusedError(f"never a {what}")

    def start(self, manifest: RunManifest) -> None:
        self._perhaps("start")
        self.run_id = self.run_id or f"run-{id(self)}"
        self.manifests.append(manifest)

    def log(self, rows: Sequence[Row]) -> None:
        self._perhaps("log")
        for row in rows:
            for name, value in row.metrics.items():
                if self.refuses is not None and self.refuses(name, value):
                    raise RefusedError(f"no metric {name!r} of value {value}")
        self.rows += [dict(row.metrics) for row in rows]
        self.times_of += [row.time for row in rows]

    def write_artifact(self, path: str, text: str) -> None:
        self._perhaps("artifact")
        self.files[path] = text

    def finish(self, *, ended: bool = True) -> None:
        self._perhaps("finish")
        self.ended, self.failed = ended, not ended
