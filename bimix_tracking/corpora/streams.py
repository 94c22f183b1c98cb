"""Lines of a file as they are without compression, and what may go wrong on the way to them."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from bimix_tracking.corpora.documents import Block, Problem, Problems, Reading
from bimix_tracking.errors import CorpusError, MissingDependencyError

COMPRESSED = (".gz", ".zst")
"""Suffixes of files that are read through a decompressor, from the beginning on."""


class Line(NamedTuple):
    """A line with its end, or as much of it as was asked for.

    Args:
        offset: Of its first byte in the file as it is without compression.
        content: Its bytes.
        whole: Whether that is all of it.
    """

    offset: int
    content: bytes
    whole: bool


def blocks_of_bytes(path: Path, name: str, file_format: str, reading: Reading) -> list[Block]:
    """Divide a file by offsets; one that is compressed is one block.

    Raises:
        CorpusError: It cannot be looked at.
    """
    size = size_of(path)
    if path.suffix in COMPRESSED:
        return [Block(file_format, str(path), name, 0, size, size)]
    starts = range(0, size, reading.block_bytes)
    return [
        Block(file_format, str(path), name, start, end, end - start)
        for start, end in zip(starts, [*starts[1:], size], strict=False)
    ]


def size_of(path: Path) -> int:
    """Return a file's size.

    Raises:
        CorpusError: It cannot be looked at.
    """
    try:
        return path.stat().st_size
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error


def lines(block: Block, reading: Reading, problems: Problems, longest: int) -> Iterator[Line]:
    """Yield the lines that begin in a block, up to where the file is damaged.

    Args:
        block: Of `blocks_of_bytes`.
        reading: Whether damage is to be skipped.
        problems: Where it is counted then.
        longest: Bytes of a line that are read at once; a longer one comes in parts.

    Raises:
        CorpusError: The file is damaged, and damage isn't to be skipped.
    """
    _check_encoding(block, reading)
    with _opened(block) as stream:
        offset, whole = block.start, True
        stop = None if block.path.endswith(COMPRESSED) else block.stop
        try:
            if block.start:
                stream.seek(block.start - 1)
                skipped = stream.readline(longest)
                # A line that began before is that block's, to its end.
                while skipped and not skipped.endswith(b"\n"):
                    offset += len(skipped)
                    skipped = stream.readline(longest)
                offset += len(skipped) - 1
            while stop is None or offset < stop or not whole:
                content = stream.readline(longest)
                if not content:
                    return
                whole = content.endswith(b"\n") or len(content) < longest
                yield Line(offset, content, whole)
                offset += len(content)
        except (OSError, EOFError, zlib.error) as error:
            where = f"{block.path}, after {offset:,} bytes of its content"
            what = f"the file is damaged or cut off ({error})"
            if not reading.skip_bad:
                raise CorpusError(f"{where}: {what}: fetch it again, or skip what cannot be read") from error
            problems.add(Problem(where, what))


def decoded(content: bytes, offset: int, block: Block, reading: Reading) -> str:
    """Return bytes as text.

    Raises:
        CorpusError: They aren't of the encoding; says at which byte of the file's content.
    """
    if offset == 0:
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(reading.encoding)
    except UnicodeDecodeError as error:
        bad = content[error.start : error.start + 1].hex()
        raise CorpusError(
            f"{block.path}, byte {offset + error.start:,}: 0x{bad} is no {reading.encoding}: give the file's encoding, "
            "or skip what cannot be read"
        ) from error


def _check_encoding(block: Block, reading: Reading) -> None:
    try:
        end = "\n".encode(reading.encoding)
    except LookupError as error:
        raise CorpusError(f"{reading.encoding!r} is no encoding that Python knows, such as utf-8 or latin-1") from error
    if not end.endswith(b"\n") or len(end.removeprefix(codecs.BOM_UTF8)) != 1:
        raise CorpusError(
            f"{block.path}: files in {reading.encoding} cannot be divided at line ends: convert them to utf-8"
        )


@contextlib.contextmanager
def _opened(block: Block) -> Iterator[IO[bytes]]:
    path = Path(block.path)
    try:
        raw = path.open("rb")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    with raw:
        if path.suffix == ".gz":
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
        elif path.suffix == ".zst":
            yield _unpacked(raw)
        else:
            yield raw


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    try:
        import pyarrow as pa  # noqa: PLC0415  # only for such files; unlike others it tells when one is cut off
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pyarrow", extra="corpora") from error
    return cast("IO[bytes]", io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), 1 << 20))
