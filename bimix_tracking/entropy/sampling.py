"""A sample of so many tokens, out of a stream of any length: the same whoever reads which part of it, in any order."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Priorities = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def priorities(place: str, count: int, *, start: int = 0, seed: int = 0) -> Priorities:
    """Return a pseudo-random number for each of the things at a place, from nothing but where they stand.

    Args:
        place: Names the place: file and group.
        count: How many things there are.
        start: Number of the first of them.
        seed: Of the sample.

    >>> [hex(number) for number in priorities("a.txt", 2)]
    ['0x7cad52a659641264', '0x36c2775f0eabeba8']
    """
    digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=8).digest()
    # SplitMix64 (Steele, Lea and Flood, 2014).
    z = np.uint64(int.from_bytes(digest, "little")) + _GOLDEN * np.arange(start + 1, start + count + 1, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return np.asarray(z ^ (z >> np.uint64(31)))


class SequenceSample:
    """Keep sequences of the lowest priorities, as many as have so many elements together.

    Samples add (`+=`): that of a union is the sample of the union of the samples. So each sequence of a corpus is as
    likely to be in it as any other, and who reads which part changes nothing.

    Args:
        most: Elements to keep: tokens, or numbers of vectors. The last sequence may go beyond.
        dtype: Of the elements.

    >>> sample = SequenceSample(4)
    >>> sample.offer(np.array([5, 6, 7, 8, 9]), [2, 2, 1], np.array([30, 10, 20], np.uint64))
    >>> [sequence.tolist() for sequence in sample.sequences()]
    [[7, 8], [9], [5, 6]]
    """

    def __init__(self, most: int, dtype: npt.DTypeLike = np.uint32) -> None:
        self._most = most
        self._dtype = np.dtype(dtype)
        self._highest = np.uint64(2**64 - 1)
        self._kept = self._none()
        self._new: list[tuple[Priorities, npt.NDArray[np.int64], npt.NDArray[Any]]] = []
        self._waiting = 0

    def offer(self, flat: npt.NDArray[Any], lengths: npt.ArrayLike, order: Priorities) -> None:
        """Offer sequences.

        Args:
            flat: Their elements, one sequence after the other.
            lengths: Of each.
            order: Priority of each; the lowest are kept.
        """
        sizes = np.asarray(lengths, np.int64)
        low = np.flatnonzero((order <= self._highest) & (sizes > 0))
        if len(low):
            ends = np.cumsum(sizes)[low]
            chosen = [flat[end - size : end] for end, size in zip(ends, sizes[low], strict=True)]
            self._put((order[low], sizes[low], np.concatenate(chosen).astype(self._dtype)))

    def expect(self, other: SequenceSample) -> None:
        """Take in from here on only what would also get into another sample, to which this one will be added."""
        self._highest = min(self._highest, other._highest)

    def wants(self, order: Priorities) -> npt.NDArray[np.bool_]:
        """Return which of the priorities may still get in: what is not wanted need not be made."""
        return np.asarray(order <= self._highest)

    def __iadd__(self, other: SequenceSample) -> Self:
        self._put(other._settled())
        return self

    @property
    def elements(self) -> int:
        """How many elements were kept."""
        return int(self._settled()[1].sum())

    def sequences(self, elements: int | None = None) -> list[npt.NDArray[Any]]:
        """Return the sequences in order of priority: all, or just so many elements, the last sequence being cut."""
        return list(self._each(elements))

    def to_bytes(self) -> bytes:
        """Return what was kept."""
        content = io.BytesIO()
        order, lengths, flat = self._settled()
        np.savez(content, most=self._most, order=order, lengths=lengths, flat=flat)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> SequenceSample:
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            sample = cls(int(arrays["most"]), arrays["flat"].dtype)
            sample._put((arrays["order"], arrays["lengths"], arrays["flat"]))
        return sample

    def _none(self) -> tuple[Priorities, npt.NDArray[np.int64], npt.NDArray[Any]]:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, self._dtype)

    def _put(self, part: tuple[Priorities, npt.NDArray[np.int64], npt.NDArray[Any]]) -> None:
        self._new.append(part)
        self._waiting += len(part[2])
        if self._waiting > self._most:
            self._settled()

    def _settled(self) -> tuple[Priorities, npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Put what is new in order with what was kept, and keep the first of it."""
        if not self._new:
            return self._kept
        parts, self._new, self._waiting = [self._kept, *self._new], [], 0
        order, lengths, flat = (np.concatenate([part[i] for part in parts]) for i in range(3))
        starts = np.cumsum(lengths) - lengths
        sorted_ = np.argsort(order, kind="stable")
        before = np.cumsum(lengths[sorted_]) - lengths[sorted_]
        kept = sorted_[before < self._most]
        chosen = [flat[start : start + length] for start, length in zip(starts[kept], lengths[kept], strict=True)]
        self._kept = order[kept], lengths[kept], np.concatenate([flat[:0], *chosen])
        if lengths[kept].sum() >= self._most:
            self._highest = order[kept[-1]]
        return self._kept

    def _each(self, elements: int | None) -> Iterator[npt.NDArray[Any]]:
        _, lengths, flat = self._settled()
        left = int(lengths.sum()) if elements is None else elements
        start = 0
        for length in lengths.tolist():
            if left <= 0:
                return
            yield flat[start : start + min(length, left)]
            start, left = start + length, left - length
