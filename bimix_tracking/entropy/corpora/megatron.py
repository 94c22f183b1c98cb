"""Megatron-LM's indexed datasets: `.bin` holds token ids, `.idx` where sequences and documents begin."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.documents import Block, Document, Problems, Reading
from bimix_tracking.entropy.corpora.streams import size_of
from bimix_tracking.errors import CorpusError

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
"""By the header's code; 6 and 7 are floats."""
_AT_ONCE = 1 << 20
"""Documents whose places are held in memory at once: an index may be of hundreds of millions."""


class MegatronFormat:
    """Pairs of `.bin` and `.idx`, version 1. A document may be of several sequences: they are joined."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide documents into ranges of about `reading.block_bytes`, and hold the whole index against the file."""
        index = _Index.of(path)
        begun: list[tuple[int, int]] = []
        done, last = 0, -1
        for first in range(0, index.count, _AT_ONCE):
            part = _Documents.of(index, first, min(first + _AT_ONCE, index.count))
            ends = done + part.ends * index.dtype.itemsize
            groups = ends[:-1] // reading.block_bytes
            starts = np.flatnonzero(np.diff(groups, prepend=last))
            begun += zip((first + starts).tolist(), ends[starts].tolist(), strict=True)
            done, last = int(ends[-1]), int(groups[-1])
        return [
            Block("megatron", str(path), name, start, stop, after - before)
            for (start, before), (stop, after) in itertools.pairwise([*begun, (index.count, done)])
        ]

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read documents, as parts of a memory map."""
        index = _Index.of(Path(block.path))
        documents = _Documents.of(index, block.start, block.stop)
        ids = np.memmap(block.path, index.dtype, mode="r") if index.size else np.zeros(0, index.dtype)
        starts = (documents.pointers // index.dtype.itemsize).tolist()
        stops = (documents.pointers // index.dtype.itemsize + documents.lengths).tolist()
        bounds = documents.sequences.tolist()
        for first, end in itertools.pairwise(bounds):
            parts = list(zip(starts[first:end], stops[first:end], strict=True))
            if all(stop == start for (_, stop), (start, _) in itertools.pairwise(parts)):
                # As Megatron writes them, one after the other: however long, nothing is copied.
                content = ids[parts[0][0] : parts[-1][1]] if parts else ids[:0]
            else:
                content = np.concatenate([ids[start:stop] for start, stop in parts])
            # Documents of a block are a group: sequences are packed as training packs them.
            yield Document(content, block.start)


@dataclass(frozen=True)
class _Index:
    """What an index says, mapped into memory; and how many bytes of token ids there are."""

    path: Path
    size: int
    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64] | None
    """Number of the first sequence of each document, and at the end of them all the number of sequences."""

    @property
    def count(self) -> int:
        """How many documents there are: without any named, each sequence is one."""
        return len(self.lengths) if self.firsts is None else len(self.firsts) - 1

    def sequences(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the first sequence of each document of a range, and that of the next one."""
        return np.arange(first, stop + 1) if self.firsts is None else np.array(self.firsts[first : stop + 1])

    @classmethod
    def of(cls, path: Path) -> Self:
        """Open the index of a `.bin`.

        Raises:
            CorpusError: It is not an index, of another version, cut off, or leaves sequences out.
        """
        index = path.with_suffix(".idx")
        try:
            with index.open("rb") as file:
                header = file.read(_HEADER.size)
        except OSError as error:
            raise CorpusError(f"{index}, the index of {path.name}, cannot be read: {error.strerror}") from error
        if not header.startswith(_MAGIC) or len(header) < _HEADER.size:
            raise CorpusError(f"{index} is not an index of a Megatron dataset: it doesn't begin as one")
        _, version, code, sequences, documents = _HEADER.unpack(header)
        if version != _VERSION or code not in _TYPES:
            raise CorpusError(
                f"{index} is of version {version} and type {code}; read are version {_VERSION}, types {[*_TYPES]}"
            )
        there, needed = size_of(index), _HEADER.size + 12 * sequences + 8 * documents
        if there < needed:
            raise CorpusError(f"{index} is cut off: {there:,} bytes, {needed:,} are needed for {sequences:,} sequences")
        content = np.memmap(index, np.uint8, mode="r")
        firsts = np.frombuffer(content, "<i8", documents, _HEADER.size + 12 * sequences)
        if documents and (firsts[0] != 0 or firsts[-1] != sequences):
            raise CorpusError(
                f"{index}: its documents are of sequences {firsts[0]:,} to {firsts[-1]:,}, but there are 0 to "
                f"{sequences:,}: it is damaged"
            )
        return cls(
            path,
            size_of(path),
            np.dtype(_TYPES[code]),
            np.frombuffer(content, "<i4", sequences, _HEADER.size),
            np.frombuffer(content, "<i8", sequences, _HEADER.size + 4 * sequences),
            firsts if documents else None,
        )


@dataclass(frozen=True)
class _Documents:
    """Some documents in a row, held against the file.

    Args:
        sequences: Number of each document's first sequence among these, and of all.
        lengths: Tokens of each of their sequences.
        pointers: Byte at which each of these begins.
    """

    sequences: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    pointers: npt.NDArray[np.int64]

    @property
    def ends(self) -> npt.NDArray[np.int64]:
        """How many tokens come before each document, and in all."""
        ends: npt.NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.lengths)])[self.sequences]
        return ends

    @classmethod
    def of(cls, index: _Index, first: int, stop: int) -> Self:
        """Read where documents are.

        Raises:
            CorpusError: They aren't within the file.
        """
        sequences = index.sequences(first, stop)
        if (np.diff(sequences) < 0).any() or sequences[0] < 0 or sequences[-1] > len(index.lengths):
            raise CorpusError(
                f"{index.path.with_suffix('.idx')}: among documents {first:,} to {stop:,} one begins before the one "
                "ahead of it: it is damaged"
            )
        some = slice(int(sequences[0]), int(sequences[-1]))
        lengths, pointers = index.lengths[some].astype(np.int64), np.array(index.pointers[some])
        width = index.dtype.itemsize
        wrong = (lengths < 0) | (pointers < 0) | (pointers > index.size - lengths * width) | (pointers % width != 0)
        if wrong.any():
            bad = int(np.argmax(wrong))
            raise CorpusError(
                f"{index.path} has {index.size:,} bytes, but sequence {some.start + bad:,} is at byte "
                f"{int(pointers[bad]):,} with {int(lengths[bad]):,} tokens: the file is cut off, or the index "
                "is another's"
            )
        return cls(sequences - sequences[0], lengths, pointers)
