"""What every format of a corpus is read as: blocks, that can be read apart, of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.integer]
"""Token ids, shape (tokens,); or (sequences, tokens) of documents that are a sequence each, packed already."""

BLOCK_BYTES = 16 << 20
"""How much of a file is one block, in bytes of text as it is without compression."""


@dataclass(frozen=True)
class Reading:
    """How files are to be read.

    Args:
        text_field: The field of a JSONL line, or the column of a table, that holds the text. With dots: `data.text` is
            `text` of the object, or struct column, `data`, unless a field is literally called so.
        encoding: Of text and JSONL files.
        token_dtype: Of raw token ids (`.bin` without an index): `uint16`, `int32` and so on; `.npy` files say theirs.
        block_bytes: How much of a file is one block.
        skip_bad: Whether unreadable documents are skipped, counted and named, instead of an error.
        text_fields: By domain, where it is another than `text_field`.
    """

    text_field: str = "text"
    encoding: str = "utf-8"
    token_dtype: str | None = None
    block_bytes: int = BLOCK_BYTES
    skip_bad: bool = False
    text_fields: Mapping[str, str] = field(default_factory=dict)

    def of(self, domain: str | None) -> Self:
        """Return how files of a domain are to be read: its text field is the only one.

        >>> Reading(text_fields={"code": "content"}).of("code").text_field
        'content'
        """
        own = self.text_field if domain is None else self.text_fields.get(domain, self.text_field)
        return replace(self, text_field=own, text_fields={})


@dataclass(frozen=True)
class Block:
    """A piece of a file that is read by itself, by a thread here or a task on another machine. It can be pickled.

    Args:
        format: The name under which `open_format` knows the file's format.
        path: The file.
        name: The file as it is called below the corpus's folder: the same wherever the corpus lies.
        start: Where it begins, in the format's own unit: bytes, row groups, tokens.
        stop: Where it ends; of a file that cannot be entered in the middle (gzip), its end.
        size: Bytes on the disk, for progress.
        domain: The domain that it is of, if that is known: its text may be in a field of its own.
    """

    format: str
    path: str
    name: str
    start: int
    stop: int
    size: int
    domain: str | None = None


class Document(NamedTuple):
    """One document of a block: its text, or the ids of its tokens; of a table of ids, as many as it has rows.

    `group` numbers the stretches of a file within which sequences may be packed: it depends on the file's content
    alone, never on compression or on who reads which block. Of byte formats it is (offset of the document's first byte
    in the uncompressed file) // block_bytes.
    """

    content: str | Tokens
    group: int


@dataclass
class Problem:
    """Something of a file that could not be read, and was skipped as asked for.

    Args:
        where: File and place: `data/a.jsonl.gz, line 3`.
        what: What is wrong with it.
        documents: How many documents were lost, as far as that can be known; at least one.
    """

    where: str
    what: str
    documents: int = 1


@dataclass
class Problems:
    """What was skipped, by `skip_bad`; the first few are named, all are counted."""

    count: int = 0
    first: list[Problem] = field(default_factory=list)

    MOST_NAMED = 20

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is among the first."""
        self.count += problem.documents
        if len(self.first) < self.MOST_NAMED:
            self.first.append(problem)


class Format(Protocol):
    """How files of one format are read. Stateless: one instance reads all of them."""

    def blocks(self, path: Path, name: str, reading: Reading) -> Sequence[Block]:
        """Divide a file into blocks, without reading more of it than its index.

        Raises:
            CorpusError: The file cannot be opened, or is no such file.
        """

    def read(self, block: Block, reading: Reading, problems: Problems) -> Iterator[Document]:
        """Read the documents that begin in a block, in their order, in bounded memory.

        Raises:
            CorpusError: Something cannot be read and `reading.skip_bad` isn't set; names file, place and remedy.
        """
