"""The embedder that needs no model: passages are alike that share strings of characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.embedders import Vectors
from bimix_tracking.errors import CorpusError

_DIMENSIONS = 256
_BYTES = 4
"""Of the strings that are hashed: long enough to distinguish words, short enough to come again."""
_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))


class HashingEmbedder:
    """Feature hashing (Weinberger et al., 2009) of all strings of 4 bytes of a passage in lower case.

    v_j = Σ_g s(g) √n(g) over the strings g with h(g) = j, n(g) being how often g is there, and s(g) = ±1. The cosine of
    two passages is, but for collisions, that of their strings' √n. This is of words and spelling, not of meaning: two
    passages on one subject in two languages are as unlike as any. Where meaning counts, take a model.

    Args:
        dimensions: d, or as text after `hashing:`; 256 if empty.

    Raises:
        CorpusError: It is not a number from 2 to 65,536.

    >>> embed = HashingEmbedder()
    >>> rows = embed(["the law of the land", "the law of that land", "import numpy as np"])
    >>> rows /= np.linalg.norm(rows, axis=1)[:, None]
    >>> bool(rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2])
    True
    """

    def __init__(self, dimensions: str | int = "") -> None:
        text = str(dimensions) or str(_DIMENSIONS)
        if not text.isdecimal() or not 2 <= int(text) <= 1 << 16:
            raise CorpusError(f"hashing:{text}: dimensions are a number from 2 to 65,536, such as hashing:256")
        self.dimensions = int(text)
        self.spec = f"hashing of {_BYTES}-byte strings, {self.dimensions} dimensions"

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each; of zeros for a text of fewer than 4 bytes."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for number, text in enumerate(texts):
            content = np.frombuffer(text.lower().encode("utf-8", "replace"), np.uint8)
            if len(content) >= _BYTES:
                strings, counts = np.unique(_strings(content), return_counts=True)
                hashed = _mixed(strings)
                sign = np.where(hashed >> np.uint64(63), 1.0, -1.0)
                place = (hashed % np.uint64(self.dimensions)).astype(np.int64)
                rows[number] = np.bincount(place, sign * np.sqrt(counts), self.dimensions)
        return rows


def _strings(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return every run of 4 bytes as a number."""
    count = len(content) - _BYTES + 1
    number = np.zeros(count, np.uint32)
    for place in range(_BYTES):
        number = (number << np.uint32(8)) | content[place : place + count]
    return number


def _mixed(numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """Return 64 bits that look random, the same on every machine."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * _MULTIPLIERS[0]
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MULTIPLIERS[1]
    return np.asarray(mixed ^ (mixed >> np.uint64(32)))
