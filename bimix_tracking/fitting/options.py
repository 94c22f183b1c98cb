"""How laws are fitted: said once, and handed on whole to everything that is computed from a sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

FLOORS = (1e-3, 1e-4, 1e-5)
"""Proportion floors that are tried where a sweep has smaller proportions, the usual one first."""
ZeroShare = float | Literal["chosen"] | None
"""A proportion floor; `chosen`: by held-out error; None: none, runs below the usual one are excluded."""
FOLDS = 10
"""Into how many parts mixtures are divided by default."""
HUBER_DELTA = 0.01
"""An error above 1 % of the loss pulls no harder than that."""


@dataclass(frozen=True)
class FitOptions:
    """How laws are fitted to a sweep; the same for all laws that are compared.

    Args:
        huber_delta: δ of the Huber loss, in log loss (a relative error).
        zero_share: Proportion floor: in a law that is infinite at r = 0, a smaller own proportion counts as this.
            `chosen`: the one of `FLOORS` with which each law predicts held-out mixtures best (`folds.fit_held_out`);
            None excludes such runs for the domain.
        warmup: Losses at no more than so many tokens don't count. None: the warm-up is found from the data, once
            (`warmup.settled`).
        folds: Into how many parts mixtures are divided, to predict each part by a fit without it.
        seed: Of the division.

    Raises:
        ValueError: An option is out of range; the text has the number.

    >>> FitOptions(huber_delta=0)
    Traceback (most recent call last):
    ValueError: huber_delta must be positive and zero_share in (0, 1): 0, chosen
    """

    huber_delta: float = HUBER_DELTA
    zero_share: ZeroShare = "chosen"
    warmup: float | None = None
    folds: int = FOLDS
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.zero_share, str) and self.zero_share != "chosen":
            raise ValueError(f"zero_share must be a number, None or 'chosen', got {self.zero_share!r}")
        if not self.huber_delta > 0 or not 0 < self.floor < 1:
            raise ValueError(
                f"huber_delta must be positive and zero_share in (0, 1): {self.huber_delta}, {self.zero_share}"
            )
        if self.warmup is not None and not (math.isfinite(self.warmup) and self.warmup >= 0):
            raise ValueError(f"warmup must be a number of tokens, not negative, got {self.warmup}")
        if self.folds < 2:
            raise ValueError(f"with {self.folds} folds nothing is held out: take 2 or more")

    @property
    def floor(self) -> float:
        """Below what an own proportion counts as it, or is excluded: the usual one until one is chosen."""
        return self.zero_share if isinstance(self.zero_share, float | int) else FLOORS[0]

    @property
    def clamped(self) -> bool:
        """Whether smaller proportions count as the floor; else such runs are excluded."""
        return self.zero_share is not None

    @property
    def warmup_end(self) -> float:
        """Losses at no more than so many tokens don't count: 0 until a warm-up is known."""
        return 0.0 if self.warmup is None else self.warmup


USUAL = FitOptions()
"""What holds where nothing is said."""
