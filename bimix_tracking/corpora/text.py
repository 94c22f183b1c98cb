"""Plain text: a file is a document, in as many parts as it has blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bimix_tracking.corpora.documents import Block, Document, Problem, Problems, Reading
from bimix_tracking.corpora.streams import blocks_of_bytes, decoded, lines
from bimix_tracking.errors import CorpusError


class TextFormat:
    """Files of text, `.gz` and `.zst` too. A file larger than a block is cut at line ends; no pair crosses a cut."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by its bytes."""
        return blocks_of_bytes(path, name, "text", reading)

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the lines that begin in a block, as one document for each group."""
        group, start, kept = -1, 0, bytearray()
        # A line longer than a block comes in parts, each a document: what cannot be cut at a line end is cut anyway.
        for line in lines(block, reading, problems, reading.block_bytes):
            at = line.offset // reading.block_bytes
            if at != group:
                yield from self._document(bytes(kept), group, start, block, reading, problems)
                group, start = at, line.offset
                kept.clear()
            kept += line.content
        yield from self._document(bytes(kept), group, start, block, reading, problems)

    def _document(
        self, content: bytes, group: int, start: int, block: Block, reading: Reading, problems: Problems
    ) -> Iterator[Document]:
        if not content:
            return
        try:
            yield Document(decoded(content, start, block, reading), group)
        except CorpusError as error:
            if not reading.skip_bad:
                raise
            problems.add(Problem(f"{block.path}, bytes {start:,} to {start + len(content):,}", str(error)))
