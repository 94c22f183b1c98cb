"""A run's nominal proportions in its config: columns to sort and filter by, and axes of parallel coordinates."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import wandb

from bimix_tracking.tracking.params import MIXTURE

_logger = logging.getLogger(__name__)


def config_of(shares: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return proportions as W&B shows them by `mixture.<slug>`: nested, for W&B's filters take no dots in a key.

    >>> config_of({"code": "0.25", "web": "0.75"}), config_of({})
    ({'mixture': {'code': 0.25, 'web': 0.75}}, {})
    """
    return {MIXTURE: {short: float(share) for short, share in shares.items()}} if shares else {}


def configure(run: wandb.Run, shares: Mapping[str, str]) -> None:
    """Write proportions into a run's config; written again, they are the same.

    Where it has a `mixture` of another value, a host's own, a sweep's parameter or that of a training begun anew, it
    stays, a warning says so, and training goes on: what counts is the manifest.

    Args:
        run: The run.
        shares: Slug → proportion, as `proportions` gives them.
    """
    wanted = config_of(shares)
    there = dict(run.config).get(MIXTURE)
    if not wanted or there == wanted[MIXTURE]:
        return
    if there is None:
        run.config.update(wanted)  # type: ignore[no-untyped-call]  # half-typed
        return
    _logger.warning("run %s has another %r in its config: it stays. The manifest has the mixture", run.id, MIXTURE)
