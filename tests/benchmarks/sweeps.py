"""The sweeps that the benchmarks read or make."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from bimix_tracking import Observations


def reference(name: str) -> pd.DataFrame:
    """Return a table of the reference data, beside the repository or where BIMIX_REFERENCE_DATA says."""
    folder = Path(os.environ.get("BIMIX_REFERENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    return pd.read_csv(folder / name)


def slimpajama(size: str = "122m") -> tuple[pd.DataFrame, list[str]]:
    """Return the 60 runs of SlimPajama without their first checkpoint, and the domains; `run` numbers the mixtures."""
    table = reference(f"slimpajama_{size}.csv")
    shares = [c for c in table.columns if c.startswith("weight_")]
    table = table.assign(run=table.groupby(shares, sort=False).ngroup())
    first = table.groupby("run")["n_tokens"].transform("min")
    return table[table["n_tokens"] > first], [c.removeprefix("weight_") for c in shares]


def regmix() -> tuple[pd.DataFrame, dict[str, str], dict[str, str]]:
    """Return a row a run of RegMix, and by domain the columns of its proportion and, for 13 of the 17, of its loss."""
    shares, losses = (reference(f"regmix_train_{name}_1m.csv") for name in ("mixture", "pile_loss"))
    table = shares.merge(losses, on="index", validate="one_to_one").assign(tokens=1e9)
    proportions = {c.removeprefix("train_the_pile_"): c for c in shares.columns.drop("index")}
    targets = {c.removeprefix("metric/the_pile_").removesuffix("_val_loss"): c for c in losses.columns.drop("index")}
    return table, proportions, targets


def observe(table: pd.DataFrame, domains: list[str], targets: list[str] | None = None) -> Observations:
    """Return the observations of (a part of) `slimpajama`, of the domains' own losses or of those named."""
    return Observations.from_wide(
        table,
        proportions={d: f"weight_{d}" for d in domains},
        losses={d: f"{d}_loss" for d in (domains if targets is None else targets)},
        tokens="n_tokens",
        run="run",
    )


def simulated(
    domains: int, runs: int, checkpoints: int, *, noise: float = 0.003, seed: int = 0, concentration: float = 3.0
) -> Observations:
    """Return a sweep that follows BiMix, with noise of each run and of each loss."""
    rng = np.random.default_rng(seed)
    names = [f"domain {i}" for i in range(domains)]
    shares = np.maximum(rng.dirichlet(np.full(domains, concentration), runs), 2e-3)
    shares /= shares.sum(1, keepdims=True)
    tokens = np.geomspace(1e9, 2e10, checkpoints)
    alpha, beta = rng.uniform(0.03, 0.15, domains), rng.uniform(0.3, 0.8, domains)
    floor, fall = rng.uniform(1.5, 3, domains), rng.uniform(0.3, 1, domains)
    loss = shares[:, None] ** -alpha * (fall * (tokens[:, None] / 5e9) ** -beta + floor)
    loss *= np.exp(noise * rng.standard_normal((runs, 1, domains)) + noise * rng.standard_normal(loss.shape))
    run = np.repeat(np.arange(runs), checkpoints)
    table = pd.DataFrame(shares[run], columns=[f"p {d}" for d in names])
    table[[f"l {d}" for d in names]] = loss.reshape(-1, domains)
    table = table.assign(run=run, tokens=np.tile(tokens, runs))
    return Observations.from_wide(
        table, proportions={d: f"p {d}" for d in names}, losses={d: f"l {d}" for d in names}, tokens="tokens", run="run"
    )
