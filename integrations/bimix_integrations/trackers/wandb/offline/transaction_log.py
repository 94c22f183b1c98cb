"""W&B's transaction log (`run-<id>.wandb`): its bytes as records, whole ones only, and where and why reading ended.

The file is a log in LevelDB's manner: 7 bytes of header (`:W&B`, magic 0xBEE1, version 0), then blocks of 32 KiB of
chunks [CRC-32 of type and payload, 4 bytes | length, 2 bytes | type, 1 byte | payload]; of the types, 1 is a whole
record, 2, 3 and 4 are the first, a middle and the last part of one. Every record is a protobuf message `Record`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from bimix_tracking.errors import RunError
from bimix_tracking.files.regular_file import opened

BLOCK = 32768
LARGEST = 2**26
"""Bytes of a record that are joined at most; W&B itself takes 25 MB a call."""

_HEADER = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
_CHUNK = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_SEEDS = [zlib.crc32(bytes([kind])) for kind in range(5)]


class TransactionLog:
    """One file, read once from its start by iterating; a block is in memory at a time.

    Args:
        path: The file.

    After the last record, `cut_off` says whether the file ends within a record, as it does where a writer was killed,
    and `damage` what was wrong where reading had to end before the end of the file.

    Raises:
        RunError: While iterating: the file is none of W&B's, of a version that isn't known, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut_off = False
        self.damage: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._records()
        except OSError as error:
            raise RunError(f"{self.path.name}: {error.strerror}") from error

    def _records(self) -> Iterator[bytes]:
        parts: list[bytes] = []
        joined = 0
        with opened(self.path, buffering=32 * BLOCK) as file:
            start, skip = 0, len(_HEADER)
            while block := file.read(BLOCK):
                if start == 0 and not self._begins_well(block):
                    return
                size = len(block)
                place = skip
                while place + 7 <= size:
                    checksum, length, kind = _CHUNK.unpack_from(block, place)
                    if checksum == length == kind == 0:
                        break  # zeros fill the rest of a block
                    payload = block[place + 7 : place + 7 + length]
                    if place + 7 + length > size:
                        # A chunk never reaches into the next block, so that this is the end, or no length.
                        whole = size == BLOCK
                        self._stop(start + place, "an impossible length" if whole else None)
                        return
                    if not _WHOLE <= kind <= _LAST:
                        self._stop(start + place, f"a chunk of unknown type {kind}")
                        return
                    if zlib.crc32(payload, _SEEDS[kind]) != checksum:
                        self._stop(start + place, "a wrong checksum")
                        return
                    if (kind in (_WHOLE, _FIRST)) == bool(parts):
                        self._stop(start + place, "parts of a record out of order")
                        return
                    place += 7 + length
                    if kind == _WHOLE:
                        yield payload
                        continue
                    parts.append(payload)
                    joined += length
                    if joined > LARGEST:
                        self._stop(start + place, f"a record of more than {LARGEST:,} bytes")
                        return
                    if kind == _LAST:
                        yield b"".join(parts)
                        parts, joined = [], 0
                if size < BLOCK:
                    self.cut_off = bool(parts) or (place < size and any(block[place:]))
                    return
                start, skip = start + BLOCK, 0
        self.cut_off = bool(parts) or start == 0

    def _begins_well(self, block: bytes) -> bool:
        if block.startswith(_HEADER):
            return True
        if _HEADER.startswith(block):
            self.cut_off = True
            return False
        if block.startswith(_HEADER[:6]):
            raise RunError(
                f"{self.path.name} is a W&B log of version {block[6]}; this package reads version 0: upgrade"
            )
        raise RunError(f"{self.path.name} is not a W&B log: it begins with {block[:7]!r}, not {_HEADER!r}")

    def _stop(self, place: int, what: str | None) -> None:
        if what is None:
            self.cut_off = True
        else:
            size = self.path.stat().st_size
            self.damage = f"{what} at byte {place:,} of {size:,}"
