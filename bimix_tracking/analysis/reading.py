"""Runs of all model sizes of a source, whether or not it was opened to pool them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import SourceError
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.ports import RunSource, wanted_of


def of_all_sizes(source: RunSource, progress: Progress | None = None) -> Observations:
    """Return a source's runs, of whatever model sizes.

    Raises:
        SourceError: It cannot be read.
        ObservationsError: The runs must not be pooled for another reason, or nothing is left to fit.
    """
    try:
        records = source.records(progress)
    except SourceError:  # a table has no records, and what cannot be reached says so again
        return source.observations(progress)
    return pooled(source, records, all_sizes=True)


def pooled(source: RunSource, records: Sequence[RunRecord], *, all_sizes: bool) -> Observations:
    """Return runs that a source has read as observations, as it was opened to pool them.

    Args:
        source: Open.
        records: Of its runs.
        all_sizes: Whether they may be of several model sizes, even if it wasn't opened so.
    """
    wanted = wanted_of(source)
    return replace(wanted, pool_sizes=wanted.pool_sizes or all_sizes).pooled(records, source.uri)
