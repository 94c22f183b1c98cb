"""A language model's own hidden states, through Hugging Face's `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bimix_integrations.embedders.folder import model_files, spec
from bimix_tracking.embedding import Vectors
from bimix_tracking.errors import CorpusError, MissingDependencyError

try:
    import torch
    import transformers
except ModuleNotFoundError as error:
    raise MissingDependencyError(str(error.name), extra="transformers") from error

_AT_ONCE = 16
_LONGEST = 512


class TransformersEmbedder:
    """Mean of the last hidden states over a passage's tokens, at most 512 or as many as the model takes.

    Args:
        folder: Of model and tokenizer, on the disk: nothing is fetched, and code in it isn't run.

    Raises:
        CorpusError: There is none, or no model or tokenizer in it.
    """

    def __init__(self, folder: str) -> None:
        model_files("transformers", folder)
        try:
            model = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CorpusError(f"transformers:{folder}: no model and tokenizer can be read there: {error}") from error
        self._prepare(model, tokenizer)
        self.spec = spec("transformers", folder, f"{self.dimensions} dimensions, {self._longest} tokens of a passage")

    @classmethod
    def of(cls, model: Any, tokenizer: Any, name: str = "") -> TransformersEmbedder:
        """Return the embedder of a model in memory, such as one in training; it stays in its mode and on its device."""
        embedder = cls.__new__(cls)
        embedder._prepare(model, tokenizer)  # noqa: SLF001  # its own class
        called = name or Path(str(getattr(model, "name_or_path", "")) or type(model).__name__).name
        embedder.spec = f"hidden states of {called} ({embedder.dimensions} dimensions)"
        return embedder

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Return a vector each; of zeros for a text without tokens."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        # By length, so that little is filled up; each passage's vector is its own.
        ids = [self._tokenizer(text, add_special_tokens=False, truncation=True, max_length=self._longest)["input_ids"]
               for text in texts]  # fmt: skip
        order = sorted((i for i, row in enumerate(ids) if row), key=lambda i: len(ids[i]))
        training = self._model.training
        self._model.eval()
        try:
            for first in range(0, len(order), _AT_ONCE):
                part = order[first : first + _AT_ONCE]
                rows[part] = self._means([ids[i] for i in part])
        finally:
            self._model.train(training)
        return rows

    def _prepare(self, model: Any, tokenizer: Any) -> None:
        # Of a model with a head for language, the body: its logits aren't needed.
        self._model = getattr(model, "base_model", model)
        self._tokenizer = tokenizer
        self.dimensions = int(self._model.config.hidden_size)
        most = getattr(self._model.config, "max_position_embeddings", None) or _LONGEST
        self._longest = min(int(most), _LONGEST)

    @torch.inference_mode()
    def _means(self, ids: Sequence[Sequence[int]]) -> Vectors:
        device = next(self._model.parameters()).device
        longest = max(map(len, ids))
        filled = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros_like(filled)
        for row, tokens in enumerate(ids):
            filled[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        filled, mask = filled.to(device), mask.to(device)
        states = self._model(input_ids=filled, attention_mask=mask).last_hidden_state.float()
        means = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return np.asarray(means.cpu().numpy(), np.float32)
