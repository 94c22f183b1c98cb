"""A `tokenizer.json` through Hugging Face's `tokenizers`: in Rust, on all cores unless TOKENIZERS_PARALLELISM=false."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bimix_tracking.entropy.corpora.tokenizers import Ids, fingerprint, ids_in_pieces
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import tokenizers
except ModuleNotFoundError as error:
    raise MissingDependencyError("tokenizers", extra="corpora") from error


class TokenizersTokenizer:
    """Text → ids of a `tokenizer.json`, no special tokens added, nothing cut off.

    Long texts are tokenised in pieces (`ids_in_pieces`).

    Args:
        path: The file.

    Raises:
        CorpusError: It cannot be read, or is no such file.
    """

    def __init__(self, path: str) -> None:
        if not path:
            raise CorpusError("tokenizers: which one? Give its file: tokenizers:FOLDER/tokenizer.json")
        digest = fingerprint([Path(path)])
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(path)
        except Exception as error:  # it raises nothing more special
            raise CorpusError(f"{path} is not a tokenizer.json: {error}") from error
        # A file may say that texts are to be cut to a model's length, and filled up to it.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=0) + 1
        self.spec = f"tokenizers:{Path(path).name} ({self.vocabulary:,} ids, {digest})"

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        return ids_in_pieces(texts, self._encode, self.vocabulary)

    def _encode(self, texts: list[str]) -> Iterator[Sequence[int]]:
        return (found.ids for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
