"""A tokenizer's folder through Hugging Face's `transformers`: for those that have no `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bimix_tracking.entropy.corpora.tokenizers import Ids, fingerprint, ids_in_pieces
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import transformers
except ModuleNotFoundError as error:
    raise MissingDependencyError("transformers", extra="transformers") from error


_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_WEIGHTS = 1 << 27


class TransformersTokenizer:
    """Text → ids of any tokenizer that `AutoTokenizer` opens from a folder; no special tokens, nothing cut off.

    Long texts are tokenised in pieces (`ids_in_pieces`).

    Args:
        folder: On the disk: nothing is fetched, and code that lies in it isn't run.

    Raises:
        CorpusError: There is no such folder, or no tokenizer in it.
    """

    def __init__(self, folder: str) -> None:
        if not folder:
            raise CorpusError("transformers: which tokenizer? Give its folder: transformers:FOLDER")
        if not Path(folder).is_dir():
            raise CorpusError(f"transformers:{folder}: there is no such folder. Fetch the tokenizer first")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CorpusError(f"transformers:{folder}: no tokenizer can be read there: {error}") from error
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=0) + 1
        self.spec = f"transformers:{Path(folder).name} ({self.vocabulary:,} ids, {fingerprint(self._files(folder))})"

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        return ids_in_pieces(texts, self._encode, self.vocabulary)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        found = self._tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def _files(self, folder: str) -> list[Path]:
        """Return the tokenizer's files, not the model's: all checkpoints of a training have one tokenizer."""
        files = [path for path in Path(folder).iterdir() if path.is_file()]
        vocabularies = {*self._tokenizer.vocab_files_names.values(), "tokenizer.json"}
        if vocabularies.isdisjoint(path.name for path in files):
            # One with code of its own has a file of any name. Weights are larger than any of them.
            return [path for path in files if path.stat().st_size < _WEIGHTS]
        return [path for path in files if path.name in vocabularies or path.name in _SETTINGS]
