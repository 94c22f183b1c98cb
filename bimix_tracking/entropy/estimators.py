"""Entropy of a distribution from how often its outcomes were seen, in nats, corrected for what wasn't seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spectrum:
    """How many outcomes were seen how often: all that an estimator of entropy needs.

    Args:
        counts: Distinct counts from 1 on, shape (k,).
        outcomes: How many outcomes have each, shape (k,).
    """

    counts: npt.NDArray[np.int64]
    outcomes: npt.NDArray[np.int64]

    @classmethod
    def of(cls, counts: npt.ArrayLike) -> Self:
        """Return the spectrum of counts by outcome; zeros are no outcomes.

        >>> Spectrum.of([3, 1, 1, 0])
        Spectrum(counts=array([1, 3]), outcomes=array([2, 1]))
        """
        seen = np.asarray(counts, np.int64)
        return cls(*np.unique(seen[seen > 0], return_counts=True))

    def __add__(self, other: Spectrum) -> Spectrum:
        """Return the spectrum of outcomes that are in one of the two."""
        counts, place = np.unique(np.concatenate([self.counts, other.counts]), return_inverse=True)
        outcomes = np.zeros(len(counts), np.int64)
        np.add.at(outcomes, place, np.concatenate([self.outcomes, other.outcomes]))
        return Spectrum(counts, outcomes)

    @property
    def total(self) -> int:
        """How many times anything was seen."""
        return int((self.counts * self.outcomes).sum())

    @property
    def distinct(self) -> int:
        """How many outcomes were seen."""
        return int(self.outcomes.sum())

    @property
    def once(self) -> int:
        """How many outcomes were seen just once."""
        return int(self.outcomes[self.counts == 1].sum())


def plug_in(seen: Spectrum) -> float:
    """Return −Σ p log p of the observed shares p: what the paper has (arXiv 2405.14908, §4). Biased low.

    >>> plug_in(Spectrum.of([2, 2]))
    0.6931471805599453
    """
    total = seen.total
    if not total:
        return 0.0
    return math.log(total) - float((seen.outcomes * (seen.counts * np.log(seen.counts))).sum()) / total


def miller_madow(seen: Spectrum) -> float:
    """Return the plug-in entropy + (K − 1) / 2N, with K outcomes in N: its bias to first order (Miller, 1955).

    It corrects little where most outcomes were seen a few times only.

    >>> round(miller_madow(Spectrum.of([2, 2])) - plug_in(Spectrum.of([2, 2])), 9)
    0.125
    """
    return plug_in(seen) + (seen.distinct - 1) / (2 * seen.total) if seen.total else 0.0


def chao_shen(seen: Spectrum) -> float:
    """Return the coverage-adjusted entropy of Chao and Shen (Environmental and Ecological Statistics 10, 2003).

    −Σ p̃ log p̃ / (1 − (1 − p̃)^N) with p̃ = C n/N, and coverage C = 1 − f₁/N of f₁ outcomes that were seen once:
    shares leave room for the unseen, and each outcome counts for those that were as likely to be missed.

    >>> chao_shen(Spectrum.of([2, 2]))
    0.7393...
    """
    total = seen.total
    if not total:
        return 0.0
    # With nothing seen twice there is no estimate of coverage: as if one had been (Chao and Shen, §3).
    coverage = 1 - min(seen.once, total - 1) / total if total > 1 else 1.0
    share = coverage * seen.counts / total
    missed = np.exp(total * np.log1p(-np.minimum(share, 1 - 1e-16)))
    return float((seen.outcomes * (-share * np.log(share) / (1 - missed))).sum())


def grassberger(seen: Spectrum) -> float:
    """Return log N − Σ n G(n) / N, G(n) = ψ(n) + (−1)ⁿ/2 · [ψ((n+1)/2) − ψ(n/2)] (Grassberger, arXiv physics/0307138).

    >>> grassberger(Spectrum.of([2, 2]))
    0.6566...
    """
    from scipy.special import digamma  # noqa: PLC0415  # training counts entropies, and must not wait for SciPy

    total = seen.total
    if not total:
        return 0.0
    n = seen.counts.astype(np.float64)
    sign = np.where(seen.counts % 2, -0.5, 0.5)
    g: Floats = digamma(n) + sign * (digamma((n + 1) / 2) - digamma(n / 2))
    return math.log(total) - float((seen.outcomes * (n * g)).sum()) / total


ESTIMATORS: Mapping[str, Callable[[Spectrum], float]] = MappingProxyType(
    {"plug-in": plug_in, "miller-madow": miller_madow, "chao-shen": chao_shen, "grassberger": grassberger}
)
"""By name."""


def standard_error(seen: Spectrum) -> float:
    """Return the standard error of the plug-in entropy of independent draws, √((Σ p log² p − H²) / N), nats.

    Tokens of a text aren't independent: theirs is larger, and `EqualTokens` measures it.

    >>> round(standard_error(Spectrum.of([30, 70])), 6)
    0.038828
    """
    total = seen.total
    if not total:
        return 0.0
    share = seen.counts / total
    weight = seen.outcomes * share
    log = np.log(share)
    return math.sqrt(max(float((weight * log**2).sum() - (weight * log).sum() ** 2), 0.0) / total)
