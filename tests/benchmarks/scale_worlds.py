"""Simulated sweeps at several sizes, by a joint law whose size and data terms depend on the mixture, with noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scale_ways import Array, Sweeps

SIZES = (1e8, 2.5e8, 6e8, 2e9)
SCHEDULES = (1e10, 2e10, 4e10, 1e11)
CHECKPOINTS = 10
DECAY = 0.04
"""How much log loss the schedule's end takes off, beside what the tokens do."""


def world(seed: int, *, domains: int = 5, mixtures: int = 40, noise: float = 0.003, depends: float = 0.06) -> Sweeps:
    """Return sweeps of the same mixtures at four sizes, each with a schedule of its own; the last is asked for.

    L_i = (E_i + 1 / Σ_j C_ij h_j^γ + A_i(h) / N^α + B_i(h) / D^β) e^(κ (1 − p)²) with log A_i(h) and log B_i(h)
    that vary by `depends`, p the share of the schedule, and noise of each run and, a third of it, of each checkpoint.

    Args:
        seed: Of all of it.
        domains: Of the mixtures.
        mixtures: At each size.
        noise: Standard deviation of a run's log loss about its law.
        depends: Standard deviation of log A_i and log B_i between mixtures; by default mixture effects differ between
            two sizes about as much as between the 122M and the 310M sweep, 0.26 %.
    """
    rng = np.random.default_rng([seed, domains])
    names = [f"domain {i}" for i in range(domains)]
    shares = rng.dirichlet(np.full(domains, 2.0), mixtures) * (1 - 0.02 * domains) + 0.02
    helps = rng.uniform(0.1, 0.5, (domains, domains)) + np.diag(rng.uniform(0.5, 1.5, domains))
    gamma, floor = rng.uniform(0.2, 0.5, domains), rng.uniform(0.8, 1.5, domains)
    by_size, by_data = rng.uniform(0.4, 0.8, domains), rng.uniform(0.3, 0.6, domains)
    alpha, beta = rng.uniform(0.2, 0.35, domains), rng.uniform(0.3, 0.5, domains)
    tilts = rng.standard_normal((2, domains, domains)) * depends / shares.std(0).mean() / domains**0.5
    mixed = np.exp(np.einsum("md,kid->kmi", shares - shares.mean(0), tilts))
    own = 1 / np.einsum("md,id->mi", shares ** gamma.mean(), helps)
    progress = np.arange(1, CHECKPOINTS + 1) / CHECKPOINTS
    rows = []
    for size, schedule in zip(SIZES, SCHEDULES, strict=True):
        n, d = (SIZES[0] / size) ** alpha, (SCHEDULES[0] / (progress[:, None] * schedule)) ** beta
        loss = floor + (own + by_size * mixed[0] * n)[:, None] + (by_data * mixed[1])[:, None] * d
        loss = loss * np.exp(DECAY * (1 - progress[:, None]) ** 2)
        loss = loss * np.exp(noise * rng.standard_normal((mixtures, 1, domains)))
        rows.append(_table(shares, loss * np.exp(noise / 3 * rng.standard_normal(loss.shape)), size, schedule, names))
    return Sweeps(pd.concat(rows, ignore_index=True), names)


def _table(shares: Array, losses: Array, size: float, schedule: float, names: list[str]) -> pd.DataFrame:
    """Return the rows of a size, as `Sweeps` has them, without each run's first checkpoint."""
    mixtures, checkpoints = losses.shape[:2]
    of = np.repeat(np.arange(mixtures), checkpoints)
    table = pd.DataFrame(shares[of], columns=[f"weight_{n}" for n in names])
    table[[f"{n}_loss" for n in names]] = losses.reshape(-1, len(names))
    tokens = np.tile(np.arange(1, checkpoints + 1) / checkpoints * schedule, mixtures)
    runs = [f"{size:g} {m}" for m in of]
    table = table.assign(mixture=of, run=runs, size=size, n_tokens=tokens, schedule=schedule)
    kept: pd.DataFrame = table.loc[table["n_tokens"] > schedule / checkpoints]
    return kept
