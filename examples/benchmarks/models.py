"""Byte-level GPTs of one layer, trained side by side: each tensor has a leading axis of models, a mixture each.

Many models this small leave a processor waiting when they are trained one after another. As one batch, each matrix
product is a `bmm` over the models; a sum of their losses has each model's own gradient, as nothing is shared.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY = 256
WIDTH, _HEAD = 64, 16
_SEES, _EACH = 8, 32
"""A position begins with the last so many bytes, a vector of 32 each: spelling isn't left to attention to find."""


class Models(nn.Module):
    """Predict the next byte: logits (models, batch, time, 256) of bytes (models, batch, time).

    Args:
        seeds: One for each model: equal seeds begin with equal weights, whatever stands beside them.
        context: The longest sequence.
        width: Of the residual stream; a head is 16 wide.
    """

    def __init__(self, seeds: Sequence[int], context: int, width: int = WIDTH) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def weights(inputs: int, outputs: int, scale: float = 1.0) -> nn.Parameter:
            """Return a matrix for each model that keeps, times its scale, the length of what it is applied to."""
            drawn = [torch.randn(inputs, outputs, generator=own) for own in generators]
            return nn.Parameter(scale * torch.stack(drawn) / inputs**0.5)

        self.count, self.width = len(seeds), width
        self.bytes = weights(VOCABULARY, _EACH, VOCABULARY**0.5 / 2)
        self.recent = weights(_SEES * _EACH, width)
        self.places = weights(context, width)
        self.attend = weights(width, 3 * width)
        self.gather = weights(width, width, 0.5)
        self.widen = weights(width, 4 * width)
        self.narrow = weights(4 * width, width, 0.5)
        self.out = weights(width, VOCABULARY, 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits; sequences of shape (1, batch, time) are read by all models."""
        models, (batch, time) = self.count, tokens.shape[1:]
        own_rows = tokens + VOCABULARY * torch.arange(models)[:, None, None]
        seen = functional.pad(functional.embedding(own_rows, self.bytes.flatten(0, 1)), (0, 0, _SEES - 1, 0))
        x = seen.unfold(2, _SEES, 1).reshape(models, batch * time, _EACH * _SEES) @ self.recent
        x = (x.view(models, batch, time, self.width) + self.places[:, None, :time]).flatten(1, 2)
        heads = (norm(x) @ self.attend).view(models * batch, time, 3, -1, _HEAD)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + found.transpose(1, 2).reshape(models, batch * time, self.width) @ self.gather
        x = x + functional.gelu(norm(x) @ self.widen, approximate="tanh") @ self.narrow
        logits: Tensor = norm(x) @ self.out
        return logits.view(models, batch, time, VOCABULARY)

    def losses(self, sequences: Tensor) -> Tensor:
        """Return the loss of each byte but the first, in nats: shape (models, batch, time − 1)."""
        logits = self(sequences[..., :-1])
        targets = sequences[..., 1:].expand(self.count, -1, -1)
        flat = functional.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none")
        return flat.view(targets.shape)

    @property
    def size(self) -> int:
        """Parameters of one model."""
        return sum(parameter[0].numel() for parameter in self.parameters())

    @property
    def inner_size(self) -> int:
        """Parameters without those that grow with the vocabulary or the context: embeddings and the output's matrix."""
        return self.size - sum(table[0].numel() for table in (self.bytes, self.places, self.out))


def norm(x: Tensor) -> Tensor:
    """Return the vectors at length √width: a layer norm without parameters."""
    return functional.rms_norm(x, x.shape[-1:])
