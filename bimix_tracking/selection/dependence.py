"""Does a value depend on the mixture at all: a permutation test, and intervals of rank correlations."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm, rankdata, spearmanr

from bimix_tracking.laws.protocol import Array

_PERMUTATIONS = (199, 1999)
"""At first, and where these leave it open."""
_OPEN = 0.2
_RIDGE = 0.5
_LEAST_RANKED = 4
LEVEL = 0.05


def depends(values: Array, shares: Array, own: int = -1) -> float:
    """Return the p-value that values don't depend on the mixture: small where they do.

    The best of three statistics against the same of permuted values: the leave-one-out R² of a ridge regression on the
    square roots of the shares, the largest |Spearman's correlation| with any share, and of a domain's own loss that
    with its own share, where less is expected of more. Exact where the mixtures' values are exchangeable; held-out
    ranks of a law are not, for its predictions are made of the very values.

    Args:
        values: One a mixture, shape (n,).
        shares: Their mixtures, shape (n, domains).
        own: Place of the target's own domain; −1: it has none.

    >>> share = np.linspace(0.1, 0.9, 12)
    >>> mixtures = np.stack([share, 1 - share], axis=1)
    >>> depends(share**2, mixtures), depends(np.tile([0.0, 1.0], 6), mixtures)
    (0.005, 0.79)
    """
    moved = np.ptp(shares, axis=0) > 0
    if not moved.any() or np.ptp(values) == 0:
        return 1.0
    for permutations in _PERMUTATIONS:
        found = _p_value(values, shares, own if own >= 0 and moved[own] else -1, permutations)
        if found > _OPEN or found < 1.5 / (1 + permutations):
            break
    return found


def _p_value(values: Array, shares: Array, own: int, permutations: int) -> float:
    each = np.arange(len(values))
    order = np.vstack([each, np.random.default_rng(0).permuted(np.tile(each, (permutations, 1)), axis=1)])
    drawn = ((values - values.mean()) / values.std())[order]
    ranks = _scored(rankdata(values)[:, None])[:, 0][order] @ _scored(rankdata(shares, axis=0))
    statistics = [-_left_out(_scored(np.sqrt(shares)), drawn), np.abs(ranks).max(1)]
    if own >= 0:
        statistics.append(-ranks[:, own])
    # Of each its rank among the permuted, so that they can be compared.
    best = np.min([rankdata(-np.round(one, 9), method="max") for one in statistics], axis=0)
    return float((best <= best[0]).mean())


def rank_interval(rank: float, count: int) -> tuple[float, float]:
    """Return the 90 % interval of Spearman's correlation over `count` pairs: Fisher's z, of variance 1.06 / (n − 3).

    >>> low, high = rank_interval(0.5, 24)
    >>> round(low, 2), round(high, 2)
    (0.18, 0.73)
    """
    if math.isnan(rank):
        return math.nan, math.nan
    z, half = math.atanh(min(max(rank, -0.9999), 0.9999)), float(norm.ppf(1 - LEVEL)) * math.sqrt(1.06 / (count - 3))
    return math.tanh(z - half), math.tanh(z + half)


def rank_of(one: Array, other: Array) -> float:
    """Return Spearman's correlation; NaN of fewer than four pairs, or where one is constant."""
    if len(one) < _LEAST_RANKED or np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(spearmanr(one, other).statistic)


def _left_out(features: Array, drawn: Array) -> Array:
    """Return the mean squared leave-one-out error of a ridge regression, of each row of values of variance one."""
    count = len(features)
    kernel = features @ features.T
    inverse = np.linalg.inv(kernel * (count / np.trace(kernel)) + 1 + _RIDGE * np.eye(count))
    return np.asarray(((drawn @ inverse / np.diag(inverse)) ** 2).mean(1))


def _scored(columns: Array) -> Array:
    centred = columns - columns.mean(0)
    size = np.sqrt((centred**2).sum(0))
    return np.asarray(centred / np.where(size > 0, size, 1.0))
