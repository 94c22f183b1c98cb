"""JSON lines: a line is a document, its text in a field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bimix_tracking.entropy.corpora.documents import Block, Document, Problem, Problems, Reading, Tokens
from bimix_tracking.entropy.corpora.fields import OTHER_FIELD, named, path_of
from bimix_tracking.entropy.corpora.streams import Piece, blocks_of_bytes, decoded, line, line_number, pieces
from bimix_tracking.errors import CorpusError

LONGEST_LINE = 256 << 20
"""Bytes of a line beyond which it is no document but a file of another kind."""


_parse = json.JSONDecoder().decode


class JsonlFormat:
    """Files of one JSON object a line, `.gz` and `.zst` too: a string is text, a list of whole numbers token ids."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file by its bytes."""
        return blocks_of_bytes(path, name, "jsonl", reading)

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the lines that begin in a block; empty ones are passed over."""
        rest, number = False, 0
        for piece in pieces(block, reading, problems, lambda stream, _: line(stream, LONGEST_LINE), LONGEST_LINE):
            begins, rest = not rest, not piece.whole
            if not begins:
                continue  # of a line that was refused already
            number += 1
            try:
                content = _content(piece, reading)
            except CorpusError as error:
                # Lines before the block are counted for the one error that ends it all, not for each that is skipped.
                known = number if not block.start else None if reading.skip_bad else line_number(block, piece.offset)
                where = f"{block.path}, line {f'{known:,} ' if known else ''}at byte {piece.offset:,}"
                if not reading.skip_bad:
                    raise CorpusError(f"{where} {error}") from error
                problems.add(Problem(where, str(error)))
                continue
            if content is not None:
                yield Document(content, piece.offset // reading.block_bytes)


def _content(piece: Piece, reading: Reading) -> str | Tokens | None:
    """Return a line's text or token ids, or None if it is empty.

    Raises:
        CorpusError: It has neither; doesn't say where.
    """
    if not piece.whole:
        raise CorpusError(f"has {LONGEST_LINE:,} bytes or more: is this a file of JSON lines?")
    if piece.content.isspace():
        return None
    text = decoded(piece, reading)
    try:
        found = _parse(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"is not JSON: {error}. JSON lines have one object per line; give the file's format if it is another"
        ) from error
    if not isinstance(found, dict):
        raise CorpusError(f"holds {_kind(found)}, not an object with a field {reading.text_field!r}")
    value = found
    for name in _path(found, reading):
        value = value[name]
    if isinstance(value, str):
        # JSON can spell halves of surrogate pairs, which no tokenizer takes; UTF-8 cannot.
        if not value.isascii() and "\\u" in text and not _is_text(value):
            raise CorpusError(f"has half of a surrogate pair in field {reading.text_field!r}, which is not text")
        return value
    if isinstance(value, list) and all(type(number) is int for number in value):
        try:
            return np.array(value, np.int64)
        except OverflowError as error:
            raise CorpusError(f"has a token id beyond 63 bits in field {reading.text_field!r}") from error
    there = f"; there are {named(value, reading.text_field)}. {OTHER_FIELD}" if isinstance(value, dict) else ""
    raise CorpusError(
        f"holds {_kind(value)} in field {reading.text_field!r}, neither text nor a list of token ids{there}"
    )


def _path(found: dict[str, Any], reading: Reading) -> tuple[str, ...]:
    path = path_of(reading.text_field, found)
    if path is None:
        raise CorpusError(f"has no field {reading.text_field!r}; there are {named(found)}. {OTHER_FIELD}")
    return path


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}.get(
        type(value), "a number"
    )
