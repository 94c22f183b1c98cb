"""Sentence vectors of a fastText model: what the paper embeds with (arXiv 2405.14908v4, App. A)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bimix_integrations.embedders.fasttext_file import check_whole
from bimix_integrations.embedders.folder import model_files, spec
from bimix_tracking.entropy.corpora.embedders import Vectors
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import fasttext
except ModuleNotFoundError as error:
    raise MissingDependencyError("fasttext", extra="fasttext") from error


class FastTextEmbedder:
    """Mean of the words' unit vectors, of a `.bin` model such as `cc.en.300.bin`; line ends count as spaces.

    Of a supervised model, which has no vectors of words alone, the mean of what it classifies by.

    Args:
        path: The file.

    Raises:
        CorpusError: There is none, it is no such model, or only part of one.
    """

    def __init__(self, path: str) -> None:
        model_files("fasttext", path)
        if not Path(path).is_file():
            raise CorpusError(f"fasttext:{path}: a folder, not a fastText model; give the file in it")
        check_whole(path)
        try:
            self._model = fasttext.load_model(path)
        except ValueError as error:
            raise CorpusError(f"fasttext:{path}: it is not a fastText model: {error}") from error
        self.dimensions = int(self._model.get_dimension())
        self.spec = spec("fasttext", path, f"{self.dimensions} dimensions")

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each."""
        rows = [self._model.get_sentence_vector(" ".join(text.split())) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.dimensions)
