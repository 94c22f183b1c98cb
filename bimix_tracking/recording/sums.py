"""Sums by domain over some tokens: what trainers hand over, and what all means are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import RecorderError


@dataclass
class DomainSums:
    """Sums by domain over some tokens; they add.

    Args:
        loss: Σ of the finite losses, nats, float64, shape (domains,).
        tokens: How many losses that is, int64, shape (domains,).
        nonfinite: How many losses were NaN or infinite and are in neither, int64, shape (domains,).
        labels: Σ of the target token ids, int64, shape (domains,): tells evaluation sets apart.
        bytes: Bytes of text that the tokens with a finite loss stand for, int64, shape (domains,); 0 where not known.
        unmeasured: Tokens that were trained on but whose loss nobody could see, int64, shape (domains,).

    >>> sums = DomainSums.zeros(2)
    >>> sums += DomainSums.from_lists({"loss": [3.0, 0.0], "tokens": [2, 0]})
    >>> sums.loss.tolist(), sums.tokens.tolist(), sums.bytes.tolist()
    ([3.0, 0.0], [2, 0], [0, 0])
    """

    loss: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    nonfinite: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    unmeasured: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, domains: int) -> DomainSums:
        """Return empty sums over `domains` domains."""
        return cls(np.zeros(domains), *(np.zeros(domains, np.int64) for _ in COUNTS))

    def __iadd__(self, other: DomainSums) -> Self:
        for name, values in vars(other).items():
            setattr(self, name, getattr(self, name) + values)
        return self

    def __bool__(self) -> bool:
        """Return whether any token is in them."""
        return bool(self.tokens.any() or self.nonfinite.any() or self.unmeasured.any())

    def to_lists(self) -> dict[str, list[float]]:
        """Return the sums as JSON types."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[float]]) -> DomainSums:
        """Read what `to_lists` wrote; a count that isn't there is 0."""
        loss = np.array(lists["loss"], float)
        none = [0] * len(loss)
        return cls(loss, *(np.array(lists.get(name, none), np.int64) for name in COUNTS))


COUNTS = ("tokens", "nonfinite", "labels", "bytes", "unmeasured")
"""The sums of integers, in the order of the fields."""


MOST_TOKENS = 2**63 - 1
"""As many tokens as an int64 counts: a hundred thousand times what anybody trains on."""


def check_total(counted: npt.NDArray[np.int64], more: npt.NDArray[Any], domains: Sequence[str]) -> None:
    """Raise if a domain's tokens would no longer fit into an int64: they would become negative.

    Args:
        counted: Tokens so far, shape (domains,).
        more: Those to be added, likewise, of any kind of number.
        domains: Names, in the order of the ids.

    Raises:
        RecorderError: Names the domain and both numbers.

    >>> check_total(np.array([2**62]), np.array([2.0**62]), ["code"])
    Traceback (most recent call last):
    bimix_tracking.errors.RecorderError: domain 'code' would have 4.61e+18 + 4.61e+18 tokens, more than an int64 counts
    (2**63 - 1): are these numbers of tokens?
    """
    # In float64, which doesn't overflow: at this size its rounding is what a tracker would store anyway.
    total = counted.astype(np.float64) + more.astype(np.float64)
    for id_ in np.flatnonzero(~(total < MOST_TOKENS))[:1].tolist():
        raise RecorderError(
            f"domain {domains[id_]!r} would have {float(counted[id_]):.3g} + {float(more[id_]):.3g} tokens, more than "
            "an int64 counts (2**63 - 1): are these numbers of tokens?"
        )


def check_ids(lowest: int, highest: int, domains: Sequence[str], *, where: str = "") -> None:
    """Raise if a domain id is outside the list.

    Args:
        lowest: The smallest id met.
        highest: The largest.
        domains: Names, in the order of the ids.
        where: What to say of the place, such as the step and the rank.

    Raises:
        RecorderError: Names the id and the list.

    >>> check_ids(0, 2, ["code", "web"], where=" (step 3, rank 0)")
    Traceback (most recent call last):
    bimix_tracking.errors.RecorderError: domain id 2 is outside 0..1 (0 'code', 1 'web') (step 3, rank 0)
    """
    for id_ in (lowest, highest):
        if not 0 <= id_ < len(domains):
            named = ", ".join(f"{i} {name!r}" for i, name in enumerate(domains[:8]))
            more = ", …" if len(domains) > 8 else ""
            raise RecorderError(f"domain id {id_} is outside 0..{len(domains) - 1} ({named}{more}){where}")
