"""Targets: what a mixture is judged by, each of its own kind; see `links` for how laws are fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from bimix_tracking.errors import ObservationsError, did_you_mean, shown
from bimix_tracking.files.yaml_json import load_yaml, read_text
from bimix_tracking.messages import said


class Kind(StrEnum):
    """What a target's value is."""

    LOSS = "loss"
    """Nats per token."""
    BPB = "bpb"
    """Bits per byte of text."""
    ACCURACY = "accuracy"
    """The part of the questions that were answered rightly, 0 to 1."""
    SCORE = "score"
    """Any number of which it is known whether higher or lower is better."""


@dataclass(frozen=True)
class Target:
    """Something that a mixture is judged by.

    Args:
        name: Its name; a domain's for the loss of a domain.
        kind: What its value is.
        questions: Of an accuracy: how many questions it is the mean of; None: unknown.
        chance: Of an accuracy: what guessing gets.
        higher_is_better: Of a score; the other kinds say it themselves.
        weight: How much a unit of it counts; None: as `target_weights` has it.
        group: Of which group of targets it is.
        task: Which task it measures: an accuracy and the bits per byte of one task have one.

    Raises:
        ObservationsError: A kind, number or direction that can't be.

    >>> Target("mmlu", "accuracy", questions=14042, chance=0.25).rising
    True
    >>> Target("judge", "score")
    Traceback (most recent call last):
    bimix_tracking.errors.ObservationsError: target 'judge' is a score: say whether higher_is_better, true or false
    """

    name: str
    kind: Kind | str = Kind.LOSS
    questions: int | None = None
    chance: float = 0.0
    higher_is_better: bool | None = None
    weight: float | None = None
    group: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        kinds = [str(kind) for kind in Kind]
        if self.kind not in kinds:
            remedy = did_you_mean(str(self.kind), kinds)
            raise ObservationsError(f"target {self.name!r} has no kind {shown(self.kind)}; {remedy}")
        object.__setattr__(self, "kind", Kind(self.kind))
        if self.kind is Kind.SCORE and not isinstance(self.higher_is_better, bool):
            raise ObservationsError(f"target {self.name!r} is a score: say whether higher_is_better, true or false")
        rising = self.kind is Kind.ACCURACY
        if self.kind is not Kind.SCORE and self.higher_is_better not in (None, rising):
            better = "higher" if rising else "lower"
            raise ObservationsError(f"target {self.name!r} is of kind {self.kind}, of which {better} is better")
        if self.kind is not Kind.ACCURACY and (self.questions is not None or self.chance):
            raise ObservationsError(f"target {self.name!r} is of kind {self.kind}: only accuracies have questions")
        if self.questions is not None and not (_number(self.questions) and self.questions >= 1):
            raise ObservationsError(f"target {self.name!r} needs a positive number of questions, got {self.questions}")
        if not (_number(self.chance) and 0 <= self.chance < 1):
            raise ObservationsError(
                f"the chance level of target {self.name!r} must be a proportion from 0 up to 1, got {self.chance}"
            )
        for what, text in (("group", self.group), ("task", self.task)):
            if text is not None and not isinstance(text, str):
                raise ObservationsError(f"the {what} of target {self.name!r} must be a text, got {shown(text)}")
        if self.weight is not None and not (_number(self.weight) and 0 <= self.weight < math.inf):
            raise ObservationsError(f"the weight of target {self.name!r} must be finite and not negative")

    @property
    def rising(self) -> bool:
        """Whether higher is better."""
        return self.kind is Kind.ACCURACY or bool(self.higher_is_better)

    def to_dict(self) -> dict[str, Any]:
        """Return what isn't the default, as JSON types."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return {name: str(value) if name == "kind" else value for name, value in found.items()}

    @classmethod
    def from_dict(cls, content: object, name: str | None = None) -> Target:
        """Read what `to_dict` wrote, or an entry of a targets file, in which the name is the key.

        Raises:
            ObservationsError: No mapping, an unknown entry, or a wrong one.
        """
        if not isinstance(content, Mapping):
            raise ObservationsError(
                f"target {shown(name)} must be a mapping, such as {{kind: bpb}}, got {content!r:.80}"
            )
        known = [one.name for one in fields(cls)]
        unknown = next((key for key in content if key not in known), None)
        if unknown is not None:
            raise ObservationsError(f"target {shown(name)}: no entry {shown(unknown)}; {did_you_mean(unknown, known)}")
        entries = {"name": name} | dict(content)
        if not isinstance(entries["name"], str):
            raise ObservationsError(f"a target needs a name, got {entries['name']!r:.80}")
        try:
            return cls(**entries)
        except TypeError as error:
            raise ObservationsError(f"target {shown(entries['name'])}: {error}") from None


Targets = str | Path | Mapping[str, Any] | Iterable[Target]
"""A targets file, its content, or targets at hand."""


def targets_of(given: Targets | None) -> dict[str, Target]:
    """Return targets by name.

    Args:
        given: Targets, or name → entries of one (a `Target` or a mapping of its arguments), or a YAML file of these.

    Raises:
        ObservationsError: The file cannot be read, an entry is wrong, or two targets have one name.

    >>> targets_of({"mmlu": {"kind": "accuracy", "questions": 14042, "chance": 0.25}})["mmlu"].questions
    14042
    """
    if given is None:
        return {}
    if isinstance(given, str | Path):
        try:
            content = load_yaml(read_text(Path(given)))
        except (OSError, ValueError) as error:
            raise ObservationsError(f"cannot read the targets file {given}: {error}") from error
        if not isinstance(content, Mapping):
            raise ObservationsError(
                f"the targets file {given} must map names to entries, such as mmlu: {{kind: accuracy}}"
            )
        inner = content.get("targets")
        given = inner if isinstance(inner, Mapping) and len(content) == 1 else content
    if isinstance(given, Mapping):
        return {
            str(name): one if isinstance(one, Target) else Target.from_dict(one or {}, str(name))
            for name, one in given.items()
        }
    found: dict[str, Target] = {}
    for one in given:
        if one.name in found:
            raise ObservationsError(f"two targets are named {shown(one.name)}")
        found[one.name] = one
    return found


def unit_of(kinds: Iterable[Kind]) -> str:
    """Return what a weighted sum of targets of these kinds is in; its weights are in their own units.

    >>> unit_of([Kind.LOSS]), unit_of([Kind.ACCURACY]), unit_of([Kind.LOSS, Kind.ACCURACY])
    ('nats per token', 'accuracy', 'weighted units')
    """
    found = set(kinds) or {Kind.LOSS}
    if found == {Kind.LOSS}:
        return said("nats per token")
    if found == {Kind.BPB}:
        return said("bits per byte")
    return said("accuracy") if found == {Kind.ACCURACY} else said("weighted units")


def united(one: Mapping[str, Target], other: Mapping[str, Target]) -> dict[str, Target]:
    """Return targets of two descriptions; where both have one, the second's entries count where it has any.

    >>> united({"a": Target("a", "bpb", group="x")}, {"a": Target("a", "bpb", weight=2.0)})["a"].group
    'x'
    """
    result = dict(one)
    for name, target in other.items():
        known = result.get(name)
        entries = {k: v for k, v in target.to_dict().items() if k != "name"}
        result[name] = target if known is None or known.kind is not target.kind else replace(known, **entries)
    return result


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
