"""JSON lines: a line is a document, its text in a field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bimix_tracking.corpora.documents import Block, Document, Problem, Problems, Reading, Tokens
from bimix_tracking.corpora.streams import Line, blocks_of_bytes, decoded, lines
from bimix_tracking.errors import CorpusError

LONGEST_LINE = 256 << 20
"""Bytes of a line beyond which it is no document but a file of another kind."""


class JsonlFormat:
    """Files of one JSON object a line, `.gz` and `.zst` too: a string is text, a list of whole numbers token ids."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by its bytes."""
        return blocks_of_bytes(path, name, "jsonl", reading)

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the lines that begin in a block; empty ones are passed over."""
        too_long = False
        for line in lines(block, reading, problems, LONGEST_LINE):
            rest, too_long = too_long, not line.whole
            if rest:
                continue  # of a line that was refused already
            try:
                content = self._content(line, block, reading)
            except CorpusError as error:
                if not reading.skip_bad:
                    raise
                problems.add(Problem(f"{block.path}, line at byte {line.offset:,}", str(error)))
                continue
            if content is not None:
                yield Document(content, line.offset // reading.block_bytes)

    def _content(self, line: Line, block: Block, reading: Reading) -> str | Tokens | None:
        where = f"{block.path}, line at byte {line.offset:,}"
        if not line.whole:
            raise CorpusError(f"{where}: it has more than {LONGEST_LINE:,} bytes: is this a file of JSON lines?")
        if line.content.isspace():
            return None
        text = decoded(line.content, line.offset, block, reading)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise CorpusError(f"{where} holds {_kind(found)}, not an object with a field {reading.text_field!r}")
        if reading.text_field not in found:
            there = ", ".join(map(repr, list(found)[:10])) or "none"
            raise CorpusError(f"{where} has no field {reading.text_field!r}; there are {there}. Give the text's field")
        return content_of(found[reading.text_field], f"{where}, field {reading.text_field!r}")


def content_of(value: Any, where: str) -> str | Tokens:
    """Return a field's text or token ids.

    Raises:
        CorpusError: It is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(number) is int for number in value):
        try:
            return np.array(value, np.int64)
        except OverflowError as error:
            raise CorpusError(f"{where}: a token id is beyond 63 bits") from error
    raise CorpusError(f"{where} holds {_kind(value)}, neither text nor a list of token ids")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}.get(
        type(value), "a number"
    )
