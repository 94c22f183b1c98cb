"""A sample of the training stream, for the entropies of its tokens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bimix_tracking.data import metric_names
from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.errors import CorpusError

_MOST_BATCHES = 8
"""Batches kept on the device between two records."""
_MOST_TOKENS = 2**18
"""Tokens counted of a domain: its counts go into every checkpoint."""


class StreamSample:
    """Keep every so many batches on the device, and count their tokens at the next record.

    The process that writes samples its own batches: domains that only others see have no entropy here.

    Args:
        domains: Names, in the order of the domain ids.
        every: Batches from one that is kept to the next.
    """

    def __init__(self, domains: Sequence[str], every: int) -> None:
        self._counters = {name: EntropyCounter() for name in domains}
        self._every = every
        self._offered = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def offer(self, targets: Tensor, domain_ids: Tensor) -> None:
        """Keep this batch, or don't; both of shape (batch, time), targets below 0 being no tokens."""
        if self._offered % self._every == 0 and len(self._kept) < _MOST_BATCHES:
            self._kept.append((targets.clone(), domain_ids.clone()))
        self._offered += 1

    def row(self) -> dict[str, float]:
        """Return the entropies of all that was kept so far, as metrics."""
        self._count()
        row: dict[str, float] = {}
        for name, counter in self._counters.items():
            if counter.pairs:
                values = zip(metric_names.ENTROPIES, counter.entropies(), strict=True)
                row |= {metric_names.key(quantity, name): value for quantity, value in values}
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON types."""
        self._count()
        return {"offered": self._offered, "counts": {name: c.to_dict() for name, c in self._counters.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; counts that cannot be read begin anew, for training must not die of them."""
        self._offered = int(state["offered"])
        for name, counts in state["counts"].items():
            try:
                self._counters[name] = EntropyCounter.from_dict(counts)
            except CorpusError as error:
                warnings.warn(f"entropies of domain {name!r} are counted from here on: {error}", stacklevel=2)

    def _count(self) -> None:
        """Count tokens, and pairs of neighbours of one row and one domain."""
        for on_device in self._kept:
            targets, ids = (tensor.cpu().numpy() for tensor in on_device)
            for id_, counter in enumerate(self._counters.values()):
                for row, of_row in zip(targets, (ids == id_) & (targets >= 0), strict=True):
                    if counter.tokens < _MOST_TOKENS:
                        places = of_row.nonzero()[0]
                        counter.add(row[places], places[1:] == places[:-1] + 1)
        self._kept.clear()
