"""What turns text into token ids: bytes by default, or the tokenizer that the model will be trained with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import CorpusError
from bimix_tracking.plugins import named

Ids = npt.NDArray[np.uint16 | np.uint32]
"""Token ids of a text, shape (tokens,); of 16 bits where the vocabulary allows."""


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
    bimix_tracking.errors.CorpusError: no tokenizer 'runes'; there are bytes, tokenizers, transformers, and paths of
    tokenizer.json files
    """
    path = Path(spec)
    if spec == "bytes":
        return BytesTokenizer()
    if spec and path.exists():
        path = path / "tokenizer.json" if path.is_dir() and (path / "tokenizer.json").is_file() else path
        spec = f"transformers:{path}" if path.is_dir() else f"tokenizers:{path}"
    kind, _, argument = spec.partition(":")
    try:
        make: Any = named("tokenizers", kind)
    except KeyError as error:
        known = ", ".join(["bytes", *error.args[0].split(", ")])
        raise CorpusError(f"no tokenizer {spec!r}; there are {known}, and paths of tokenizer.json files") from error
    opened: Tokenizer = make(argument)
    return opened


def narrow(ids: Iterable[Sequence[int]], vocabulary: int) -> list[Ids]:
    """Return lists of ids as arrays of as few bits as the vocabulary needs."""
    kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    return [np.array(row, kind) for row in ids]


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
