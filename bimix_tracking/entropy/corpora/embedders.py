"""What turns passages of text into vectors, for von Neumann entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import CorpusError
from bimix_tracking.plugins import named

Vectors = npt.NDArray[np.float32]
"""Shape (passages, dimensions); rows of any norm."""


class Embedder(Protocol):
    """Passages → vectors. The same passage has the same vector, to rounding, whatever else is in the batch."""

    spec: str
    """Its name for a manifest: what it is, and a hash of its files."""
    dimensions: int

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each; one of zeros for a text it knows nothing of."""


def open_embedder(spec: str) -> Embedder:
    """Open an embedder, by entry point of the group `bimix_tracking.embedders`.

    Args:
        spec: `hashing` or `hashing:DIMENSIONS`, which need nothing; `model2vec:FOLDER`, `sentence-transformers:FOLDER`,
            `fasttext:FILE`, `transformers:FOLDER`, whose libraries and models are on the disk.

    Raises:
        CorpusError: No such embedder, or its model cannot be read.
        MissingDependencyError: Its library isn't installed.

    >>> open_embedder("hashing").dimensions
    256
    >>> open_embedder("feeling")
    Traceback (most recent call last):
    bimix_tracking.errors.CorpusError: no embedder 'feeling'; choose from 'fasttext', 'hashing',
    'model2vec', 'sentence-transformers', 'transformers'
    """
    kind, _, argument = spec.partition(":")
    opened: Embedder = named("embedder", kind, CorpusError, f"no embedder {spec!r}")(argument)
    return opened
