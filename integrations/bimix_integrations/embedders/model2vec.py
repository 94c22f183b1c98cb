"""Static embeddings by `model2vec`: a table of vectors, as fast as tokenising."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bimix_integrations.embedders.folder import model_files, spec
from bimix_tracking.entropy.corpora.embedders import Vectors
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import model2vec
except ModuleNotFoundError as error:
    raise MissingDependencyError("model2vec", extra="model2vec") from error


class Model2VecEmbedder:
    """Mean of the tokens' vectors, of a folder that `StaticModel.save_pretrained` left.

    Args:
        folder: On the disk.

    Raises:
        CorpusError: There is none, or it holds no such model.
    """

    def __init__(self, folder: str) -> None:
        model_files("model2vec", folder)
        try:
            self._model = model2vec.StaticModel.from_pretrained(folder)
        except Exception as error:  # files of any kind raise anything
            raise CorpusError(f"model2vec:{folder}: no model can be read there: {error}") from error
        self.dimensions = int(self._model.dim)
        self.spec = spec("model2vec", folder, f"{self.dimensions} dimensions")

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each."""
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        # Threads or a cluster's tasks call this: it starts no processes of its own.
        return np.asarray(self._model.encode(list(texts), max_length=None, use_multiprocessing=False), np.float32)
