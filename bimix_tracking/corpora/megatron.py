"""Megatron-LM's indexed datasets: `.bin` holds token ids, `.idx` where sequences and documents begin."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bimix_tracking.corpora.documents import Block, Document, Problems, Reading
from bimix_tracking.corpora.streams import size_of
from bimix_tracking.errors import CorpusError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
"""By the header's code; 6 and 7 are floats."""


class _Index(NamedTuple):
    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int64]
    pointers: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    """Number of the first sequence of each document, and at the end of them all the number of sequences."""


class MegatronFormat:
    """Pairs of `.bin` and `.idx`, version 1. A document may be of several sequences: they are joined."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide documents into ranges of about `reading.block_bytes`."""
        index = _index(path)
        ends = np.concatenate([[0], np.cumsum(index.lengths)])[index.documents] * index.dtype.itemsize
        groups = ends[:-1] // reading.block_bytes
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        borders = [*starts.tolist(), len(groups)]
        return [
            Block("megatron", str(path), name, first, last, int(ends[last] - ends[first]))
            for first, last in itertools.pairwise(borders)
        ]

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read documents, as parts of a memory map."""
        index = _index(Path(block.path))
        ids = np.memmap(block.path, index.dtype, mode="r")
        for number in range(block.start, block.stop):
            parts = []
            for sequence in range(int(index.documents[number]), int(index.documents[number + 1])):
                first = int(index.pointers[sequence]) // index.dtype.itemsize
                parts.append(ids[first : first + int(index.lengths[sequence])])
            # Documents of a block are a group: sequences are packed as training packs them.
            yield Document(parts[0] if len(parts) == 1 else np.concatenate([ids[:0], *parts]), block.start)


def _index(path: Path) -> _Index:
    """Read the index and hold it against the file.

    Raises:
        CorpusError: It is no index, of another version, cut off, or points beyond the file.
    """
    index = path.with_suffix(".idx")
    try:
        content = index.read_bytes()
    except OSError as error:
        raise CorpusError(f"{index}, the index of {path.name}, cannot be read: {error.strerror}") from error
    if not content.startswith(_MAGIC) or len(content) < _HEADER.size:
        raise CorpusError(f"{index} is no index of a Megatron dataset: it doesn't begin as one")
    _, version, code, sequences, documents = _HEADER.unpack_from(content)
    if version != _VERSION or code not in _TYPES:
        raise CorpusError(
            f"{index} is of version {version} and type {code}; read are version {_VERSION}, types {[*_TYPES]}"
        )
    needed = _HEADER.size + 12 * sequences + 8 * documents
    if len(content) < needed:
        raise CorpusError(
            f"{index} is cut off: {len(content):,} bytes, {needed:,} are needed for {sequences:,} sequences"
        )
    lengths = np.frombuffer(content, "<i4", sequences, _HEADER.size).astype(np.int64)
    pointers = np.frombuffer(content, "<i8", sequences, _HEADER.size + 4 * sequences)
    firsts = np.frombuffer(content, "<i8", documents, _HEADER.size + 12 * sequences)
    dtype = np.dtype(_TYPES[code])
    size = size_of(path)
    ends = pointers + lengths * dtype.itemsize
    if sequences and (
        lengths.min() < 0 or pointers.min() < 0 or ends.max() > size or (pointers % dtype.itemsize).any()
    ):
        bad = int(np.argmax((lengths < 0) | (pointers < 0) | (ends > size) | (pointers % dtype.itemsize != 0)))
        at, length = int(pointers[bad]), int(lengths[bad])
        raise CorpusError(
            f"{path} has {size:,} bytes, but sequence {bad:,} is at byte {at:,} with {length:,} tokens: "
            "the file is cut off, or the index is another's"
        )
    if documents and (firsts[0] != 0 or firsts[-1] != sequences or (np.diff(firsts) < 0).any()):
        raise CorpusError(f"{index}: its documents don't begin at rising numbers from 0 to {sequences:,} sequences")
    return _Index(dtype, lengths, pointers, firsts if documents else np.array([0, sequences]))
