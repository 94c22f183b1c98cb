"""The runs that panels draw: those of the law, and the anchor runs of the same level that it wasn't fitted to."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.scale.bridge import Bridge


def drawn(observations: Observations, fitted: Observations, bridge: Bridge | None) -> Observations:
    """Return the runs at the level of the reference size: as fitted, and the anchors as they are.

    Args:
        observations: The runs of all sizes, as read.
        fitted: Those that the law was fitted to.
        bridge: Between their sizes.
    """
    if bridge is None or bridge.rough or not bridge.known:
        return fitted
    left = [run for run in bridge.of_reference.runs if run in observations.runs and run not in fitted.runs]
    if not left:
        return fitted
    rows = observations.losses[observations.losses["run"].isin(left)]
    return replace(
        fitted,
        mixtures=pd.concat([fitted.mixtures, observations.mixtures.loc[left]]),
        losses=pd.concat([fitted.losses, rows[list(fitted.losses.columns)]], ignore_index=True),
        sizes={**fitted.sizes, **{run: observations.sizes[run] for run in left}},
        reference=bridge.reference,
    )
