"""The domain of each example on its way into a batch: a tensor of ids, whatever the inner collator does else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bimix_integrations.trainers.forward import IDS
from bimix_tracking.errors import RecorderError

FIXES = (
    "Three things keep it: TrainingArguments(remove_unused_columns=False); data_collator=DomainCollator(...) around "
    "your own collator; and a 'domain' in every example of the training and evaluation sets"
)


class DomainCollator:
    """Collate with another collator, and add the domain of each example as an int64 tensor `domain_ids`.

    Of shape (batch,); of shape (batch, time) for packed examples, which name a domain for each token, and for
    collators that put all examples into one row (padding-free).

    Args:
        inner: The collator that does the rest, such as `default_data_collator`.
        domains: Names, in the order of the domain ids.
        column: Entry of an example that holds its domain: a name, an id, or one id a token.
    """

    def __init__(
        self, inner: Callable[[list[Any]], dict[str, Any]], domains: Sequence[str], column: str = "domain"
    ) -> None:
        self.inner = inner
        self.domains = tuple(domains)
        self.column = column
        self._ids = {name: id_ for id_, name in enumerate(self.domains)}

    def __call__(self, features: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the batch with `domain_ids`.

        Raises:
            RecorderError: An example without a domain, of an unknown one, or ids that don't fit its tokens.
        """
        if any(self.column not in feature for feature in features):
            raise RecorderError(f"an example has no {self.column!r}; it has {sorted(features[0])}. {FIXES}")
        ids = [self._id(feature[self.column]) for feature in features]
        # The inner collator may change the examples: lengths first.
        lengths = [len(feature["input_ids"]) if "input_ids" in feature else 0 for feature in features]
        batch = self.inner([{k: v for k, v in feature.items() if k != self.column} for feature in features])
        rows = next((len(values) for values in batch.values() if isinstance(values, Tensor) and values.ndim), len(ids))
        by_token = any(isinstance(id_, list) for id_ in ids)
        if rows == len(ids) and not by_token:
            batch[IDS] = torch.tensor(ids, dtype=torch.int64)
            return batch
        tokens = [id_ if isinstance(id_, list) else [id_] * length for id_, length in zip(ids, lengths, strict=True)]
        if rows == 1 and len(ids) > 1:  # all examples in one row
            tokens = [[id_ for row in tokens for id_ in row]]
        batch[IDS] = _padded(tokens, batch)
        return batch

    def _id(self, domain: Any) -> Any:
        if isinstance(domain, str):
            if domain not in self._ids:
                raise RecorderError(f"unknown domain {domain!r}; the domains are {', '.join(map(repr, self.domains))}")
            return self._ids[domain]
        return domain.tolist() if hasattr(domain, "tolist") else domain


def _padded(tokens: list[list[int]], batch: Mapping[str, Any]) -> Tensor:
    """Return ids of shape (batch, time), put where the inner collator put the tokens."""
    time = next(values.shape[1] for name in ("labels", "input_ids") if (values := batch.get(name)) is not None)
    result = torch.zeros(len(tokens), time, dtype=torch.int64)
    mask = batch.get("attention_mask")
    for row, ids in enumerate(tokens):
        if len(ids) > time:
            raise RecorderError(f"an example has {len(ids)} domain ids and {time} tokens: give one id a token")
        kept = None if mask is None or mask.ndim != 2 else mask[row].nonzero().flatten()
        places = torch.arange(len(ids)) if kept is None or len(kept) != len(ids) else kept  # padded left, perhaps
        result[row, places] = torch.tensor(ids, dtype=torch.int64)
    return result
