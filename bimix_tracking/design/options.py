"""Ways to spend a budget of compute, and what was measured of such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bimix_tracking.quantities import parameters
from bimix_tracking.quantities import tokens as tokens_of
from bimix_tracking.recommendation.investment.flops import training_flops

MEASURED_STEP = 310 / 122
MEASURED_BY = "python tests/benchmarks/anchor_worth.py"
MEASURED: tuple[tuple[float, tuple[float, float, float, float]], ...] = (
    (10 / 7, (0.0061, 0.0064, 0.0062, 0.0060)),
    (20 / 7, (0.0042, 0.0046, 0.0044, 0.0042)),
    (35 / 7, (0.0037, 0.0044, 0.0041, 0.0039)),
)
"""Mixtures by domain, and mean relative error at 310M on mixtures without a run there: of as many runs all at 310M, and
of runs at 122M with one, two and three anchors at 310M. SlimPajama, seven domains, whole runs of 20B tokens."""
MEASURED_RANK = 0.97
"""Rank correlation of the mean loss of the same 60 mixtures at 122M and at 310M."""


@dataclass(frozen=True)
class SizedRuns:
    """Runs of one size and length.

    Args:
        model_size: Parameters.
        tokens: Of one run.
        runs: How many.
        part: Which part of its schedule a run is trained for: below 1, it stops early.
    """

    model_size: float
    tokens: float
    runs: int
    part: float = 1.0

    @property
    def flops(self) -> float:
        """Of all of them."""
        return self.runs * training_flops(self.model_size, self.tokens)

    def __str__(self) -> str:
        return f"{self.runs} × {parameters(self.model_size)}, {tokens_of(self.tokens)} tokens"


@dataclass(frozen=True)
class Option:
    """One way to spend a budget.

    Args:
        name: `one size`, `two sizes` or `target size`.
        proxies: Runs of the sweep, the smallest size first; none where the budget doesn't reach.
        anchors: Runs at the target size beside them; None: no anchor.
        target: FLOPs of the target run.
        step: Target size over the largest size of the sweep.
        error: Mean relative error of a predicted loss at the target size, as measured at `MEASURED_STEP`; None where
            nothing was measured.
        needs: FLOPs it takes at least, where the budget doesn't reach.
        notes: What is known of it, and what isn't.
    """

    name: str
    proxies: tuple[SizedRuns, ...]
    anchors: SizedRuns | None
    target: float
    step: float
    error: float | None = None
    needs: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether the budget reaches."""
        return bool(self.proxies)

    @property
    def flops(self) -> float:
        """Of all its runs."""
        return sum(runs.flops for runs in self._all())

    def _all(self) -> tuple[SizedRuns, ...]:
        return self.proxies + (() if self.anchors is None else (self.anchors,))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {
            "option": self.name,
            "possible": self.possible,
            "proxies": [vars(runs) for runs in self.proxies],
            "anchors": None if self.anchors is None else vars(self.anchors),
            "flops": self.flops,
            "of_target": self.flops / self.target,
            "step": self.step if self.possible else None,
            "measured_error": self.error,
            "measured_step": MEASURED_STEP,
            "needs_flops": self.needs,
            "notes": list(self.notes),
        }
