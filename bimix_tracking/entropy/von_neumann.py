"""Von Neumann entropy of embeddings: from a d × d matrix that adds, never from one of documents × documents."""

from __future__ import annotations

import struct
from typing import Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import CorpusError

_ONE = 1 << 30
"""What 1 is in the sums: whole numbers add to the same in any order, and 2³³ vectors stay within 63 bits."""
_HEADER = struct.Struct("<4sQQ")
_MAGIC = b"bxV2"


class DensityMatrix:
    """Add up vᵀv of unit vectors, and return the von Neumann entropy (arXiv 2405.14908v4, Eqs. 17–18).

    With V the N vectors as rows, each divided by its norm, K = VVᵀ holds their cosines, and ρ = K/N has the same
    eigenvalues other than 0 as VᵀV/N, which is d × d. H = −Tr(ρ log ρ) = −Σ λ log λ, nats, at most log min(N, d).
    exp(H) is the Vendi score: how many quite different documents it is as if there were.

    Sums are kept in units of 2⁻³⁰, so that parts add to the same matrix in any order.

    Args:
        dimensions: d.

    >>> rho = DensityMatrix(2)
    >>> rho.add([[3.0, 0.0], [0.0, 0.5]])
    >>> round(rho.entropy, 6)
    0.693147
    """

    def __init__(self, dimensions: int) -> None:
        self._sums = np.zeros((dimensions, dimensions), np.int64)
        self._count = 0

    def add(self, vectors: npt.ArrayLike) -> None:
        """Add embeddings, shape (documents, d), of any norm but 0.

        Raises:
            CorpusError: Another d, NaN or infinity, or a vector of norm 0; says which row.
        """
        unit = unit_vectors(vectors)
        if unit.shape[1] != len(self._sums):
            raise CorpusError(f"embeddings have {unit.shape[1]} dimensions, where there were {len(self._sums)}")
        self._sums += np.rint(_ONE * (unit.T @ unit)).astype(np.int64)
        self._count += len(unit)

    def __iadd__(self, other: DensityMatrix) -> Self:
        if self._sums.shape != other._sums.shape:
            raise CorpusError(f"embeddings have {len(other._sums)} dimensions, where there were {len(self._sums)}")
        self._sums += other._sums
        self._count += other._count
        return self

    def without(self, part: DensityMatrix) -> DensityMatrix:
        """Return the matrix less that of a part that was added."""
        rest = DensityMatrix(len(self._sums))
        rest._sums = self._sums - part._sums
        rest._count = self._count - part._count
        return rest

    @property
    def count(self) -> int:
        """N: how many vectors were added."""
        return self._count

    @property
    def entropy(self) -> float:
        """H in nats; 0 without any vector."""
        if not self._count:
            return 0.0
        values = np.linalg.eigvalsh(self._sums / (_ONE * self._count))
        # Rounding makes eigenvalues that are 0 a little more or less.
        values = values[values > 1e-12]
        values /= values.sum()
        return max(float(-(values * np.log(values)).sum()), 0.0)

    def to_bytes(self) -> bytes:
        """Return the sums: the same bytes for the same sums."""
        content = self._sums[np.tril_indices(len(self._sums))].astype("<i8").tobytes()
        return _HEADER.pack(_MAGIC, self._count, len(self._sums)) + content

    @classmethod
    def from_bytes(cls, content: bytes) -> DensityMatrix:
        """Read what `to_bytes` wrote.

        Raises:
            CorpusError: It is no such thing, or was cut off.
        """
        try:
            magic, count, dimensions = _HEADER.unpack_from(content)
            if magic != _MAGIC:
                raise CorpusError("these are not sums of embeddings, or of another version")
            matrix = cls(dimensions)
            lower = np.tril_indices(dimensions)
            matrix._sums[lower] = np.frombuffer(content, "<i8", offset=_HEADER.size)
        except (struct.error, ValueError, MemoryError) as error:
            raise CorpusError(f"these are not sums of embeddings: {error}") from error
        matrix._sums.T[lower] = matrix._sums[lower]
        matrix._count = count
        return matrix


def unit_vectors(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return embeddings divided by their norms, shape (documents, d).

    Raises:
        CorpusError: They are no matrix, or have NaN, infinity or a row of norm 0; says which row.

    >>> unit_vectors([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    rows = np.asarray(vectors, np.float64)
    if rows.ndim != 2:
        raise CorpusError(f"embeddings must have the shape (documents, dimensions), got {rows.shape}")
    norms = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        row = int(bad[0])
        what = "norm 0" if norms[row] == 0 else "NaN or infinity"
        more = f" ({len(bad)} such rows)" if len(bad) > 1 else ""
        raise CorpusError(f"embedding {row} of {len(rows)} has {what}{more}: it has no direction to compare")
    return np.asarray(rows / norms[:, None])
