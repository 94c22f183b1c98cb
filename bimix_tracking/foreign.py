"""Runs that were logged without this package: their metric names, and a file that tells their mixtures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bimix_tracking.histories import Point
from bimix_tracking.manifest import RunRecord


@dataclass(frozen=True)
class ForeignRuns:
    """What a mixtures file says; see `from_file`."""

    def record(
        self, run_id: str, name: str, history: Mapping[str, Sequence[Point]], told: Mapping[str, object]
    ) -> RunRecord:
        """Return a run as a record whose metrics have our names."""
        raise NotImplementedError
