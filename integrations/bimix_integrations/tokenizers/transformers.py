"""A tokenizer's folder through Hugging Face's `transformers`: for those that have no `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bimix_tracking.errors import CorpusError, MissingDependencyError
from bimix_tracking.tokens import Ids, fingerprint, narrow

try:
    import transformers
except ModuleNotFoundError as error:
    raise MissingDependencyError("transformers", extra="transformers") from error


class TransformersTokenizer:
    """Text → ids of any tokenizer that `AutoTokenizer` opens from a folder; no special tokens, nothing cut off.

    Args:
        folder: On the disk: nothing is fetched, and code that lies in it isn't run.

    Raises:
        CorpusError: There is no such folder, or no tokenizer in it.
    """

    def __init__(self, folder: str) -> None:
        if not Path(folder).is_dir():
            raise CorpusError(f"transformers:{folder}: there is no such folder. Fetch the tokenizer first")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CorpusError(f"transformers:{folder}: no tokenizer can be read there: {error}") from error
        self.vocabulary = max(self._tokenizer.get_vocab().values(), default=0) + 1
        files = [path for path in Path(folder).iterdir() if path.is_file() and path.stat().st_size < 1 << 27]
        self.spec = f"transformers:{Path(folder).name} ({self.vocabulary:,} ids, {fingerprint(files)})"

    def __call__(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text."""
        if not texts:
            return []
        found = self._tokenizer(list(texts), add_special_tokens=False, truncation=False, padding=False, verbose=False)
        return narrow(found["input_ids"], self.vocabulary)
