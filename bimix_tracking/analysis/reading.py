"""The sweep of an analysis, read from its source: names in the question are checked before, sizes are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bimix_tracking.analysis.question import Question
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import targets_of
from bimix_tracking.errors import ObservationsError, SourceError
from bimix_tracking.progress import Progress
from bimix_tracking.quantities import parameters
from bimix_tracking.tracking.ports import RunSource, Wanted, open_source, wanted_of


def read(
    source: str | RunSource | Observations, wanted: Wanted | None, question: Question, progress: Progress | None
) -> tuple[Observations, RunSource | None]:
    """Return the sweep, and the source it was read from; none of observations that were at hand.

    Args:
        source: As `analyze` takes it.
        wanted: Which runs; for a URI.
        question: What is asked: names in it are checked before anything is read.
        progress: Is told what is read.

    Raises:
        ObservationsError: The runs must not be pooled; or they have several model sizes, and none is asked for.
        ConstraintError: A name that no run has.
        SourceError: The source cannot be read.
        TypeError: Targets are asked of what was opened without them.
    """
    if isinstance(source, Observations):
        if question.targets:
            raise TypeError("observations say themselves what their targets are: give `targets` to `from_wide`")
        return of_one_level(source, question), None
    sized = question.model_size is not None
    if isinstance(source, str):
        wanted = replace(wanted or Wanted(), pool_sizes=True) if sized else wanted
    if question.targets:
        if not isinstance(source, str):
            raise TypeError("an open source says itself what its targets are: open it with `Wanted(targets=…)`")
        wanted = replace(wanted or Wanted(), targets=question.targets)
    options = {} if wanted is None else {"wanted": wanted}
    opened = open_source(source, **options) if isinstance(source, str) else source
    if question.named and (names := names_of(opened)):
        described = targets_of(wanted_of(opened).targets)
        groups = [target.group for target in described.values() if target.group]
        question.check_names([*names, *described, *groups])
    obs = of_all_sizes(opened, progress) if sized else opened.observations(progress)
    return of_one_level(obs, question), opened


def of_one_level(obs: Observations, question: Question) -> Observations:
    """Return the sweep, if it has one model size or one is asked for.

    Raises:
        ObservationsError: It has several, and none is asked for; says what to do.
    """
    if obs.several_sizes and question.model_size is None:
        sizes = ", ".join(parameters(size) for size in obs.model_sizes)
        raise ObservationsError(
            f"the runs have {len(obs.model_sizes)} model sizes ({sizes}), so their losses cannot be compared. Pool "
            "them for one: --model-size 7B, or model_size=7e9. Or analyse them apart: --group-by model_size, or "
            "obs.only(…)"
        )
    return obs


def names_of(source: RunSource) -> list[str]:
    """Return the domains and targets of a source's runs, before any is read; none where that takes reading them.

    Args:
        source: An open one.
    """
    try:
        states = source.states()
    except SourceError:  # a table has none, and what cannot be reached says so when it is read
        return []
    known = [state.names for state in states if state.trouble is None]
    return list(dict.fromkeys(name for names in known for name in names)) if all(known) else []


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
