"""Levels: what all runs have in common at a checkpoint beside the laws, such as the learning-rate schedule's part."""

from __future__ import annotations

import numpy as np

from bimix_tracking.laws.protocol import Array

SAME_VOLUME = 1.02
"""Data volumes within this factor of one another are one: between them no fall with the tokens is identifiable."""
Levels = tuple[tuple[float, float], ...]
"""(tokens, log loss above the law) of checkpoints, in the order of tokens."""


def level_at(levels: Levels, volume: Array) -> Array:
    """Return δ at each volume: interpolated in log s between the knots that `faded` has, 0 beyond them.

    >>> level_at(((1e6, 0.0), (4e6, 0.02)), np.array([2e6, 4e6, 8e6, 1.6e7])).round(9)
    array([0.01, 0.02, 0.01, 0.  ])
    """
    if not levels:
        return np.zeros(len(volume))
    at, level = np.array(faded(levels)).T
    return np.asarray(np.interp(np.log(volume), np.log(at), level))


def raised(levels: Levels, volume: Array) -> Array:
    """Return δ at each volume where it is a model size's: interpolated in log s, the first and last knot's beyond them.

    >>> raised(((1e6, 0.0), (4e6, 0.02)), np.array([5e5, 2e6, 8e6])).round(9)
    array([0.  , 0.01, 0.02])
    """
    if not levels:
        return np.zeros(np.shape(volume))
    at, level = np.array(levels).T
    return np.asarray(np.interp(np.log(volume), np.log(at), level))


def faded(levels: Levels) -> Levels:
    """Return levels with a 0 added at either end, the usual step between checkpoints (median, in log s) away.

    What schedule and order of the data do at a checkpoint doesn't end there: dropped at once, it would make a forecast
    for a little more than the last checkpoint's tokens jump by all of it. Nor is anything known of it further away.

    >>> faded(((1e6, 0.01), (4e6, 0.02)))
    ((250000.0, 0.0), (1000000.0, 0.01), (4000000.0, 0.02), (16000000.0, 0.0))
    """
    if not levels:
        return ()
    at = np.array([tokens for tokens, _ in levels])
    step = float(np.median(at[1:] / at[:-1])) if len(at) > 1 else SAME_VOLUME
    return ((levels[0][0] / step, 0.0), *levels, (levels[-1][0] * step, 0.0))
