"""What an analysis was asked, as JSON types, and those read back: so that a renewed one is asked the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from bimix_tracking.analysis.question import Question
from bimix_tracking.mixture import Mixture
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.guards import Guard

_OTHERWISE = ("tokens", "law", "weights", "targets", "reference", "lang")
"""What a renewed analysis has from the provenance, from its source, or is told anew."""


def as_json(question: Question) -> dict[str, Any]:
    """Return the options of a question that aren't the default ones, as JSON types.

    >>> as_json(Question(tokens=1e9, guardrails=("code<=+1%",), bounds={"web": (0.1, 0.5)}))
    {'bounds': {'web': [0.1, 0.5]}, 'guardrails': ['code<=+1%']}
    """
    asked = {
        one.name: getattr(question, one.name)
        for one in fields(question)
        if one.name not in _OTHERWISE and getattr(question, one.name) != one.default
    }
    return {name: _plain(value) for name, value in asked.items()}


def from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that `as_json` wrote, as `analyze` takes them; what this version doesn't know is left out.

    Raises:
        BimixError: One that is none.
        TypeError: Likewise.
        ValueError: Likewise.

    >>> from_json({"bounds": {"web": [0.1, 0.5]}, "guardrails": ["code<=+1%"]})
    {'bounds': {'web': (0.1, 0.5)}, 'guardrails': ('code<=+1%',)}
    """
    known = [one.name for one in fields(Question) if one.name not in _OTHERWISE]
    return {name: _READ[name](value) if name in _READ else value for name, value in content.items() if name in known}


def _plain(value: Any) -> Any:
    if isinstance(value, Guard | Costs):
        return {name: one for name, one in vars(value).items() if one is not None}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _bounds(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(ends) if isinstance(ends, list) else ends for name, ends in content.items()}


def _guards(content: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(one if isinstance(one, str) else Guard(**one) for one in content)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "bounds": _bounds,
    "prior": Mixture,
    "guardrails": _guards,
    "pareto": tuple,
    "costs": lambda content: Costs(**content),
}
