"""Every error the package raises on purpose: one class for each kind of remedy."""

from __future__ import annotations

import functools

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
