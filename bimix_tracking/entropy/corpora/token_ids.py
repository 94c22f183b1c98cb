"""Token ids as a memory map: `.npy` files, and raw ones whose type is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.documents import Block, Document, Problems, Reading
from bimix_tracking.entropy.corpora.streams import size_of
from bimix_tracking.errors import CorpusError

BLOCK_TOKENS = 1 << 24
"""Tokens of a block: a multiple of every usual length of a sequence."""


class TokensFormat:
    """Files of token ids: one stream, or in a table of two dimensions a sequence a row."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by tokens, or a table by rows."""
        ids = _mapped(path, reading)
        step = BLOCK_TOKENS if ids.ndim == 1 else max(1, BLOCK_TOKENS // max(ids.shape[1], 1))
        width = ids.itemsize * (1 if ids.ndim == 1 else ids.shape[1])
        starts = range(0, len(ids), step)
        ends = [min(start + step, len(ids)) for start in starts]
        return [
            Block("tokens", str(path), name, start, end, (end - start) * width)
            for start, end in zip(starts, ends, strict=True)
        ]

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read a range as one document, or as a table of them."""
        part = _mapped(Path(block.path), reading)[block.start : block.stop]
        if len(part) < block.stop - block.start:
            raise CorpusError(
                f"{block.path} has become shorter while it was read: {len(part):,} tokens after {block.start:,}"
            )
        yield Document(part, block.start)


def _mapped(path: Path, reading: Reading) -> npt.NDArray[Any]:
    size = size_of(path)
    if path.suffix == ".npy":
        try:
            ids: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a header is Python's source: what a damaged one raises is anything
            raise CorpusError(f"{path} cannot be read as token ids: {error}") from error
    else:
        kind = _dtype(path, reading)
        if size % kind.itemsize:
            raise CorpusError(
                f"{path} has {size:,} bytes, which is not a multiple of {kind.itemsize} of {kind.name}: is that its "
                "type, or is it cut off?"
            )
        ids = np.memmap(path, kind, mode="r") if size else np.zeros(0, kind)
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
        raise CorpusError(
            f"{path} holds {ids.dtype} of shape {ids.shape}: token ids are whole numbers, in a row or a table"
        )
    return ids


def _dtype(path: Path, reading: Reading) -> np.dtype[Any]:
    if reading.token_dtype is None:
        raise CorpusError(f"{path} doesn't say of which type its token ids are: give it, such as uint16 (token_dtype)")
    try:
        kind = np.dtype(reading.token_dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "iu":
        raise CorpusError(f"{reading.token_dtype!r} is not a type of token ids, such as uint16 or int32")
    return kind
