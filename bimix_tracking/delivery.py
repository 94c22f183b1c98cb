"""A run's rows on their way to its tracker: what fails is kept, told once, and sent again; training goes on."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bimix_tracking import keys
from bimix_tracking.manifest import CURVES, RunManifest
from bimix_tracking.tracking import Tracker


class Delivery:
    """Hand rows to a tracker in their order, each once.

    Args:
        tracker: Where they go; without one they go nowhere, without a complaint.
    """

    def __init__(self, tracker: Tracker | None) -> None:
        self.tracker = tracker
        self._undelivered: list[tuple[dict[str, float], int]] = []
        self._delivered = 0
        self._started = False
        self._failed = False

    def start(self, manifest: RunManifest) -> None:
        """Open the run, or tell it what the manifest has become, and send what is waiting."""
        self._started = False
        self._send(manifest)

    def add(self, row: dict[str, float], step: int, manifest: RunManifest) -> None:
        """Send a row, unless the tracker has failed: then training isn't held up again, and rows wait for `finish`."""
        if self.tracker is not None:
            self._undelivered.append((row, step))
            if not self._failed:
                self._send(manifest)

    def finish(self, manifest: RunManifest, curves: Mapping[str, Any]) -> None:
        """Send what is left and the curves, and end the run; what cannot be sent is saved beside the process."""
        tracker = self.tracker
        if tracker is None:
            return
        self._send(manifest)
        text = json.dumps(curves, indent=1)
        delivered = not self._undelivered and self._guarded(lambda: tracker.write_artifact(CURVES, text))
        if not (self._guarded(tracker.finish) and delivered):
            self._save_locally(text)

    def state_dict(self) -> dict[str, Any]:
        """Return which run this is, how many rows it has, and those it hasn't got yet, as JSON types."""
        return {
            "run_id": getattr(self.tracker, "run_id", None),
            "delivered": self._delivered,
            "undelivered": [[step, row] for row, step in self._undelivered],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> list[Mapping[str, float]]:
        """Continue the run of `state_dict`; return what rows came after that, as far as the tracker has them."""
        tracker, later = self.tracker, list[Mapping[str, float]]()
        if tracker is None:
            return later
        self._delivered = int(state["delivered"])
        self._undelivered = [(dict(row), int(step)) for step, row in state["undelivered"]]
        run_id = state["run_id"]
        if run_id is not None:
            self._guarded(lambda: later.extend(tracker.resume(run_id, self._delivered)))
        return later

    def _send(self, manifest: RunManifest) -> None:
        tracker = self.tracker
        if tracker is None:
            return
        if not self._started:
            self._started = self._guarded(lambda: tracker.start(manifest))
        while self._started and self._undelivered:
            row, step = self._undelivered[0]
            if not self._guarded(partial(tracker.log, row, step)):
                return
            self._undelivered.pop(0)
            self._delivered += 1

    def _guarded(self, call: Callable[[], None]) -> bool:
        """Return whether the tracker took the call: a training run must not die because its tracker did."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # whatever a tracker raises, training goes on
            if not self._failed:
                self._failed = True
                warnings.warn(
                    f"the tracker failed ({type(error).__name__}: {error}). Training goes on; "
                    "rows are kept and sent again when the run finishes",
                    stacklevel=5,
                )
            return False
        return True

    def _save_locally(self, curves: str) -> None:
        directory = Path("bimix-undelivered") / uuid.uuid4().hex[:12]
        what = f"the run's evaluations and {len(self._undelivered)} undelivered rows"
        said = f"{what} are in {directory}; jsonl:{directory.parent} reads them"
        try:
            directory.mkdir(parents=True)
            (directory / Path(CURVES).name).write_text(curves, encoding="utf-8")
            (directory / "rows.jsonl").write_text(_lines(self._undelivered), encoding="utf-8")
        except OSError as error:  # nor does training die because a disk is full
            said = f"{what} could not be saved in {directory.parent} and are lost: {error}"
        warnings.warn(f"the tracker didn't take everything: {said}", stacklevel=4)


def _lines(rows: Sequence[tuple[Mapping[str, float], int]]) -> str:
    return "".join(json.dumps({keys.STEP: step, **row}) + "\n" for row, step in rows)
