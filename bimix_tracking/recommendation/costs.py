"""What training costs the team, as far as it says so."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bimix_tracking.errors import RecommendationError

_LONGEST_CURRENCY = 8


@dataclass(frozen=True)
class Costs:
    """What training costs the team; None where it isn't said.

    Args:
        gpu_hours_per_run: Of one proxy run.
        target_gpu_hours: Of the run that will use the mixture.
        cost_per_gpu_hour: In `currency`.
        batch_tokens: Tokens of one step of the run that will use the mixture.
        currency: Printed before a cost, such as USD or ¥; at most 8 characters.

    Raises:
        RecommendationError: A number that isn't positive, a cost without GPU-hours, or a currency without a cost.

    >>> Costs(target_gpu_hours=2e4, cost_per_gpu_hour=2.5, currency="USD").currency
    'USD'
    """

    gpu_hours_per_run: float | None = None
    target_gpu_hours: float | None = None
    cost_per_gpu_hour: float | None = None
    batch_tokens: float | None = None
    currency: str = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "currency" and value is not None and not (math.isfinite(value) and value > 0):
                raise RecommendationError(f"{name.replace('_', ' ')} must be a positive number, got {value!r}")
        if self.cost_per_gpu_hour is not None and self.gpu_hours_per_run is None and self.target_gpu_hours is None:
            raise RecommendationError(
                "a cost per GPU-hour without GPU-hours: give those of a proxy run (gpu_hours_per_run), of the run that "
                "will use the mixture (target_gpu_hours), or both"
            )
        if self.currency and self.cost_per_gpu_hour is None:
            raise RecommendationError(f"a currency ({self.currency[:20]!r}) without a cost: give cost_per_gpu_hour")
        if len(self.currency) > _LONGEST_CURRENCY or not self.currency.isprintable():
            raise RecommendationError(
                f"{self.currency[:20]!r} is no currency: give a code or a sign, such as USD or ¥, of at most "
                f"{_LONGEST_CURRENCY} characters"
            )
