"""Entropies of a domain's tokens, from counts that add: of the data, not of a model's predictions."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_FIRST = 32
"""A pair is packed into 64 bits: the first token in the upper half."""


class EntropyCounter:
    """Count tokens and neighbouring pairs, and tell their plug-in entropies in nats (arXiv 2405.14908v4, §4).

    Shannon SE = −Σ_x P(x) log P(x); joint JE = −Σ_x,x′ P(x,x′) log P(x,x′) over neighbours; conditional
    CE = −Σ_x,x′ P(x,x′) log P(x′|x) (Eq. 12). Pairs don't cross the ends of what is added at once.

    >>> counter = EntropyCounter()
    >>> counter.add([0, 1, 0, 1, 0])
    >>> round(counter.shannon, 3), round(counter.joint, 3), abs(round(counter.conditional, 12))
    (0.673, 0.693, 0.0)
    """

    def __init__(self) -> None:
        self._tokens = _Counts()
        self._pairs = _Counts()

    def add(self, tokens: npt.ArrayLike, follows: npt.ArrayLike | None = None) -> None:
        """Add one sequence of token ids.

        Args:
            tokens: Integers from 0 to 2³¹ − 1, shape (length,).
            follows: Whether each token from the second on makes a pair with the one before, shape (length − 1,);
                without it all do.

        Raises:
            ValueError: Ids that are no such integers.
        """
        ids = np.asarray(tokens)
        if not ids.size:
            return
        if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= 1 << (_FIRST - 1):
            raise ValueError(f"token ids must be integers from 0 on, got {ids.dtype} from {ids.min()} to {ids.max()}")
        ids = ids.astype(np.int64)
        self._tokens += _Counts.of(ids)
        pairs = (ids[:-1] << _FIRST) | ids[1:]
        self._pairs += _Counts.of(pairs if follows is None else pairs[np.asarray(follows, bool)])

    def __iadd__(self, other: EntropyCounter) -> Self:
        self._tokens += other._tokens
        self._pairs += other._pairs
        return self

    @property
    def tokens(self) -> int:
        """How many tokens were counted."""
        return int(self._tokens.counts.sum())

    @property
    def shannon(self) -> float:
        """Entropy of a token, nats; 0 without any."""
        return _entropy(self._tokens.counts)

    @property
    def joint(self) -> float:
        """Entropy of a pair of neighbours, nats; 0 without any."""
        return _entropy(self._pairs.counts)

    @property
    def conditional(self) -> float:
        """Entropy of a token given the one before it, nats: JE less the entropy of the first tokens of pairs."""
        firsts = self._pairs.values >> _FIRST
        starts = np.flatnonzero(np.diff(firsts, prepend=-1))
        return self.joint - (_entropy(np.add.reduceat(self._pairs.counts, starts)) if len(starts) else 0.0)

    def to_dict(self) -> dict[str, str]:
        """Return the counts as JSON types: compressed, for a checkpoint holds one for each domain."""
        return {"tokens": self._tokens.to_text(), "pairs": self._pairs.to_text()}

    @classmethod
    def from_dict(cls, texts: Mapping[str, str]) -> EntropyCounter:
        """Read what `to_dict` wrote."""
        counter = cls()
        counter._tokens, counter._pairs = _Counts.from_text(texts["tokens"]), _Counts.from_text(texts["pairs"])
        return counter


class _Counts:
    """Sorted distinct values and how often each was there."""

    def __init__(self, values: Sequence[int] | npt.NDArray[np.int64] = (), counts: Any = ()) -> None:
        self.values, self.counts = np.array(values, np.int64), np.array(counts, np.int64)

    @classmethod
    def of(cls, values: npt.NDArray[np.int64]) -> _Counts:
        return cls(*np.unique(values, return_counts=True))

    def __iadd__(self, other: _Counts) -> Self:
        self.values, place = np.unique(np.concatenate([self.values, other.values]), return_inverse=True)
        counts = np.zeros(len(self.values), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        self.counts = counts
        return self

    def to_text(self) -> str:
        # Differences of sorted values are small, and compress.
        table = np.stack([np.diff(self.values, prepend=0), self.counts]).astype("<i8")
        return base64.b64encode(zlib.compress(table.tobytes())).decode()

    @classmethod
    def from_text(cls, text: str) -> _Counts:
        values, counts = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<i8").reshape(2, -1)
        return cls(np.cumsum(values), counts)


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    total = counts.sum()
    return float(np.log(total) - (counts * np.log(counts)).sum() / total) if total else 0.0
