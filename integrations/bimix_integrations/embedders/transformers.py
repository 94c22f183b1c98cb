"""A language model's own hidden states, through Hugging Face's `transformers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bimix_integrations.embedders.folder import model_files, spec
from bimix_tracking.entropy.corpora.embedders import Vectors
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
        CorpusError: There is none, no model or tokenizer in it, or a model of which weights are missing.
    """

    def __init__(self, folder: str) -> None:
        model_files("transformers", folder)
        try:
            model, loaded = transformers.AutoModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # files of any kind raise anything
            raise CorpusError(f"transformers:{folder}: no model and tokenizer can be read there: {error}") from error
        # What is missing would be drawn at random, by each process anew. A pooler isn't used.
        missing = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)
        if missing:
            raise CorpusError(
                f"transformers:{folder}: weights are missing, such as {missing[0]}, {len(missing)} in all: "
                "fetch the model again"
            )
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
        # Parts may be in another mode than the whole, such as frozen ones.
        training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        try:
            for first in range(0, len(order), _AT_ONCE):
                part = order[first : first + _AT_ONCE]
                rows[part] = self._means([ids[i] for i in part])
        finally:
            for module in training:
                module.training = True
        return rows

    def _prepare(self, model: Any, tokenizer: Any) -> None:
        if hasattr(model, "get_base_model"):  # PEFT's wrapping of a model, with the adapters in it
            model = model.get_base_model()
        # Of a model with a head for language, the body: its logits aren't needed. Of one that translates, what reads.
        body = getattr(model, "base_model", model)
        self._model = body.get_encoder() if body.config.is_encoder_decoder else body
        self._tokenizer = tokenizer
        self.dimensions = int(body.config.hidden_size)
        most = int(getattr(body.config, "max_position_embeddings", None) or _LONGEST)
        self._longest = min(most - _positions_before_the_first(self._model), _LONGEST)

    @torch.inference_mode()
    def _means(self, ids: Sequence[Sequence[int]]) -> Vectors:
        device = next(self._model.parameters()).device
        longest, known = max(map(len, ids)), self._model.get_input_embeddings().num_embeddings
        if (highest := max(map(max, ids))) >= known:
            raise CorpusError(
                f"the tokenizer gives id {highest:,}, where the model embeds {known:,}: they aren't of one model. "
                "Take the tokenizer that the model was trained with"
            )
        filled = torch.zeros((len(ids), longest), dtype=torch.long)
        mask = torch.zeros_like(filled)
        for row, tokens in enumerate(ids):
            filled[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        filled, mask = filled.to(device), mask.to(device)
        states = self._model(input_ids=filled, attention_mask=mask).last_hidden_state.float()
        means = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return np.asarray(means.cpu().numpy(), np.float32)


def _positions_before_the_first(model: torch.nn.Module) -> int:
    """Return how many positions no token has: RoBERTa's begin after that of padding."""
    return max(
        (
            module.padding_idx + 1
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Embedding) and "position" in name and module.padding_idx is not None
        ),
        default=0,
    )
