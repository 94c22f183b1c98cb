"""Plain text: a file is a document, in as many parts as it has blocks."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from bimix_tracking.entropy.corpora.documents import Block, Document, Problem, Problems, Reading
from bimix_tracking.entropy.corpora.streams import blocks_of_bytes, decoded, line, pieces
from bimix_tracking.errors import CorpusError


class TextFormat:
    """Files of text, `.gz` and `.zst` too. A file larger than a block is cut at line ends; no pair crosses a cut."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by its bytes."""
        return blocks_of_bytes(path, name, "text", reading)

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the lines that begin in a block, as one document for each group.

        A line longer than a block comes in parts, each a document of the group that the line began in. Where a
        compressed file is damaged, the whole damaged document is skipped.
        """
        size = reading.block_bytes

        def take(stream: IO[bytes], offset: int) -> tuple[bytes, bool]:
            content = stream.read(size - offset % size)
            if content.endswith(b"\n"):
                return content, True
            rest, whole = line(stream, size)
            return content + rest, whole

        group, whole, decoder = 0, True, None
        for piece in pieces(block, reading, problems, take, size):
            if whole:
                group, decoder = piece.offset // size, codecs.getincrementaldecoder(reading.encoding)()
            whole = piece.whole
            try:
                content = decoded(piece, reading, decoder)
            except CorpusError as error:
                if not reading.skip_bad:
                    raise CorpusError(f"{block.path} {error}") from error
                end = piece.offset + len(piece.content)
                problems.add(Problem(f"{block.path}, bytes {piece.offset:,} to {end:,}", str(error)))
                decoder = codecs.getincrementaldecoder(reading.encoding)()
                continue
            if content:
                yield Document(content, group)
