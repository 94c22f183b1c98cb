"""Whether a fastText model is whole: of a file cut short the library makes vectors of zeros, or reads for ever."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from bimix_tracking.errors import CorpusError

_MAGIC = 793712314
_SETTINGS = struct.Struct("<2i 12i d")
_DICTIONARY = struct.Struct("<3i 2q")
_ENTRY = 1 + 8 + 1
"""Bytes that follow a word: its end, its count, whether it is a label."""
_SHAPE = struct.Struct("<2q")
_CODES = struct.Struct("<? 2q i")
_QUANTISER = struct.Struct("<4i")
_CENTROIDS = 256
_REAL = 4


def check_whole(path: str) -> None:
    """Walk over a model's parts (versions 11 and 12 of the format) and see that all of them are there.

    A file of anything else is left to the library, which refuses it.

    Raises:
        CorpusError: The file ends before the model does.
    """
    size = Path(path).stat().st_size
    if size < _SETTINGS.size:
        return
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _SETTINGS.unpack_from(content)[0] != _MAGIC:
            return
        try:
            whole = _end(content) <= size
        except (struct.error, ValueError):
            whole = False
    if not whole:
        raise CorpusError(f"fasttext:{path}: the model is truncated at {size:,} bytes. Fetch or copy it again")


def _end(content: mmap.mmap) -> int:
    """Return where the model ends.

    Raises:
        ValueError: The file ends within the dictionary.
        struct.error: It ends within another part's head.
    """
    words, _, _, _, pruned = _DICTIONARY.unpack_from(content, _SETTINGS.size)
    place = _SETTINGS.size + _DICTIONARY.size
    for _ in range(words):
        end = content.find(b"\0", place)
        if end < 0:
            raise ValueError(place)
        place = end + _ENTRY
    place += 8 * max(pruned, 0)
    (quantised,) = struct.unpack_from("<?", content, place)
    place = _matrix(content, place + 1, quantised=quantised)
    (outputs_too,) = struct.unpack_from("<?", content, place)
    return _matrix(content, place + 1, quantised=quantised and outputs_too)


def _matrix(content: mmap.mmap, place: int, *, quantised: bool) -> int:
    """Return where a matrix ends."""
    if not quantised:
        rows, columns = map(int, _SHAPE.unpack_from(content, place))
        return place + _SHAPE.size + rows * columns * _REAL
    norms, rows, _, codes = _CODES.unpack_from(content, place)
    place = _quantiser(content, place + _CODES.size + codes)
    return _quantiser(content, place + rows) if norms else place


def _quantiser(content: mmap.mmap, place: int) -> int:
    dimensions = int(_QUANTISER.unpack_from(content, place)[0])
    return place + _QUANTISER.size + dimensions * _CENTROIDS * _REAL
