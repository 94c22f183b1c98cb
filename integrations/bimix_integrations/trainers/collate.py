"""The domain of each example on its way into a batch: a tensor of ids, whatever the inner collator does else.

Packed rows need a domain for each token: pack a column `domain` of lists as long as `input_ids`, like any other. TRL's
`packing=True` drops it: pack before, by `trl.pack_dataset`, and set `dataset_kwargs={"skip_prepare_dataset": True}`.
Its `padding_free=True` takes no collator but its own: `DataCollatorForLanguageModeling(…, padding_free=True)` inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bimix_integrations.trainers.forward import IDS
from bimix_tracking.errors import RecorderError, did_you_mean, shown

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
        column: Entry of an example that holds its domain: a name or an id, or a list of one a token.
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
        without = next((feature for feature in features if self.column not in feature), None)
        if without is not None:
            raise RecorderError(f"an example has no {self.column!r}; it has {sorted(without)}. {FIXES}")
        ids = [self._id(feature[self.column]) for feature in features]
        batch = self.inner([{k: v for k, v in feature.items() if k != self.column} for feature in features])
        by_token = any(isinstance(id_, list) for id_ in ids)
        rows = _rows(batch, default=len(ids))
        if rows == len(ids) and not by_token:
            batch[IDS] = torch.tensor(ids, dtype=torch.int64)
            return batch
        tokens = [torch.as_tensor(feature.get("input_ids", ())) for feature in features]
        lists = [id_ if isinstance(id_, list) else [id_] * len(of) for id_, of in zip(ids, tokens, strict=True)]
        if rows == 1 and len(ids) > 1:  # all examples in one row
            lists, tokens = [[id_ for of_one in lists for id_ in of_one]], [torch.cat(tokens)]
        if rows != len(lists):
            raise RecorderError(f"the collator made {rows} rows of {len(ids)} examples: their domains are unknown")
        batch[IDS] = _padded(lists, tokens, batch)
        return batch

    def _id(self, domain: Any) -> int | list[int]:
        if isinstance(domain, str):
            if domain not in self._ids:
                raise RecorderError(f"unknown domain {shown(domain)}; {did_you_mean(domain, self.domains)}")
            return self._ids[domain]
        given = np.asarray(domain)
        if given.dtype.kind == "U":
            for name in set(given.tolist()) - set(self._ids):
                self._id(name)  # says that there is none
            return [self._ids[name] for name in given.tolist()]
        if given.ndim > 1 or (given.dtype.kind not in "iu" and given.size):
            raise RecorderError(f"a domain must be a name or an id, or a list of one a token, got {shown(domain)}")
        found: int | list[int] = given.tolist()
        return found


def _rows(batch: Mapping[str, Any], default: int) -> int:
    """Return how many rows a batch has; the bounds of its documents, say, are not rows."""
    tensors = [batch.get(name) for name in ("labels", "input_ids", *batch)]
    return next((len(values) for values in tensors if isinstance(values, Tensor) and values.ndim), default)


def _padded(lists: list[list[int]], tokens: list[Tensor], batch: Mapping[str, Any]) -> Tensor:
    """Return ids of shape (batch, time), put where the inner collator put the tokens."""
    time = next(values.shape[1] for name in ("labels", "input_ids") if (values := batch.get(name)) is not None)
    result = torch.zeros(len(lists), time, dtype=torch.int64)
    mask, inputs = batch.get("attention_mask"), batch.get("input_ids")
    for row, (ids, own) in enumerate(zip(lists, tokens, strict=True)):
        length = min(len(own) or time, time)
        if len(ids) > length or len(ids) < len(own):
            raise RecorderError(f"an example has {len(ids)} domain ids and {length} tokens: give one id a token")
        kept = None if mask is None or mask.ndim != 2 else mask[row].nonzero().flatten()
        if kept is None or len(kept) != len(ids):
            kept = torch.arange(len(ids))
            last = None if inputs is None else inputs[row, time - len(ids) :]
            if last is not None and len(own) == len(ids) < time and torch.equal(last, own):  # padded left
                kept = kept + time - len(ids)
        result[row, kept] = torch.tensor(ids, dtype=torch.int64)
    return result
