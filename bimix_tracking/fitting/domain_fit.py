"""DomainFit: the fit of one target domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bimix_tracking.fitting.outcome import Outcome


@dataclass(frozen=True)
class DomainFit:
    """The fit of one target domain.

    Args:
        parameters: By the law's names; NaN where not identifiable.
        outcome: How it ended, and what to do.
        points: Losses fitted.
        runs: Runs they come from.
        error: Mean |predicted − observed| / observed, on the points fitted.
        r2: 1 − SS_res / SS_tot of log loss over all points fitted. It mostly sees the fall along training.
        starts: How many starts reached the best cost, of how many.
        shares: Smallest and largest own proportion observed; 0 and 0 for a target outside the mixtures.
        standard_errors: By the parameters' names, from the spread between whole runs; none where nothing was fitted.
        tokens: Smallest and largest data volume of the losses fitted; None: those of the sweep.
    """

    parameters: Mapping[str, float]
    outcome: Outcome
    points: int
    runs: int
    error: float
    r2: float
    starts: tuple[int, int]
    shares: tuple[float, float]
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fit as JSON types; `from_dict` reads it back."""
        return {
            **_nan_as_none(vars(self)),
            "parameters": _nan_as_none(self.parameters),
            "standard_errors": _nan_as_none(self.standard_errors),
            "outcome": self.outcome.name,
            "remedy": self.outcome.remedy,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DomainFit:
        """Read what `to_dict` wrote."""
        return cls(
            parameters=_none_as_nan(content["parameters"]),
            standard_errors=_none_as_nan(content["standard_errors"]),
            outcome=Outcome[content["outcome"]],
            starts=tuple(content["starts"]),
            shares=tuple(content["shares"]),
            tokens=None if content.get("tokens") is None else tuple(content["tokens"]),
            **_none_as_nan({name: content[name] for name in ("points", "runs", "error", "r2")}),
        )


def _nan_as_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}


def _none_as_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.nan if v is None else v for name, v in values.items()}
