"""Sweeps at several model sizes, made from one law and known levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking import Observations

Array = npt.NDArray[np.float64]
DOMAINS = ("code", "math", "web")
LAW: dict[str, tuple[float, float, float, float]] = {
    "code": (0.05, 0.4, 400.0, 1.1),
    "math": (0.2, 0.3, 60.0, 1.4),
    "web": (0.1, 0.5, 2000.0, 2.7),
}
"""α, β, B, C at the largest size."""
PROGRESS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Size:
    """Runs of one model size.

    Args:
        size: Parameters.
        mixtures: Shares of each run.
        schedule: Its length, tokens.
        level: δ by target against the largest size, at the end of a run.
        tilt: By how much more δ is at the beginning, for each nat that log p is below 0.
        reached: What share of the schedule its runs have.
    """

    size: float
    mixtures: Sequence[Sequence[float]]
    schedule: float = 2e7
    level: Mapping[str, float] = field(default_factory=dict)
    tilt: float = 0.0
    reached: float = 1.0

    def delta(self, target: str, progress: float) -> float:
        """Return δ."""
        return self.level.get(target, 0.0) - self.tilt * float(np.log(progress))


def law_loss(target: str, share: float, progress: float, schedule: float) -> float:
    """Return the loss at the largest size, whose schedule is given."""
    alpha, beta, b, c = LAW[target]
    return float(share**-alpha * (b / (progress * schedule) ** beta + c))


def drawn(count: int, seed: int = 0) -> list[list[float]]:
    """Return mixtures inside the simplex."""
    shares = np.random.default_rng(seed).dirichlet(np.full(len(DOMAINS), 2.0), count) * 0.85 + 0.05
    return [[float(x) for x in row] for row in shares]


def table_of(sizes: Sequence[Size], *, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Return a row a checkpoint; noise is each run's own and, half of it, each loss's."""
    rng, longest = np.random.default_rng(seed), sizes[-1].schedule
    rows = []
    for one in sizes:
        for number, mixture in enumerate(one.mixtures):
            luck = noise * rng.standard_normal(len(DOMAINS))
            for p in [p for p in PROGRESS if p <= one.reached]:
                row = {"run": f"{one.size:g}-{number}", "size": one.size, "schedule": one.schedule}
                row["tokens"] = p * one.schedule
                for i, (target, share) in enumerate(zip(DOMAINS, mixture, strict=True)):
                    off = one.delta(target, p) + luck[i] + noise / 2 * rng.standard_normal()
                    row |= {f"p {target}": share, f"l {target}": law_loss(target, share, p, longest) * np.exp(off)}
                rows.append(row)
    return pd.DataFrame(rows)


def observe(table: pd.DataFrame) -> Observations:
    """Read a table of `table_of`."""
    names = [c.removeprefix("p ") for c in table.columns if c.startswith("p ")]
    return Observations.from_wide(
        table,
        proportions={d: f"p {d}" for d in names},
        losses={d: f"l {d}" for d in names},
        tokens="tokens",
        run="run",
        model_size="size",
        schedule_tokens="schedule",
    )


def truth(mixtures: Array, progress: float, one: Size, longest: float) -> Array:
    """Return the true losses of a size at a progress, (mixtures, targets)."""
    return np.array(
        [
            [
                law_loss(t, r, progress, longest) * np.exp(one.delta(t, progress))
                for t, r in zip(DOMAINS, row, strict=True)
            ]
            for row in mixtures.tolist()
        ]
    )
