"""Which experiment is meant: the one that a URI names, else MLflow's own choice, settled by nothing but looking.

MLflow decides in this order: `mlflow.set_experiment` in this process, `MLFLOW_EXPERIMENT_NAME`, `MLFLOW_EXPERIMENT_ID`,
a provider (Databricks' notebooks, plugins), the experiment of id 0. An id is of one store, and counts only there.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlflow.environment_variables import MLFLOW_EXPERIMENT_ID, MLFLOW_EXPERIMENT_NAME
from mlflow.tracking import fluent
from mlflow.tracking.default_experiment import DEFAULT_EXPERIMENT_ID, registry

from bimix_tracking.errors import SourceError, did_you_mean

BY_ID = "#"
"""What an experiment begins with, in a URI, that is named by its id: a name of that kind can't be given there."""

BY_NAME = "MLFLOW_EXPERIMENT_NAME"
"""What made a choice, where a name in the environment did."""


@dataclass(frozen=True)
class Choice:
    """An experiment, by name or by id.

    Args:
        name: Its name.
        id: Its id, where the name isn't known, or can't be given in a URI.
        by: What chose it, where it isn't the URI.

    >>> str(Choice("sweep")), str(Choice(id="3", by="MLFLOW_EXPERIMENT_ID")), Choice(id="3").fragment
    ("experiment 'sweep'", 'experiment of id 3 (of MLFLOW_EXPERIMENT_ID)', '#3')
    """

    name: str | None = None
    id: str | None = None
    by: str = ""

    def __str__(self) -> str:
        what = f"of id {self.id}" if self.name is None else repr(self.name)
        return f"experiment {what}" + (f" (of {self.by})" if self.by else "")

    @property
    def fragment(self) -> str:
        """What stands for it in a URI, after the `#`."""
        if self.name is None or (self.name.startswith(BY_ID) and self.id is not None):
            return f"{BY_ID}{self.id}"
        return self.name


def chosen(asked: str, *, mlflows_store: bool, shown: str) -> Choice:
    """Return the experiment that is meant now; asks no server, and makes nothing.

    Args:
        asked: What the URI names, if anything.
        mlflows_store: Whether the store is the one that MLflow itself would use here.
        shown: The store without credentials.

    Raises:
        SourceError: MLflow has no choice there.
    """
    if asked.startswith(BY_ID):
        return Choice(id=asked.removeprefix(BY_ID))
    if asked:
        return Choice(asked)
    active = getattr(fluent, "_active_experiment_id", None)  # MLflow tells it nowhere else
    if mlflows_store and active:
        return Choice(id=str(active), by="mlflow.set_experiment")
    name, number = MLFLOW_EXPERIMENT_NAME.get(), MLFLOW_EXPERIMENT_ID.get()
    if name:
        # MLflow refuses an id of another experiment beside it; but `set_experiment` leaves one to all processes below.
        return Choice(name, by=BY_NAME)
    if mlflows_store and number:
        return Choice(id=number, by="MLFLOW_EXPERIMENT_ID")
    found = registry.get_experiment_id() if mlflows_store else DEFAULT_EXPERIMENT_ID
    if found is None:
        raise SourceError(f"{shown} has no default experiment: name one, as in mlflow:/Users/me@example.com/sweep")
    return Choice(id=str(found), by="MLflow's default")


def no_experiment(wanted: Choice, shown: str, known: list[str]) -> SourceError:
    """Return the error that there is no such experiment; it tells those that there are."""
    asked = wanted.name if wanted.name is not None else wanted.id
    return SourceError(f"no {wanted} at {shown}; {did_you_mean(asked, known)}")


def deleted_experiment(wanted: Choice, shown: str) -> SourceError:
    """Return the error that an experiment is deleted."""
    return SourceError(f"{wanted} at {shown} is deleted: restore it, or use another name")
