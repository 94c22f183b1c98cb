"""Pieces of a file as it is without compression, and what may go wrong on the way to them."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from bimix_tracking.entropy.corpora.documents import Block, Problem, Problems, Reading
from bimix_tracking.errors import CorpusError, MissingDependencyError

COMPRESSED = (".gz", ".zst")
"""Suffixes of files that are read through a decompressor, from the beginning on."""


_SKIPPED = 1 << 20
"""Bytes of another block's lines that are read at once."""
_COUNTED = 1 << 30
"""Bytes at the beginning of a file in which the lines are counted, to name one."""


class Piece(NamedTuple):
    """A line with its end, or several; or as much of a line as was asked for.

    Args:
        offset: Of its first byte in the file as it is without compression.
        content: Its bytes.
        whole: Whether it ends where a line or the file does.
    """

    offset: int
    content: bytes
    whole: bool


Take = Callable[[IO[bytes], int], tuple[bytes, bool]]
"""Reads a piece of a stream that is at an offset where a line begins, and says whether it is whole."""


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


def pieces(block: Block, reading: Reading, problems: Problems, take: Take, longest: int) -> Iterator[Piece]:
    """Yield the lines that begin in a block, up to where the file is damaged.

    Args:
        block: Of `blocks_of_bytes`.
        reading: Whether damage is to be skipped.
        problems: Where it is counted then.
        take: Reads a piece.
        longest: Bytes of a line that are read at once, where a piece left some of it.

    Raises:
        CorpusError: The file is damaged, and damage isn't to be skipped.
    """
    _check_encoding(block, reading)
    with _opened(block) as stream:
        offset, whole = block.start, True
        stop = None if block.path.endswith(COMPRESSED) else block.stop
        try:
            if stop is None and not block.size:
                raise EOFError("it is empty, and not a compressed file")  # noqa: TRY301  # as damage is reported
            if block.start:
                offset = _first_line(stream, block)
            while stop is None or offset < stop or not whole:
                ended = whole
                content, whole = take(stream, offset) if whole else line(stream, longest)
                if content or not ended:
                    yield Piece(offset, content, whole)
                if not content:
                    return
                offset += len(content)
        except (OSError, EOFError, zlib.error) as error:
            where = f"{block.path}, after {offset:,} bytes of its content"
            what = f"the file is damaged or cut off ({error})"
            if not reading.skip_bad:
                raise CorpusError(f"{where}: {what}: fetch it again, or skip what cannot be read") from error
            problems.add(Problem(where, what))


def line(stream: IO[bytes], longest: int) -> tuple[bytes, bool]:
    """Return a line, or so many bytes of it, and whether that is all."""
    content = stream.readline(longest)
    return content, content.endswith(b"\n") or len(content) < longest


def line_number(block: Block, offset: int) -> int | None:
    """Return the number, from 1, of the line that begins at an offset; None if that would take long to count."""
    if offset > _COUNTED:
        return None
    found, left = 1, offset
    with contextlib.suppress(OSError), _opened(block) as stream:
        while left and (content := stream.read(min(left, _SKIPPED))):
            found += content.count(b"\n")
            left -= len(content)
        return found
    return None


def decoded(piece: Piece, reading: Reading, decoder: codecs.IncrementalDecoder | None = None) -> str:
    """Return a piece as text, without the mark that may be at the beginning of a file.

    Args:
        piece: The bytes.
        reading: Of which encoding they are.
        decoder: Of that encoding, for all pieces of a line in turn: characters may go across.

    Raises:
        CorpusError: They aren't of the encoding; says at which byte of the file's content, and not in which file.
    """
    content, offset = piece.content, piece.offset
    if offset == 0 and content.startswith(codecs.BOM_UTF8):
        content, offset = content[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
    try:
        if decoder is None:
            return content.decode(reading.encoding)
        offset -= len(decoder.getstate()[0])
        return decoder.decode(content, piece.whole)
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1].hex()
        raise CorpusError(
            f"isn't {reading.encoding}: 0x{bad} at byte {offset + error.start:,} of the file: give the file's "
            "encoding, or skip what cannot be read"
        ) from error


def _first_line(stream: IO[bytes], block: Block) -> int:
    """Go to the first line that begins in a block, or else to the block's end; return where that is.

    A line that began before is an earlier block's, which reads it to its end.
    """
    offset = block.start - 1
    stream.seek(offset)
    while offset < block.stop:
        skipped = stream.readline(min(_SKIPPED, block.stop - offset))
        offset += len(skipped)
        if not skipped or skipped.endswith(b"\n"):
            break
    return offset


def _check_encoding(block: Block, reading: Reading) -> None:
    try:
        end = "\n".encode(reading.encoding)
    except (LookupError, ValueError) as error:
        raise CorpusError(
            f"{reading.encoding!r} is not an encoding that Python knows, such as utf-8 or latin-1"
        ) from error
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
        import pyarrow as pa  # noqa: PLC0415  # only for such files; unlike others it reports truncation
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pyarrow", extra="corpora") from error
    return cast("IO[bytes]", io.BufferedReader(pa.CompressedInputStream(raw, "zstd"), 1 << 20))
