"""How many tokens a run had seen that was logged without this package: by its own count, or by what is given."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bimix_tracking.data.histories import Point, number
from bimix_tracking.errors import MixtureError, listed, shown
from bimix_tracking.tracking.other_tools.mixtures_file import lookup
from bimix_tracking.tracking.other_tools.patterns import TOKEN_METRICS

NO_TOKENS = "none of its metrics counts tokens"
EARLIER = "an earlier loss than the run's last, whose volume is the only one known"
_REMEDY = (
    "give `tokens_per_step`, or `tokens`: a number, one for each run, or the name of a metric, param, config or "
    "summary key"
)
_LIKELY, _KEYS, _DEEPEST, _SHORTEST = 3, 2000, 4, 1000


@dataclass(frozen=True)
class Volume:
    """How a run's tokens are known: one of three.

    Args:
        metric: The metric that counts them.
        per_step: Tokens of an optimizer step.
        whole: Tokens of the run at its end.
    """

    metric: str | None = None
    per_step: float | None = None
    whole: float | None = None


def volume_of(
    run: Iterable[str],
    tokens: str | float | Mapping[str, float] | None,
    per_step: float | None,
    history: Mapping[str, Sequence[Point]],
    logged: Mapping[str, object],
) -> Volume:
    """Return how the tokens of a run are known: given for the run, else by its own count, else by its steps.

    Args:
        run: The run's id and name.
        tokens: A volume, a volume by run, or the name of a metric, param, config or summary key.
        per_step: Tokens of an optimizer step.
        history: The run's metrics.
        logged: Its params, config or summary.

    Raises:
        MixtureError: Nothing says it, or what does is not a number above 0; the text says what would.
    """
    if isinstance(tokens, Mapping):
        given = next((tokens[name] for name in run if name in tokens), None)
        if given is not None:
            return Volume(whole=given)
    elif isinstance(tokens, int | float):
        return Volume(whole=tokens)
    names = (tokens,) if isinstance(tokens, str) else () if per_step is not None else TOKEN_METRICS
    for name in names:
        if name in history:
            return Volume(metric=name)
        # A param of such a name that wasn't asked for may be the size of a data set.
        found = lookup(logged, name) if isinstance(tokens, str) else None
        if found is not None:
            return Volume(whole=_positive(name, found))
    if per_step is not None:
        return Volume(per_step=per_step)
    missing = f" (there is no {shown(tokens)})" if isinstance(tokens, str) else ""
    raise MixtureError(f"{NO_TOKENS}{missing}: {_REMEDY}{likely(logged)}")


def at_step_zero(logged: Mapping[str, object]) -> str:
    """Return why a run that logged its losses without a step cannot be read by its steps, and what would."""
    return (
        "its losses were logged without a step, so at step 0, where `tokens_per_step` gives 0 tokens. Give `tokens`: a "
        f"number, one for each run, or the name of a metric, param, config or summary key{likely(logged)}"
    )


def counted_later(metric: str, logged: Mapping[str, object]) -> str:
    """Return why a run cannot be read whose tokens are counted only after its losses, and what would."""
    return f"{shown(metric)} counts its tokens, but has no value at or before its losses: {_REMEDY}{likely(logged)}"


def likely(logged: Mapping[str, object]) -> str:
    """Return which params or config keys look like a count of tokens.

    >>> likely({"model": {"train_tokens": 1e9, "tokenizer": "gpt2"}, "lr": 0.1})
    ". These could be it: 'model.train_tokens'"
    """
    flat = itertools.islice(_flat(logged), _KEYS)
    found = [name for name, value in flat if "tok" in name.lower() and number(value) >= _SHORTEST]
    return f". These could be it: {listed(sorted(found), _LIKELY)}" if found else ""


def last_points(history: Mapping[str, Sequence[Point]], metrics: Iterable[str]) -> dict[str, Point]:
    """Return the points of the last evaluation: those of metrics that were logged less often may be of an earlier one.

    Metrics that are logged one by one have their last points at places of their own.

    >>> last_points({"a": [(0, 0.0, 3.0), (2, 0.0, 2.0)], "b": [(1, 0.0, 3.0), (3, 0.0, 2.0)]}, ["a", "b"])
    {'a': (2, 0.0, 2.0), 'b': (3, 0.0, 2.0)}
    >>> list(last_points({"a": [(1, 0.0, 3.0), (2, 0.0, 2.0)], "b": [(1, 0.0, 3.0)]}, ["a", "b"]))
    ['a']
    """
    last = {metric: max(history[metric]) for metric in metrics if history[metric]}
    places = {metric: sorted({place for place, _, _ in history[metric]}) for metric in last}
    most = max(map(len, places.values()), default=0)
    often = [of_metric for of_metric in places.values() if len(of_metric) == most]
    before = max((of_metric[-2] for of_metric in often if most > 1), default=-math.inf)
    begins = min((of_metric[-1] for of_metric in often if of_metric[-1] > before), default=-math.inf)
    return {metric: point for metric, point in last.items() if point[0] >= begins}


class AsOf:
    """A series that is asked for its newest value at or before a place; of one place, the latest counts."""

    def __init__(self, points: Sequence[Point]) -> None:
        ordered = sorted(points)
        self._places = [place for place, _, _ in ordered]
        self._values = [value for _, _, value in ordered]

    def at(self, place: float) -> tuple[float, float] | None:
        """Return where it stands, and the value; None before the first."""
        index = bisect.bisect_right(self._places, place) - 1
        return None if index < 0 else (self._places[index], self._values[index])


def _positive(name: str, found: object) -> float:
    value = math.nan if isinstance(found, bool) else number(found)
    if not 0 < value < math.inf:
        raise MixtureError(f"`tokens` names {shown(name)}, which is {shown(found)} there: not a number above 0")
    return value


def _flat(logged: Mapping[str, object], above: str = "", depth: int = 1) -> Iterator[tuple[str, object]]:
    for name, value in logged.items():
        whole = f"{above}{name}"
        if isinstance(value, Mapping):
            if depth < _DEEPEST:
                yield from _flat(value, f"{whole}.", depth + 1)
        elif not isinstance(value, bool):
            yield whole, value
