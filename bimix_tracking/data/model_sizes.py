"""Model sizes of runs, in parameters: which of them are one, and what cannot be a size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

from bimix_tracking.errors import ObservationsError, listed, shown
from bimix_tracking.quantities import LEAST_PARAMETERS, parameters, parse_parameters, parse_tokens

SAME_SIZE = 1.02
"""Sizes within this factor of one another are one: a padded vocabulary makes no other model."""
MEANT = 1.2
"""A size that is asked for means an observed one within this factor: 7B is what people call 6.7B."""


@dataclass(frozen=True)
class Facts:
    """What runs say of themselves that decides which losses can be pooled.

    Args:
        sizes: By run, parameters of the model, as far as known.
        schedules: By run, tokens of its learning-rate schedule, as far as known.
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    schedules: Mapping[str, float] = field(default_factory=dict)


def checked_size(size: float, what: str = "the model size") -> float:
    """Return a model size, in parameters.

    Args:
        size: Parameters of a model.
        what: Begins the error's sentence.

    Raises:
        ValueError: Not finite, or fewer than a thousand: most likely a number of billions.

    >>> checked_size(7e9)
    7000000000.0
    >>> checked_size(7)
    Traceback (most recent call last):
    ValueError: the model size is 7 parameters: did you mean 7e9 (7B)?
    """
    if not math.isfinite(size) or size <= 0:
        raise ValueError(f"{what} must be a positive number of parameters, got {shown(size)}")
    if size < LEAST_PARAMETERS:
        raise ValueError(f"{what} is {size:g} parameters: did you mean {size:g}e9 ({size:g}B)?")
    return float(size)


def read_size(value: object, what: str = "the model size") -> int:
    """Return a model size that a person wrote or a tool logged: a number, or a text such as `7B`.

    Args:
        value: Parameters of a model, a thousand or more.
        what: Begins the error's sentence.

    Raises:
        ValueError: It is none; the text says how one is written, or what was meant.

    >>> read_size("7B"), read_size(122e6), read_size("1.2e9")
    (7000000000, 122000000, 1200000000)
    >>> read_size(True)
    Traceback (most recent call last):
    ValueError: the model size must be a number of parameters, such as 7B, 122M or 1.2e9, got True
    """
    if isinstance(value, str):
        try:
            return round(parse_parameters(value))
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    found = _number(value)
    if found is None:
        raise ValueError(f"{what} must be a number of parameters, such as 7B, 122M or 1.2e9, got {shown(value)}")
    return round(checked_size(found, what))


def read_schedule(value: object, what: str = "the schedule") -> int:
    """Return the length of a schedule in tokens, that a person wrote or a tool logged: a number, or such as `20B`.

    Raises:
        ValueError: It is none; the text says how one is written.

    >>> read_schedule("20B"), read_schedule(5e8)
    (20000000000, 500000000)
    >>> read_schedule(-1)
    Traceback (most recent call last):
    ValueError: the schedule must be a positive number of tokens, such as 20B or 5e9, got -1
    """
    if isinstance(value, str):
        try:
            return round(parse_tokens(value))
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from None
    found = _number(value)
    if found is None or found < 1:
        raise ValueError(f"{what} must be a positive number of tokens, such as 20B or 5e9, got {shown(value)}")
    return round(found)


def _number(value: object) -> float | None:
    """Return a finite number of Python or NumPy as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value) if math.isfinite(value) else None


def distinct(sizes: Iterable[float]) -> tuple[float, ...]:
    """Return the sizes that are different, rising; of those that are one, the most frequent.

    >>> distinct([1.22e8, 3.1e8, 1.23e8, 1.22e8])
    (122000000.0, 310000000.0)
    """
    counts = Counter(map(float, sizes))
    groups: list[list[float]] = []
    for size in sorted(counts):
        if groups and size <= SAME_SIZE * groups[-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    return tuple(max(group, key=counts.__getitem__) for group in groups)


def nearest(size: float, known: Sequence[float]) -> float | None:
    """Return which of the known sizes is meant; None where none is near.

    >>> nearest(7e9, [1.22e8, 6.7e9]), nearest(3e9, [1.22e8, 6.7e9])
    (6700000000.0, None)
    """
    within = [one for one in known if max(one / size, size / one) <= MEANT]
    return min(within, key=lambda one: abs(math.log(one / size)), default=None)


def sizes_of(sizes: Mapping[str, float], runs: Sequence[str]) -> dict[str, float]:
    """Return the size of each run, one number for all that are the same; none where no run says it.

    Args:
        sizes: By run, as far as it is known (NaN: unknown).
        runs: All runs.

    Raises:
        ObservationsError: Some runs have a size and others none, or a size that is none; names them.
    """
    known = {run: float(sizes[run]) for run in runs if run in sizes and not math.isnan(sizes[run])}
    if not known:
        return {}
    missing = [run for run in runs if run not in known]
    if missing:
        others = ", ".join(parameters(size) for size in distinct(known.values()))
        raise ObservationsError(
            f"{len(missing)} of {len(runs)} runs have no model size: {listed(missing)}. The others have {others} "
            "parameters, and runs of an unknown size cannot be pooled with them: give these a size, or analyse "
            "without them"
        )
    for run, size in known.items():
        try:
            checked_size(size, f"run {shown(run)}: the model size")
        except ValueError as error:
            raise ObservationsError(str(error)) from None
    groups = distinct(known.values())
    return {run: min(groups, key=lambda one: abs(math.log(one / size))) for run, size in known.items()}


def schedules_of(
    schedules: Mapping[str, float], last: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the length of each run's schedule where it is said, in tokens, and those that can't be.

    A schedule that ends before the run's last losses can't be: it is in another unit, or was made longer on the way.

    Args:
        schedules: By run, as far as it is known (NaN: unknown).
        last: The tokens of each run's last losses.

    >>> schedules_of({"a": 2e9, "b": 1e6}, {"a": 1e9, "b": 1e9, "c": 1e9})
    ({'a': 2000000000.0}, {'b': 1000000.0})
    """
    known = {run: float(schedules[run]) for run in last if run in schedules and not math.isnan(schedules[run])}
    wrong = {run: tokens for run, tokens in known.items() if not last[run] <= SAME_SIZE * tokens < math.inf}
    return {run: tokens for run, tokens in known.items() if run not in wrong}, wrong


def other_schedule(before: str, now: str) -> str:
    """Return what is said of a run that goes on with another schedule."""
    return f"the learning-rate schedule was made for {before}, and now for {now}: the whole run counts as one of {now}"
