"""A fit at the model size that is asked for, or at the one that stands for it."""

from __future__ import annotations

from bimix_tracking.data.model_sizes import MEANT, checked_size
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import said
from bimix_tracking.quantities import parameters
from bimix_tracking.quantities import tokens as tokens_shown


def at_size(fit: LawFit, replicates: Replicates | None, model_size: float | None) -> tuple[LawFit, Replicates | None]:
    """Return a fit and its replicates at a model size; as they are where the level at that size is unknown.

    Args:
        fit: The fit.
        replicates: Its own; None: there are none.
        model_size: Parameters; None: as they are.

    Raises:
        RecommendationError: The size is smaller than all that were run, or no size.
    """
    if model_size is None:
        return fit, replicates
    try:
        checked_size(model_size)
    except ValueError as error:
        raise RecommendationError(str(error)) from None
    observed = () if fit.bridge is None else fit.bridge.observed
    if observed and model_size * MEANT < observed[0]:
        raise RecommendationError(
            f"{parameters(model_size)} parameters are fewer than any run has ({parameters(observed[0])} or more)"
        )
    try:
        return fit.at(model_size), None if replicates is None else replicates.at(model_size)
    except ValueError:  # the level is unknown: the ranking of mixtures stands
        return fit, replicates


def standing_in(fit: LawFit, tokens: float, model_size: float | None) -> tuple[float, str | None]:
    """Return the data volume at which a fit answers for a run, and what is said where that is another's.

    Of several sizes, none of which tells the level at the one asked for, the largest stands for it: at the end of its
    own runs, for what mixtures do is alike at the same progress.

    Args:
        fit: At the size that it has, as `at_size` returns it.
        tokens: Of the run.
        model_size: Of the run's model; None: the fit's.
    """
    bridge, own = fit.bridge, fit.model_size
    if bridge is None or own is None or model_size is None or len(bridge.observed) < 2:
        return tokens, None
    try:
        bridge.of(model_size)
    except ValueError:
        volume = bridge.of(own).schedule
        return volume, said(
            "no run has {size} parameters: all figures are those of {own} models at the end of their runs "
            "({volume} tokens). Run one mixture at {size} to know that level",
            size=parameters(model_size),
            own=parameters(own),
            volume=tokens_shown(volume),
        )
    return tokens, None
