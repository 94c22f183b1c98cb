"""A run's nominal proportions as its params: columns to sort and filter by, and axes of parallel coordinates."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping

from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_integrations.trackers.mlflow.refusals import for_good
from bimix_tracking.errors import listed

_A_REQUEST = 100
"""Params of one request: MLflow takes no more."""
_logger = logging.getLogger(__name__)


def log_params(client: MlflowClient, run_id: str, wanted: Mapping[str, str]) -> None:
    """Write params; written again, they are the same ones.

    MLflow never changes a param. Where the run has one of that name and another value, a host's own or that of a
    training begun anew, it stays, a warning says so, and training goes on: what counts is the manifest, in the tags.

    Args:
        client: Of the store.
        run_id: The run.
        wanted: Name → value.

    Raises:
        MlflowException: MLflow doesn't take them just now.
    """
    try:
        _log(client, run_id, wanted)
    except MlflowException as error:
        if not for_good(error):
            raise
        _log_absent(client, run_id, wanted)


def _log_absent(client: MlflowClient, run_id: str, wanted: Mapping[str, str]) -> None:
    there = client.get_run(run_id).data.params
    differ = [name for name, value in wanted.items() if there.get(name, value) != value]
    if differ:
        _logger.warning(
            "run %s has other values of %s, and MLflow never changes a param: they stay. The manifest has the mixture",
            run_id,
            listed(differ),
        )
    try:
        _log(client, run_id, {name: value for name, value in wanted.items() if name not in there})
    except MlflowException as error:
        if not for_good(error):
            raise
        _logger.warning("run %s takes no params: %s", run_id, error.message)


def _log(client: MlflowClient, run_id: str, wanted: Mapping[str, str]) -> None:
    entries = iter([Param(name, value) for name, value in wanted.items()])
    while some := list(itertools.islice(entries, _A_REQUEST)):
        client.log_batch(run_id, params=some)
