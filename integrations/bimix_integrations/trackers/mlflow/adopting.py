"""A host's open run: taken over if it is where we were asked to write and holds no other training, else nested under.

Two trainings that begin at one moment, in one process or in two, must not take the same run, and MLflow has no lock:
each puts a claim of its own on the run, and then looks who else has. Whoever sees another's claim steps aside; where
both see one, both do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities import Run, RunTag
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_integrations.trackers.mlflow.tags import KEY, PREFIX, SCHEMA

ADOPTED = f"{PREFIX}adopted"
"""Tag of a run that a host has opened, and ends."""
_CLAIM = f"{PREFIX}claim."
_logger = logging.getLogger(__name__)


def found(client: MlflowClient, run_id: str) -> Run | None:
    """Return a run; None where there is none, or it is deleted."""
    try:
        run: Run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no id at all
            return None
        raise
    return run if run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def of_key(client: MlflowClient, experiment_id: str, key: str) -> Run | None:
    """Return the run that was opened for a training, though nobody has noted its id."""
    runs = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key.replace(chr(39), '')}'", max_results=1)
    return runs[0] if runs else None


@dataclass(frozen=True)
class Training:
    """What a training asks of a run.

    Args:
        key: Names it.
        name: What its run is to be called, if anybody has said.
        resumed: The run that it was in before.
    """

    key: str
    name: str | None
    resumed: str | None

    def adopted(self, store: Store, offered: Sequence[str]) -> tuple[Run | None, str | None]:
        """Return the first of a host's runs that is free, now taken; where none is, the one to be nested under.

        Args:
            store: Where we were asked to write.
            offered: Ids of runs in that store.
        """
        parent: str | None = None
        for run_id in offered:
            run = found(store.client, run_id)
            if run is None or not store.holds(str(run.info.experiment_id)):
                continue
            why = self._why_not(run) or self._take(store.client, run)
            if why is None:
                return run, None
            _logger.info("run %s belongs to another: a run of ours is nested under it: %s", run_id, why)
            parent = parent or run_id
        return None, parent

    def _ours(self, run: Run) -> bool:
        return run.info.run_id == self.resumed or run.data.tags.get(KEY) == self.key

    def _why_not(self, run: Run) -> str | None:
        if self._ours(run):
            return None
        if {SCHEMA, KEY} & run.data.tags.keys() or self._claimed_by_others(run):
            return "it holds another training"
        if self.name and self.name != run.info.run_name:
            return f"it is called {run.info.run_name!r}, and ours {self.name!r}"
        return None

    def _take(self, client: MlflowClient, run: Run) -> str | None:
        """Claim a run and mark it as ours; return why that couldn't be done."""
        run_id, claim = run.info.run_id, f"{_CLAIM}{self.key}"
        taken = [RunTag(KEY, self.key), RunTag(ADOPTED, "true")]
        if self._ours(run):
            client.log_batch(run_id, tags=taken)
            return None
        client.log_batch(run_id, tags=[RunTag(claim, str(int(time.time() * 1000)))])
        now = client.get_run(run_id)
        free = KEY not in now.data.tags and not self._claimed_by_others(now)
        if free:
            client.log_batch(run_id, tags=taken)
        client.delete_tag(run_id, claim)
        return None if free else "another training claims it at this moment"

    def _claimed_by_others(self, run: Run) -> bool:
        return any(tag.startswith(_CLAIM) and tag != f"{_CLAIM}{self.key}" for tag in run.data.tags)
