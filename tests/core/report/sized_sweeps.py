"""Simulated sweeps of several model sizes: mixture effects are shared, each size has its own level and schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations

SCHEDULES = {1e8: 2e9, 4e8: 4e9, 1.6e9: 8e9, 7e9: 2e10}
"""Model size → tokens of its runs' schedule."""
DROP = {1e8: 0.0, 4e8: 0.10, 1.6e9: 0.18, 7e9: 0.25}
"""By how much log losses of a size are below those of the smallest, of the first target; others fall less."""


def level(size: float, target: int) -> float:
    """Return δ of a target at a size, to the smallest."""
    return -DROP[size] * (1 - 0.2 * target)


def sized(
    runs: Mapping[float, int],
    domains: Sequence[str] = ("code", "web", "math"),
    *,
    cut: float = 1.0,
    noise: float = 1e-3,
    seed: int = 3,
    prefix: str = "run",
) -> Observations:
    """Return runs of several sizes; those of the largest are the first mixtures of the others.

    Args:
        runs: Model size → how many runs.
        domains: Of the mixtures.
        cut: Part of their schedule that runs of the largest size have reached.
        noise: Standard deviation of a run's level, log loss.
        seed: Of mixtures and noise.
        prefix: Of the runs' names.
    """
    draw = np.random.default_rng(seed)
    mixtures = draw.dirichlet(np.full(len(domains), 2.5), size=max(runs.values()))
    rows = []
    for size, count in runs.items():
        for number in range(count):
            shares = mixtures[number]
            off = noise * draw.standard_normal(len(domains))
            for progress in np.linspace(0.1, 1.0, 10):
                if size == max(runs) and progress > cut + 1e-9:
                    continue
                row: dict[str, object] = {"run": f"{prefix}-{size:.0e}-{number}", "size": size}
                row |= {"tokens": progress * SCHEDULES[size], "schedule": SCHEDULES[size]}
                for i, share in enumerate(shares):
                    fall = (60 + 10 * i) * (progress * SCHEDULES[1e8]) ** -0.3 + 1.2 + 0.2 * i
                    row[f"p{i}"] = share
                    row[f"l{i}"] = share ** -(0.06 + 0.02 * i) * fall * np.exp(level(size, i) + off[i])
                rows.append(row)
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={domain: f"p{i}" for i, domain in enumerate(domains)},
        losses={domain: f"l{i}" for i, domain in enumerate(domains)},
        tokens="tokens",
        run="run",
        model_size="size",
        schedule_tokens="schedule",
        source="sizes",
    )
