"""Sentence embeddings by `sentence-transformers`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimix_integrations.embedders.folder import model_files, spec
from bimix_tracking.entropy.corpora.embedders import Vectors
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import sentence_transformers
except ModuleNotFoundError as error:
    raise MissingDependencyError("sentence-transformers", extra="sentence-transformers") from error


class SentenceTransformersEmbedder:
    """Vectors of a model's folder; of a passage longer than the model takes, its beginning.

    Args:
        folder: On the disk: nothing is fetched.

    Raises:
        CorpusError: There is none, or it holds no such model.
    """

    def __init__(self, folder: str) -> None:
        model_files("sentence-transformers", folder)
        try:
            self._model = sentence_transformers.SentenceTransformer(folder, local_files_only=True)
        except Exception as error:  # files of any kind raise anything
            raise CorpusError(f"sentence-transformers:{folder}: no model can be read there: {error}") from error
        first = self._model.encode(["a"], show_progress_bar=False)
        self.dimensions = int(first.shape[1])
        more = f"{self.dimensions} dimensions, {self._model.max_seq_length} tokens of a passage"
        self.spec = spec("sentence-transformers", folder, more)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each."""
        rows = np.asarray(self._model.encode(list(texts), show_progress_bar=False), np.float32)
        return rows.reshape(len(texts), self.dimensions)  # of no texts too
