"""A tracking server, read by MLflow's own client: what is behind it, and in which form, is the server's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mlflow.entities import Experiment as MlflowExperiment
from mlflow.entities import Run
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.entities.view_type import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_integrations.trackers.mlflow.stores import bulk
from bimix_integrations.trackers.mlflow.stores.experiments import Choice, deleted_experiment, no_experiment
from bimix_integrations.trackers.mlflow.stores.reading import Experiment, Found, Histories
from bimix_tracking.data.histories import Point

_PAGE = 1000


class Server:
    """Read a tracking server.

    Args:
        client: Returns MLflow's client of it, if it answers.
        shown: Its tracking URI without credentials.
        http: Whether it is MLflow's own, with the endpoints of its pages.
    """

    whole = False

    def __init__(self, client: Callable[[], MlflowClient], shown: str, *, http: bool) -> None:
        self._client = client
        self._shown = shown
        self._http = http

    def experiment(self, wanted: Choice) -> Experiment:
        """Return the experiment that is meant."""
        client = self._client()
        found = found_by(client, wanted)
        if found is None:
            raise no_experiment(wanted, self._shown, names_at(client))
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise deleted_experiment(wanted, self._shown)
        return Experiment(str(found.experiment_id), found.name, dict(found.tags))

    def runs(self, experiment: Experiment, condition: str | None = None) -> Found:
        """Return the runs that are not deleted, and that meet a condition."""
        return Found(self._search(experiment, condition or "", "attributes.start_time"))

    def tagged(self, experiment: Experiment, key: str, value: str) -> Sequence[Run]:
        """Return the runs with a tag, the newest first."""
        # It may come from a caller: a quote would end MLflow's string.
        return self._search(experiment, f"tags.`{key}` = '{value.replace(chr(39), '')}'", "attributes.start_time DESC")

    def run(self, run_id: str) -> Run | None:
        """Return the run of an id."""
        try:
            found: Run = self._client().get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == LifecycleStage.ACTIVE else None

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> Histories:
        """Return what the server gives with few requests: it may have cut something off."""
        if not self._http:
            return {}
        try:
            return bulk.read(self._client(), run_ids, metrics)
        except bulk.NoBulkError:
            return {}

    def history(self, run_id: str, metrics: Sequence[str]) -> Mapping[str, Sequence[Point]]:
        """Return the points of some metrics of a run, page by page: slow, and complete whatever the server."""
        client = self._client()
        return {
            name: [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run_id, name)] for name in metrics
        }

    def mended(self, run_id: str) -> Mapping[str, int]:  # a server has its points whole
        """Return nothing: a server has its points whole."""
        return {}

    def _search(self, experiment: Experiment, condition: str, order: str) -> list[Run]:
        client = self._client()
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = client.search_runs(
                [experiment.id],
                condition,
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=_PAGE,
                page_token=token,
                order_by=[order],
            )
            runs += page
            token = page.token
            if not token:
                return runs


def found_by(client: MlflowClient, wanted: Choice) -> MlflowExperiment | None:
    """Return an experiment as MLflow has it, deleted ones too; None where there is none."""
    if wanted.name is not None:
        return client.get_experiment_by_name(wanted.name)
    try:
        return client.get_experiment(str(wanted.id))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # the latter: no id at all
            return None
        raise


def names_at(client: MlflowClient) -> list[str]:
    """Return the names of some experiments, for an error's text."""
    return [experiment.name for experiment in client.search_experiments(max_results=20)]
