"""What a law says in its replicates, and quantiles over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimix_tracking.laws.protocol import Array, Inputs, Law


def drawn_losses(law: Law, theta: Array, own: int, inputs: Inputs, tangent_at: Array | None) -> Array:
    """Return the losses of one target in each replicate, shape (replicates, rows).

    Args:
        law: The law.
        theta: Its θ in each replicate.
        own: The target's place among the domains.
        inputs: Where.
        tangent_at: θ of the fit, where replicates are steps from it: then losses follow the tangent, as the steps did,
            for the law at the end of a straight step leaves the valley. None: the law itself.
    """
    if tangent_at is None:
        return np.asarray(np.exp(law.blocks(theta, np.full(len(theta), own, np.intp), inputs).log_loss[..., 0]))
    found = law.blocks(tangent_at[None], np.array([own], np.intp), inputs)
    along = (theta - tangent_at) @ found.jacobian()[0, :, 0].T
    return np.asarray(np.exp(found.log_loss[0, :, 0] + along))


def quantiles(residuals: Array, at: Sequence[float]) -> Array:
    """Return quantiles of each column, shape (quantiles, …); NaN where no replicate has a value."""
    known = ~np.isnan(residuals).all(axis=0)
    found = np.full((len(at), *residuals.shape[1:]), np.nan)
    found[:, known] = np.nanquantile(residuals[:, known], at, axis=0)
    return found
