"""Analyses beside the runs they are of: written once, the newest marked as recommended, found again."""

from __future__ import annotations

import time

from mlflow.entities import Metric, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_integrations.trackers.mlflow.artifacts import read_text, refused
from bimix_integrations.trackers.mlflow.params import log_params
from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_integrations.trackers.mlflow.tags import PREFIX, of_manifest, requests
from bimix_tracking.errors import SourceError
from bimix_tracking.tracking.params import params
from bimix_tracking.tracking.ports import WriteBack

KEY = f"{PREFIX}analysis_key"
RECOMMENDED = f"{PREFIX}recommended"
"""Tag of the experiment (the run's id) and of that run (`true`): the mixture to train on."""
_PARENT = "mlflow.parentRunId"
_MAX_NOTE = 8000


def write(store: Store, analysis: WriteBack) -> str:
    """Write a run of role `analysis`, tag the runs it is of with its id, and say where it is; one of that key stays.

    Raises:
        SourceError: The store doesn't take it.
    """
    try:
        store.experiment(store.reader())  # so that MLflow doesn't make what isn't there
        experiment = store.experiment_id(create=False)
        there = _find(store, experiment, analysis.key)
        run_id = _new(store, experiment, analysis) if there is None else there.info.run_id
        _recommend(store, experiment, run_id)
    except MlflowException as error:
        raise SourceError(f"{store.shown}: the analysis was not written: {store.redacted(error)}") from None
    if store.tracking_uri.startswith("http"):
        # Else MLflow opens its pages for GenAI, where a run of training shows little.
        return f"{store.shown}/#/experiments/{experiment}/runs/{run_id}?workflowType=machine_learning"
    return f"run {run_id} (mlflow ui --backend-store-uri {store.shown})"


def find(store: Store, key: str | None) -> str | None:
    """Return the `mixture.yaml` of the analysis of a key, or of the recommended one; None where there is none.

    Raises:
        SourceError: The store, or the analysis's artifacts, cannot be read.
    """
    try:
        reader = store.reader()
        experiment = store.experiment(reader)
        if key is not None:
            finished = (run for run in reader.tagged(experiment, KEY, key) if run.info.status == "FINISHED")
            run = next(finished, None)
        else:
            run_id = experiment.tags.get(RECOMMENDED)
            run = None if run_id is None else reader.run(run_id)
        return None if run is None else read_text(store, run, "bimix/mixture.yaml")
    except UnicodeDecodeError as error:
        raise SourceError(f"{store.shown}: bimix/mixture.yaml of the analysis is not text: {error}") from error
    except MlflowException as error:
        raise SourceError(f"{store.shown}: MLflow says: {store.redacted(error)}") from None


def _find(store: Store, experiment: str, key: str) -> Run | None:
    # A key is hexadecimal, but it may come from a caller: a quote would end MLflow's string.
    wanted = key.replace("'", "")
    found = store.client.search_runs(
        [experiment], f"tags.`{KEY}` = '{wanted}' and attributes.status = 'FINISHED'", max_results=1
    )
    return found[0] if found else None


def _new(store: Store, experiment: str, analysis: WriteBack) -> str:
    client = store.client
    tags = {f"{PREFIX}source_runs": str(len(analysis.source_runs)), KEY: analysis.key}
    tags["mlflow.note.content"] = analysis.note[:_MAX_NOTE]
    run = client.create_run(experiment, run_name=analysis.name, tags=tags)
    run_id = str(run.info.run_id)
    try:
        for some in requests(of_manifest(analysis.manifest)):
            client.log_batch(run_id, tags=some)
        log_params(client, run_id, params(analysis.manifest))  # to be put beside those of its runs
        now = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in analysis.metrics.items()])
        _put(client, run, analysis)
        for source in analysis.source_runs:
            marks = [RunTag(f"{PREFIX}analysis_run_id", run_id)]
            if analysis.nest and _PARENT not in client.get_run(source).data.tags:
                marks.append(RunTag(_PARENT, run_id))
            client.log_batch(source, tags=marks)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")
    return run_id


def _put(client: MlflowClient, run: Run, analysis: WriteBack) -> None:
    try:
        client.log_artifacts(run.info.run_id, str(analysis.directory), "bimix")
    except MlflowException:
        raise
    except Exception as error:  # each store of artifacts has a package of its own, and that its own errors
        raise refused(run, "written", error) from error


def _recommend(store: Store, experiment: str, run_id: str) -> None:
    client = store.client
    before = client.get_experiment(experiment).tags.get(RECOMMENDED)
    if before == run_id:
        return
    client.set_tag(run_id, RECOMMENDED, "true")
    client.set_experiment_tag(experiment, RECOMMENDED, run_id)
    if before is not None:
        try:
            client.delete_tag(before, RECOMMENDED)
        except MlflowException:  # the run before it has been deleted
            return
