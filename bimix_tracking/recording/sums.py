"""Sums by domain over some tokens: what trainers hand over, and what all means are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self, get_type_hints

import numpy as np
import numpy.typing as npt

from bimix_tracking.errors import RecorderError

Nats = Annotated[npt.NDArray[np.float64], np.float64]
Count = Annotated[npt.NDArray[np.int64], np.int64]
"""Arrays of shape (domains,), and what is in them."""


@dataclass(kw_only=True)
class DomainSums:
    """Sums by domain over some tokens; they add.

    Its fields are the list of what is summed: one more is summed over batches, processes and resumed runs by its line
    here, once `DomainLossMeter` is given its values; a row's metrics are made of them in `recording/rows.py`.

    Args:
        loss: Σ of the finite losses, nats, float64, shape (domains,).
        tokens: How many losses that is, int64, shape (domains,).
        nonfinite: How many losses were NaN or infinite and are in neither, int64, shape (domains,).
        labels: Σ of the target token ids, int64, shape (domains,): distinguishes evaluation sets.
        bytes: Bytes of text that the tokens with a finite loss stand for, int64, shape (domains,); 0 where not known.
        unmeasured: Tokens that were trained on but whose loss was not available, int64, shape (domains,).

    >>> sums = DomainSums.zeros(2)
    >>> sums += DomainSums.from_lists({"loss": [3.0, 0.0], "tokens": [2, 0]})
    >>> sums.loss.tolist(), sums.tokens.tolist(), sums.bytes.tolist()
    ([3.0, 0.0], [2, 0], [0, 0])
    """

    loss: Nats
    tokens: Count
    nonfinite: Count
    labels: Count
    bytes: Count
    unmeasured: Count

    @classmethod
    def zeros(cls, domains: int) -> DomainSums:
        """Return empty sums over `domains` domains."""
        return cls(**{name: np.zeros(domains, kind) for name, kind in SUMMED.items()})

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
    def from_lists(cls, lists: Mapping[str, npt.ArrayLike]) -> DomainSums:
        """Read what `to_lists` wrote, of this version or an earlier one: what isn't there is 0.

        Args:
            lists: Name → a list or an array; counts may be real numbers, as a device adds them up.
        """
        sums = cls.zeros(len(np.asarray(lists["loss"])))
        for name, kind in SUMMED.items():
            if name in lists:
                values = np.asarray(lists[name])
                real = kind is np.int64 and values.dtype.kind == "f"
                setattr(sums, name, (values.round() if real else values).astype(kind))
        return sums


SUMMED: dict[str, type[np.number]] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(DomainSums, include_extras=True).items()
}
"""What is summed by domain, in order: name → kind of number."""

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
