"""Every error the package raises on purpose: one class for each kind of remedy."""

from __future__ import annotations

import functools
import reprlib


class BimixError(Exception):
    """Base of all errors raised on purpose; the text names the culprit, the number and the remedy."""


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


class RunError(BimixError):
    """One run that cannot be read: its source excludes it by name and reads the others."""


class CorpusError(BimixError, ValueError):
    """Text or token ids that cannot be read or counted."""


class WaitTimeoutError(SourceError):
    """A sweep that has not ended in the time given."""


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


def shown(value: object, most: int = 80) -> str:
    """Return a value as an error's text may hold it: never whole where it is large, deep or endless.

    >>> shown("web"), shown(["x" * 1000] * 1000, most=30)
    ("'web'", "['xxxxxxxxxxxx...xxxxxxxxxxxx…")
    """
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 3, most, most
    try:
        text = short.repr(value)
    except Exception:  # noqa: BLE001  # an integer of 5,000 digits; whatever a stranger's __repr__ does
        text = f"a {type(value).__name__}"
    return clipped(text, most)


def clipped(text: str, most: int = 200) -> str:
    r"""Return a text on one line, and its beginning only where it is long.

    >>> clipped("no\nJSON"), clipped("abcdef", 4)
    ('no JSON', 'abc…')
    """
    text = " ".join(text[: 10 * most].split())
    return text if len(text) <= most else f"{text[: most - 1]}…"
