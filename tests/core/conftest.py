"""Sweeps made from known laws, and where the reference data lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bimix_tracking import Observations

Law = tuple[float, float, float, float]
"""α, β, B, C."""
MakeSweep = Callable[..., Observations]


def loss(law: Law, share: float, tokens: float) -> float:
    """Return r^−α (B / s^β + C)."""
    alpha, beta, b, c = law
    return float(share**-alpha * (b / tokens**beta + c))


@pytest.fixture
def sweep() -> MakeSweep:
    """Return a maker of sweeps that follow known laws."""

    def make(
        laws: Mapping[str, Law],
        *,
        mixtures: Sequence[Sequence[float]] | None = None,
        runs: int = 8,
        tokens: Sequence[float] = (1e6, 2e6, 4e6, 8e6, 1.6e7, 3.2e7),
        noise: float = 0.0,
        seed: int = 0,
    ) -> Observations:
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(len(laws), 2.0), runs) if mixtures is None else np.array(mixtures)
        rows = [
            {"run": f"run-{i}", "tokens": s}
            | {f"p {d}": r for d, r in zip(laws, mixture, strict=True)}
            | {
                f"l {d}": loss(law, r, s) * np.exp(noise * rng.standard_normal())
                for (d, law), r in zip(laws.items(), mixture, strict=True)
            }
            for i, mixture in enumerate(shares)
            for s in tokens
        ]
        return Observations.from_wide(
            pd.DataFrame(rows),
            proportions={d: f"p {d}" for d in laws},
            losses={d: f"l {d}" for d in laws},
            tokens="tokens",
            run="run",
        )

    return make


@pytest.fixture
def reference_data() -> Path:
    """Return the folder of the reference sweeps."""
    folder = Path(os.environ.get("BIMIX_REFERENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the reference sweeps are not in {folder}; BIMIX_REFERENCE_DATA names another folder")
    return folder
