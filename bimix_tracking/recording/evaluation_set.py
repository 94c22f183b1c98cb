"""Which tokens a run's curve is evaluated on: fixed by the first evaluation, held against each later one.

A curve is of one held-out set. A test set after training, another loader, or a set that changed in mid-run has other
tokens, and its losses are no points of that curve, however plausible they look.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bimix_tracking.errors import listed
from bimix_tracking.recording.sums import DomainSums, check_total


class _Print(NamedTuple):
    """What distinguishes the tokens of a domain in one set: their number, and the sum of their ids."""

    tokens: int
    labels: int


@dataclass(frozen=True)
class Judged:
    """What an evaluation has to do with the curve.

    Args:
        sums: Of the held-out set: what the curve gets.
        other: What was evaluated on other tokens: domain → (tokens evaluated, tokens of the held-out set).
        anew: Whether the set was fixed by this evaluation, or has grown by it.
        replaced: Whether an earlier one, from before training, no longer counts.
    """

    sums: DomainSums
    other: Mapping[int, tuple[int, int]]
    anew: bool
    replaced: bool


class EvaluationSet:
    """The held-out set of a run, by the name of the set and by domain.

    An evaluation may be of several sets (`eval_dataset={"news": …, "wiki": …}`), a domain may be in more than one, and
    domains may join later. Before training it is fixed for the time being only: a baseline on a test set is no reason
    to leave the curve out.

    Args:
        domains: Names, in the order of the domain ids.

    >>> held_out, first, longer = EvaluationSet(["code"]), DomainSums.zeros(1), DomainSums.zeros(1)
    >>> first.tokens[0], longer.tokens[0] = 1000, 5000
    >>> held_out.judge({"": [first]}, trained=True).other, held_out.judge({"": [longer]}, trained=True).other
    ({}, {0: (5000, 1000)})
    """

    def __init__(self, domains: Sequence[str]) -> None:
        self.domains = tuple(domains)
        self._parts: dict[tuple[str, int], _Print] = {}
        self._trained = False

    @property
    def fingerprint(self) -> str:
        """Name the set by its tokens: any other one has another name, bar a coincidence.

        By the domains' names: runs that have them in another order evaluate the same set.
        """
        found = [(name, *self._of(id_)) for id_, name in enumerate(self.domains)]
        columns = [tuple(column) for column in zip(*sorted(found), strict=True)]
        return "sums:" + hashlib.sha256(repr(columns).encode()).hexdigest()[:12]

    def judge(self, sets: Mapping[str, Sequence[DomainSums]], *, trained: bool) -> Judged:
        """Return which sums of an evaluation are of the held-out set.

        Args:
            sets: By the name of the set, the sums of each time it was evaluated: a name may stand for two sets.
            trained: Whether the model has been trained on any token.
        """
        found = {name: [dict(_prints(sums)) for sums in each] for name, each in sets.items()}
        before, fixes = dict(self._parts), trained and not self._trained
        if fixes:
            self._parts, self._trained = {}, True
        picked = {name: self._pick(name, each) for name, each in found.items()}
        prints = {(name, id_): part for name, at in picked.items() for id_, part in found[name][at].items()}
        known = {id_ for _, id_ in self._parts}
        new = {part: value for part, value in prints.items() if part[1] not in known}
        self._parts |= new
        held, other = DomainSums.zeros(len(self.domains)), dict[int, tuple[int, int]]()
        for id_ in sorted({id_ for _, id_ in prints}):
            names = [name for name, of in self._parts if of == id_]
            whole = all(prints.get((name, id_)) == self._parts[name, id_] for name in names)
            if whole:
                held += _only(id_, (sets[name][picked[name]] for name in names), len(self.domains))
            strays = [part for (name, of), part in prints.items() if of == id_ and not (whole and name in names)]
            if strays:
                other[id_] = sum(part.tokens for part in strays), self._of(id_).tokens
        for name, each in found.items():
            for stray in (one for one in each if one != each[picked[name]]):
                other |= {id_: (part.tokens, self._of(id_).tokens) for id_, part in stray.items()}
        replaced = fixes and any(prints.get(part) != value for part, value in before.items())
        return Judged(held, other, anew=bool(new), replaced=replaced)

    def _pick(self, name: str, found: Sequence[Mapping[int, _Print]]) -> int:
        """Return which of several evaluations of one name and step is the held-out set's: of equal ones, the first.

        Before it is known it is the last: a callback of the user's evaluates before the trainer does.
        """
        known = {id_: part for (of, id_), part in self._parts.items() if of == name}
        if not known:
            return found.index(found[-1])
        return max(range(len(found)), key=lambda at: sum(known.get(id_) == part for id_, part in found[at].items()))

    def mismatch(self, other: Mapping[int, tuple[int, int]]) -> str:
        """Return what differs of an evaluation on tokens that aren't the held-out set's."""
        id_, (tokens, expected) = next(iter(other.items()))
        what = f"has {tokens:,} tokens instead of {expected:,}"
        if tokens == expected:
            what = f"has different text of the same length ({tokens:,} tokens)"
        more = f" (so do {listed([self.domains[each] for each in other][1:])})" if len(other) > 1 else ""
        return (
            f"is not on this run's held-out set: domain {self.domains[id_]!r} {what}{more}. It is excluded from the "
            "curve, as are all others like it. Evaluate on one whole set every time"
        )

    def to_lists(self) -> dict[str, Any]:
        """Return the set as JSON types."""
        return {"trained": self._trained, "parts": [[*part, *found] for part, found in self._parts.items()]}

    @classmethod
    def from_lists(cls, domains: Sequence[str], lists: Mapping[str, Any]) -> EvaluationSet:
        """Read what `to_lists` wrote."""
        held_out = cls(domains)
        held_out._trained = bool(lists["trained"])
        held_out._parts = {
            (str(name), int(id_)): _Print(int(tokens), int(labels)) for name, id_, tokens, labels in lists["parts"]
        }
        return held_out

    def _of(self, id_: int) -> _Print:
        found = [part for (_, of), part in self._parts.items() if of == id_]
        return _Print(sum(part.tokens for part in found), sum(part.labels for part in found))


class Evaluations:
    """Sums of the evaluation at hand, set by set, until it is logged; and the held-out set that it is judged by."""

    def __init__(self, domains: Sequence[str]) -> None:
        self.held_out = EvaluationSet(domains)
        self._pending = DomainSums.zeros(len(domains))
        self._sets: dict[str, list[DomainSums]] = {}

    def __bool__(self) -> bool:
        """Return whether there are losses that no row holds yet."""
        return bool(self._pending or self._sets)

    def add(self, sums: DomainSums) -> None:
        """Add sums of the set that is being evaluated.

        Raises:
            RecorderError: More tokens than can be counted.
        """
        check_total(self._pending.tokens, sums.tokens, self.held_out.domains)
        self._pending += sums

    def end(self, name: str) -> None:
        """Say that what was added since is of one set."""
        if self._pending:
            self._sets.setdefault(name, []).append(self._pending)
            self._pending = DomainSums.zeros(len(self.held_out.domains))

    def forget(self) -> None:
        """Forget what no row holds yet."""
        self._pending, self._sets = DomainSums.zeros(len(self.held_out.domains)), {}

    def judged(self, *, trained: bool) -> Judged | None:
        """End the evaluation, and return what of it is of the held-out set; None where nothing was evaluated."""
        self.end("")
        sets, self._sets = self._sets, {}
        return self.held_out.judge(sets, trained=trained) if sets else None

    def to_lists(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "eval": self._pending.to_lists(),
            "sets": {name: [sums.to_lists() for sums in each] for name, each in self._sets.items()},
            "held_out": self.held_out.to_lists(),
        }

    @classmethod
    def from_lists(cls, domains: Sequence[str], lists: Mapping[str, Any]) -> Evaluations:
        """Read what `to_lists` wrote, or a checkpoint of an earlier version, which has the sums alone."""
        found = cls(domains)
        found._pending = DomainSums.from_lists(lists["eval"])
        found._sets = {name: list(map(DomainSums.from_lists, each)) for name, each in lists.get("sets", {}).items()}
        if "held_out" in lists:
            found.held_out = EvaluationSet.from_lists(domains, lists["held_out"])
        return found


def _prints(sums: DomainSums) -> Iterable[tuple[int, _Print]]:
    evaluated = sums.tokens + sums.nonfinite  # a loss that was no number is of the same tokens
    for id_ in np.flatnonzero(evaluated).tolist():
        yield id_, _Print(int(evaluated[id_]), int(sums.labels[id_]))


def _only(id_: int, parts: Iterable[DomainSums], domains: int) -> DomainSums:
    """Return the sums of one domain."""
    result = DomainSums.zeros(domains)
    for part in parts:
        for name, values in vars(part).items():
            getattr(result, name)[id_] += values[id_]
    return result
