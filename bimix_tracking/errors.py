"""Every error the package raises on purpose: one class for each kind of remedy; and how their texts show values."""

from __future__ import annotations

import functools
import itertools
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from bimix_tracking.credentials import without_credentials


class BimixError(Exception):
    """Base of all errors raised on purpose; its text names culprit, number and remedy, and no credential."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_credentials(each) if isinstance(each, str) else each for each in args))


class MixtureError(BimixError, ValueError):
    """Named proportions that are no point of the simplex."""


class ObservationsError(BimixError, ValueError):
    """Losses and mixtures that cannot be pooled or fitted."""


class RecorderError(BimixError, ValueError):
    """Something a training loop handed over that cannot be attributed to a domain."""


class RecommendationError(BimixError, ValueError):
    """A fit from which no mixture can be recommended."""


class ConstraintError(RecommendationError):
    """Bounds, pins or caps that are wrong, or that no mixture meets."""


class SourceError(BimixError):
    """A tracker that cannot be reached, or that holds nothing to read."""


class ReadOnlyError(SourceError):
    """A source that can be read, and is not written to, whenever it is tried."""


class RefusedError(SourceError):
    """Something that a tracker never takes, however often it is sent: no outage, and what follows is sent."""


class RunError(BimixError):
    """One run that cannot be read: its source excludes it by name and reads the others."""


class CorpusError(BimixError, ValueError):
    """Text or token ids that cannot be read or counted."""


class WaitTimeoutError(SourceError):
    """A sweep that has not ended in the time given."""


class PluginError(BimixError):
    """What another package adds by an entry point, and that cannot be used: names the package and the remedy."""


class RecommendationWarning(UserWarning):
    """What an analysis warns of, said to whoever uses its mixture."""


class MissingDependencyError(BimixError, ImportError):
    """An optional framework that is not installed.

    Args:
        package: The import name that was missing.
        extra: The extra of this distribution that installs it.

    >>> print(MissingDependencyError("mlflow", extra="mlflow"))
    mlflow is not installed. Run: pip install 'bimix-tracking[mlflow]'
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed. Run: pip install 'bimix-tracking[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross to another process, as the others do: it is made of more than its text."""
        return functools.partial(type(self), extra=self.extra), (self.package,)


class _Shown(reprlib.Repr):
    """`repr` that stops after a few parts and levels, and has an answer for whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 3
        self.maxstring = self.maxother = self.maxlong = 60

    def repr1(self, x: object, level: int) -> str:
        # By what it is, not by its type's name: a document's mappings and lists are of our own types.
        if isinstance(x, dict):
            return self.repr_dict(x, level)
        if isinstance(x, list):
            return self.repr_list(x, level)
        try:
            return super().repr1(x, level)
        except ValueError:  # an integer of more digits than Python writes
            return f"a {type(x).__name__} of too many digits"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        if level <= 0 and x:
            return "{...}"
        told = [f"{self.repr1(k, level - 1)}: {self.repr1(x[k], level - 1)}" for k in itertools.islice(x, self.maxdict)]
        return "{" + ", ".join([*told, *(["..."] if len(x) > self.maxdict else [])]) + "}"


_SHOWN = _Shown()


def shown(value: object, most: int = 100) -> str:
    """Return a value from anywhere as an error's text shows it: its `repr` where that is short, else its beginning.

    However large a value is, only what is shown of it is looked at.

    >>> print(shown("code"), shown({"a": [1, [2, [3]]]}), shown("x" * 10**6), shown(list(range(10**6))))
    'code' {'a': [1, [...]]} 'xxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxx' [0, 1, 2, ...]
    """
    text = _SHOWN.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first of some names, and how many more there are.

    >>> print(listed(["code", "web"]), "|", listed(f"d{i}" for i in range(30_000)))
    'code', 'web' | 'd0', 'd1', 'd2', 'd3', 'd4' and 29995 more
    """
    found = list(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(shown, found[:most])) + more


def clipped(text: str, most: int = 200) -> str:
    r"""Return a text on one line, and its beginning only where it is long.

    >>> clipped("no\nJSON"), clipped("abcdef", 4)
    ('no JSON', 'abc…')
    """
    text = " ".join(text[: 10 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
