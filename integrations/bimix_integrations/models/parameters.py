"""How many parameters a model has: all of them, and those without its embeddings.

Without embeddings, because theirs is a table that no token's computation goes through: of a small model it is half, of
a large one a hundredth. The output layer is left out as the input's table is, so that a model whose two tables are one
has the size of the same model with two.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_EMBEDDING = "Embedding"
"""Ends the class name of tables that don't come from `nn.Embedding`: Megatron's and others'."""


@dataclass(frozen=True)
class Parameters:
    """A model's parameters: frozen ones and all experts count, shared ones count once, buffers don't.

    Args:
        total: All of them.
        without_embeddings: Those without tables of tokens and positions, and without the output layer.
    """

    total: int
    without_embeddings: int


def parameters_of(model: nn.Module) -> Parameters | None:
    """Return how many parameters a model has; None where this process can't see them whole.

    Of DTensors (FSDP 2, tensor parallelism) and DeepSpeed's ZeRO the whole sizes are known. Not so where FSDP 1 has
    flattened the model, or layers are still lazy: that is None. A stage of a pipeline counts as if it were the model.

    Args:
        model: Also wrapped, by DDP or `torch.compile`.

    >>> from torch import nn
    >>> body, head = nn.Linear(8, 8, bias=False), nn.Linear(8, 100, bias=False)
    >>> parameters_of(nn.Sequential(nn.Embedding(100, 8), body, head))
    Parameters(total=1664, without_embeddings=64)
    >>> tied = nn.Sequential(nn.Embedding(100, 8), body, head)
    >>> tied[2].weight = tied[0].weight
    >>> parameters_of(tied)
    Parameters(total=864, without_embeddings=64)
    """
    found = list(model.parameters())
    if not found or any(is_lazy(one) or getattr(one, "_fsdp_flattened", False) for one in found):
        return None
    sizes = {id(one): _size(one) for one in found}
    of_vocabulary = {id(one) for module in _tables(model) for one in module.parameters()} & sizes.keys()
    total = sum(sizes.values())
    return Parameters(total, total - sum(sizes[one] for one in of_vocabulary))


def _size(parameter: Tensor) -> int:
    """Return how many numbers a parameter has; DeepSpeed's are empty outside of their layer's computation."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _tables(model: nn.Module) -> Iterator[nn.Module]:
    """Return the embeddings and the output layer."""
    embeddings = [module for module in model.modules() if _is_embedding(module)]
    yield from embeddings
    head = _named_head(model) or _last_layer(model, max(filter(None, map(_shape, embeddings)), default=(0, 0)))
    if head is not None:
        yield head


def _is_embedding(module: nn.Module) -> bool:
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return True
    return type(module).__name__.endswith(_EMBEDDING) and "weight" in dict(module.named_parameters(recurse=False))


def _shape(table: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's matrix, which DeepSpeed keeps beside it; () where it has none."""
    weight = getattr(table, "weight", None)
    shape = tuple(getattr(weight, "ds_shape", weight.shape)) if isinstance(weight, Tensor) else ()
    return shape if len(shape) == 2 else ()


def _named_head(model: nn.Module) -> nn.Module | None:
    """Return the output layer that a model of transformers names."""
    for module in model.modules():
        with contextlib.suppress(Exception):  # a stranger's code, which training must not fail of
            found = getattr(module, "get_output_embeddings", lambda: None)()
            if isinstance(found, nn.Module):
                return found
    return None


def _last_layer(model: nn.Module, vocabulary: tuple[int, ...]) -> nn.Module | None:
    """Return the last layer with a matrix if that has the shape of the vocabulary's table: one score for each token.

    A square one inside a list of blocks is a block's: a byte-level vocabulary can be as large as a layer is wide.
    """
    layers = [(name, module) for name, module in model.named_modules() if _shape(module)]
    if not layers or not math.prod(vocabulary):
        return None
    name, last = layers[-1]
    square = vocabulary[0] == vocabulary[-1] and any(part.isdecimal() for part in name.split("."))
    return last if _shape(last) == vocabulary and not square else None
