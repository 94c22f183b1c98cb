"""The accuracy of an entropy from a sample: its standard error, and how it moves as the sample doubles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.counter import Entropies, EntropyCounter
from bimix_tracking.entropy.estimators import ESTIMATORS
from bimix_tracking.entropy.von_neumann import DensityMatrix

GROUPS = 16
"""Parts of a sample, of equal size: a power of two."""
MOST_DRIFT = 0.05
"""Nats by which an entropy may still move when the sample doubles: as much as moves a proportion by 5 % of itself."""


@dataclass(frozen=True)
class Curve:
    """An entropy against the size of the sample.

    Args:
        sizes: Tokens or documents, each twice the one before; the last is the whole sample.
        values: Mean entropy of the disjoint parts of each size, nats, in random order.
        error: Standard error at the whole sample, by a jackknife over its parts; NaN where it can't be divided.
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    error: float

    @property
    def value(self) -> float:
        """The entropy of the whole sample, nats."""
        return self.values[-1]

    @property
    def drift(self) -> float:
        """By how much the last doubling moved it, nats; NaN where the sample can't be halved."""
        return self.values[-1] - self.values[-2] if len(self.values) > 1 else math.nan

    @property
    def converged(self) -> bool:
        """Whether that is known, and within 0.05 nats."""
        return abs(self.drift) <= MOST_DRIFT

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON types."""
        return {"sizes": list(self.sizes), "values": list(self.values), "standard_error": _or_none(self.error)}


class _Part(Protocol):
    """Something that adds, and from which what was added can be taken."""

    def __iadd__(self, other: Self) -> Self: ...

    def without(self, part: Self) -> Self: ...


T = TypeVar("T", bound=_Part)


def token_curves(sequences: Sequence[npt.NDArray[np.integer]]) -> dict[str, dict[str, Curve]]:
    """Return the curves of SE, JE and CE by estimator and by proxy.

    Args:
        sequences: A random sample in random order. Its parts are of about the same number of tokens, and of whole
            sequences: tokens of one text are alike, so that chance is that of sequences, not of tokens.
    """
    parts = []
    for members in _divided([len(sequence) for sequence in sequences]):
        some = [sequences[member] for member in members]
        counter = EntropyCounter()
        if some:
            follows = np.ones(sum(map(len, some)), bool)
            follows[np.cumsum([len(sequence) for sequence in some]) - 1] = False
            counter.add(np.concatenate(some), follows[:-1])
        parts.append(counter)
    values = _measured(parts, EntropyCounter, _all_estimators)
    sizes = _sizes(sum(len(sequence) for sequence in sequences), len(parts))
    return {
        estimator: {
            proxy: _curve(sizes, values, len(Entropies._fields) * row + column)
            for column, proxy in enumerate(Entropies._fields)
        }
        for row, estimator in enumerate(ESTIMATORS)
    }


def von_neumann_curve(vectors: Sequence[npt.NDArray[np.floating]]) -> Curve:
    """Return the curve of the von Neumann entropy against documents.

    Args:
        vectors: Embeddings of a random sample of documents, in random order.
    """
    parts = []
    for members in _divided([1] * len(vectors)):
        matrix = DensityMatrix(len(vectors[0]))
        matrix.add(np.stack([vectors[member] for member in members]))
        parts.append(matrix)
    values = _measured(parts, lambda: DensityMatrix(len(vectors[0])), lambda part: np.array([part.entropy]))
    return _curve(_sizes(len(vectors), len(parts)), values, 0)


def _all_estimators(counter: EntropyCounter) -> npt.NDArray[np.float64]:
    return np.array([counter.entropies(estimator) for estimator in ESTIMATORS]).ravel()


def _divided(sizes: Sequence[int]) -> list[range]:
    """Divide things in order into as many parts of equal size as there can be, up to 16, a power of two."""
    count = 1 << min(GROUPS.bit_length() - 1, max(len(sizes), 1).bit_length() - 1)
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    borders = np.searchsorted(middles, np.arange(count + 1) * sum(sizes) / count)
    found = list(itertools.starmap(range, itertools.pairwise(borders.tolist())))
    return found if all(found) else [range(len(sizes))]


def _sizes(total: int, parts: int) -> tuple[int, ...]:
    return tuple(total // (parts >> level) for level in range(parts.bit_length()))


def _measured(
    parts: list[T], nothing: Callable[[], T], value: Callable[[T], npt.NDArray[np.float64]]
) -> tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """Return the mean values of parts of each size, and the jackknife's standard errors at the whole."""
    level, means = parts, []
    while True:
        means.append(np.mean([value(part) for part in level], axis=0))
        if len(level) == 1:
            break
        level = [_sum(level[i : i + 2], nothing) for i in range(0, len(level), 2)]
    if len(parts) == 1:
        return means, np.full_like(means[-1], np.nan)
    held_out = np.array([value(level[0].without(part)) for part in parts])
    spread = ((held_out - held_out.mean(axis=0)) ** 2).sum(axis=0)
    return means, np.sqrt(spread * (len(parts) - 1) / len(parts))


def _sum(parts: Sequence[T], nothing: Callable[[], T]) -> T:
    total = nothing()
    for part in parts:
        total.__iadd__(part)  # mypy knows no += of a type variable
    return total


def _curve(
    sizes: tuple[int, ...], values: tuple[list[npt.NDArray[np.float64]], npt.NDArray[np.float64]], column: int
) -> Curve:
    means, errors = values
    return Curve(sizes, tuple(float(mean[column]) for mean in means), float(errors[column]))


def _or_none(number: float) -> float | None:
    return None if math.isnan(number) else number
