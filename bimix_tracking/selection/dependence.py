"""Does a value depend on the mixture at all: a permutation test, and intervals of rank correlations."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.stats import norm, rankdata, spearmanr

from bimix_tracking.laws.protocol import Array

_PERMUTATIONS = (199, 1999)
"""At first, and where these leave it open."""
_OPEN = 0.2
_RIDGE = 0.5
_LEAST_RANKED = 4
LEVEL = 0.05
_SAMPLES = 4000
_STEPS = np.linspace(-5.0, 5.0, 51)
"""Fisher's z of the correlations that samples are drawn with."""


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


def inverted_interval(rank: float, count: int) -> tuple[float, float]:
    """Return the 90 % interval of Spearman's correlation near 1, over `count` pairs, by inversion.

    Its ends are the correlations that leave 5 % of samples at or above the one found, and 5 % at or below it:
    P(ρ̂ ≥ r | ρ = low) = P(ρ̂ ≤ r | ρ = high) = 0.05, of samples from two normal variables, whose order alone counts.
    Near 1 the interval by Fisher's z holds too seldom: at ρ = 0.97 in 57 % of samples of 6 pairs and 78 % of 10, this
    one in 97 and 91 (`tests/benchmarks/ranks.py`).

    Args:
        rank: Spearman's correlation.
        count: Pairs, at least four.

    >>> [round(end, 2) for end in inverted_interval(0.95, 10)], [round(end, 2) for end in inverted_interval(1.0, 4)]
    ([0.8, 1.0], [0.03, 1.0])
    """
    if math.isnan(rank):
        return math.nan, math.nan
    drawn = _samples(count)
    least, most = rank - 1e-9, rank + 1e-9
    above = np.maximum.accumulate([1 - np.searchsorted(one, least) / len(one) for one in drawn])
    below = np.minimum.accumulate([np.searchsorted(one, most) / len(one) for one in drawn])
    low = -1.0 if above[0] > LEVEL else math.tanh(np.interp(LEVEL, above, _STEPS))
    high = 1.0 if below[-1] > LEVEL else math.tanh(np.interp(-LEVEL, -below, _STEPS))
    return low, high


@lru_cache(maxsize=64)
def _samples(count: int) -> Array:
    """Return sorted rank correlations of samples of so many pairs, of each correlation in `_STEPS`."""
    draw = np.random.default_rng(0)
    samples = max(_SAMPLES * 60 // max(count, 60), 400)
    one, chance = draw.standard_normal((2, samples, count))
    ranks = one.argsort(1).argsort(1)
    found = np.empty((len(_STEPS), samples))
    for row, correlation in zip(found, np.tanh(_STEPS), strict=True):
        # Pearson's correlation of two normal variables whose Spearman's is this one.
        moment = 2 * math.sin(math.pi * correlation / 6)
        other = (moment * one + math.sqrt(1 - moment**2) * chance).argsort(1).argsort(1)
        row[:] = np.sort(1 - 6 * ((ranks - other) ** 2).sum(1) / (count * (count**2 - 1)))
    return found


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
