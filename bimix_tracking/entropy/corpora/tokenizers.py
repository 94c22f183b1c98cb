"""What turns text into token ids: bytes by default, or the tokenizer that the model will be trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import CorpusError
from bimix_tracking.plugins import named

Ids = npt.NDArray[np.uint16 | np.uint32]
"""Token ids of a text, shape (tokens,); of 16 bits where the vocabulary allows."""
PIECE = 1 << 20
"""Characters that are tokenised at once: tokenizers take some 120 bytes of memory for each."""


class Tokenizer(Protocol):
    """Text → token ids, without special tokens."""

    spec: str
    """Its name for a manifest: what it is, and a hash of its file."""
    vocabulary: int
    """How many ids there are."""

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""


class BytesTokenizer:
    """UTF-8 bytes: 256 ids, of every text alike, and no file is needed.

    Entropies of bytes say less than those of the tokens that a model will see: give its tokenizer where there is one.

    >>> BytesTokenizer()(["añ", ""])
    [array([ 97, 195, 177], dtype=uint16), array([], dtype=uint16)]
    """

    spec = "bytes"
    vocabulary = 256

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the bytes of each text; what is half of a character becomes a question mark."""
        return [np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.uint16) for text in texts]


def open_tokenizer(spec: str) -> Tokenizer:
    """Open a tokenizer.

    Args:
        spec: `bytes`, `tokenizers:FILE`, `transformers:FOLDER`, a name from an entry point of the group
            `bimix_tracking.tokenizers`; or a path alone, of a `tokenizer.json` or a folder that holds one.

    Raises:
        CorpusError: No such tokenizer, or its file cannot be read.
        MissingDependencyError: Its library isn't installed.

    >>> open_tokenizer("bytes").vocabulary
    256
    >>> open_tokenizer("runes")
    Traceback (most recent call last):
    bimix_tracking.errors.CorpusError: no tokenizer 'runes': it is not bytes, nor the path of a tokenizer.json;
    choose from 'tokenizers', 'transformers'
    """
    path = Path(spec)
    if spec == "bytes":
        return BytesTokenizer()
    if spec and path.exists():
        path = path / "tokenizer.json" if path.is_dir() and (path / "tokenizer.json").is_file() else path
        spec = f"transformers:{path}" if path.is_dir() else f"tokenizers:{path}"
    kind, _, argument = spec.partition(":")
    said = f"no tokenizer {spec!r}: it is not bytes, nor the path of a tokenizer.json"
    opened: Tokenizer = named("tokenizer", kind, CorpusError, said)(argument)
    return opened


def narrow(ids: Iterable[Sequence[int]], vocabulary: int) -> list[Ids]:
    """Return lists of ids as arrays of as few bits as the vocabulary needs."""
    kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    return [np.array(row, kind) for row in ids]


def ids_in_pieces(
    texts: Sequence[str], encode: Callable[[list[str]], Iterable[Sequence[int]]], vocabulary: int
) -> list[Ids]:
    """Tokenise texts, at most 2²⁰ characters at once, so that memory is bounded however long a text is.

    A text of more than 2²⁰ characters is cut, at a line end where there is one, and its pieces are tokenised by
    themselves. That can change the tokens that would have reached over a cut, and a tokenizer that puts a space before
    each text puts one there: a token or two in some 250,000. A text is cut alike in any batch.

    Args:
        texts: Of any length.
        encode: Texts → the ids of each.
        vocabulary: How many ids there are.

    >>> ids_in_pieces(["ab", ""], lambda texts: [list(text.encode()) for text in texts], 256)
    [array([97, 98], dtype=uint16), array([], dtype=uint16)]
    """
    found: list[list[Ids]] = [[] for _ in texts]
    held: list[tuple[int, str]] = []
    size = 0

    def take() -> None:
        rows = narrow(encode([piece for _, piece in held]), vocabulary)
        for (number, _), ids in zip(held, rows, strict=True):
            found[number].append(ids)
        held.clear()

    for number, text in enumerate(texts):
        for piece in _pieces(text):
            if held and size + len(piece) > PIECE:
                take()
                size = 0
            held.append((number, piece))
            size += len(piece)
    if held:
        take()
    return [rows[0] if len(rows) == 1 else np.concatenate(rows) for rows in found]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        end = _cut(text, start + PIECE // 2, start + PIECE)
        yield text[start:end]
        start = end
    yield text[start:]


def _cut(text: str, first: int, last: int) -> int:
    """Return where to cut: after a line end, best a single one before a word, which tokens seldom reach over."""
    end = last
    while (end := text.rfind("\n", first, end)) >= 0:
        if not text[end - 1].isspace() and text[end + 1].isalnum():
            return end + 1
    # Of a space, before: most tokenizers have it begin the next word.
    return text.rfind("\n", first, last) + 1 or max(text.rfind(" ", first, last), 0) or last


def fingerprint(paths: Iterable[Path]) -> str:
    """Return 12 digits that files of this content have, and no others.

    Raises:
        CorpusError: One cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                digest.update(path.name.encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:12]
