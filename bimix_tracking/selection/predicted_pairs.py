"""Two sizes whose mixtures differ: those of the larger one, as a law fitted to the smaller one alone predicts them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.fit import fit_law
from bimix_tracking.selection.paired_mixtures import PairedMixtures
from bimix_tracking.selection.size_ranks import LEAST_PAIRED

_FITTED = 6
"""A law of fewer mixtures says too little of others for its errors not to pass for those of the ranks."""
_PREDICTED = "predicted: "


def predicted_pair(
    obs: Observations, pair: PairedMixtures, ends: pd.DataFrame, law: str
) -> tuple[PairedMixtures, pd.DataFrame] | None:
    """Return the mixtures of the larger size, each with a predicted run at the smaller, and all runs' last losses.

    None where there are too few mixtures at either size, or the law can't be fitted.

    Args:
        obs: The sweep.
        pair: Runs of two sizes.
        ends: Last working losses, by run and target.
        law: Which law is fitted to the smaller size.
    """
    small, large = pair.runs
    if small.nunique() < _FITTED or large.nunique() < LEAST_PAIRED:
        return None
    names = list(map(str, large.index))
    try:
        fit = fit_law(obs.only(list(map(str, small.index))), law)
    except ObservationsError:
        return None
    predicted = fit.losses(obs.mixtures.loc[names].to_numpy(float), fit.tokens[1])
    predicted.index = pd.Index([_PREDICTED + name for name in names])
    again = pd.Series(large.to_numpy(), index=predicted.index).rename_axis("run")
    return replace(pair, runs=(again, large)), pd.concat([predicted.reindex(columns=ends.columns), ends.loc[names]])
