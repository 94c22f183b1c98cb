"""Whether ranks carry over between model sizes: how often the interval holds, and how often each verdict is given.

python tests/benchmarks/ranks.py [--only simulated|real] [--draws 2000]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr
from sweeps import slimpajama

from bimix_tracking import Observations
from bimix_tracking.selection.dependence import inverted_interval, rank_interval
from bimix_tracking.selection.rank_transfer import rank_transfer
from bimix_tracking.selection.size_ranks import Rank, SizePair, Transfer

Array = npt.NDArray[np.float64]
TRUE = (0.3, 0.5, 0.8, 0.9, 0.97, 0.99)
PAIRED = (4, 6, 10, 20, 60)


def ranks(draws: int, count: int, true: float, shape: str, rng: np.random.Generator) -> Array:
    """Return Spearman's correlations of samples of two variables that correlate by so much."""
    moment = 2 * np.sin(np.pi * true / 6)
    one, chance = rng.standard_normal((2, draws, count))
    spread = np.exp(0.7 * one) / np.exp(0.245) if shape == "uneven" else 1.0
    other = moment * one + np.sqrt(1 - moment**2) * spread * chance
    difference = one.argsort(1).argsort(1) - other.argsort(1).argsort(1)
    return np.asarray(1 - 6 * (difference**2).sum(1) / (count * (count**2 - 1)))


def simulated(draws: int) -> None:
    """Print coverage of both intervals, and how often each verdict is given and a target is called broken."""
    rng = np.random.default_rng(7)
    head = " | ".join(Transfer)
    print(f"| ρ | mixtures | by Fisher's z, % | by inversion, % | noise uneven, % | {head} | breaks |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for true in TRUE:
        really = float(ranks(1, 200_000, true, "uneven", rng)[0])
        for count in PAIRED:
            found = ranks(draws, count, true, "even", rng)
            uneven = ranks(draws, count, true, "uneven", rng)
            mean = [Rank(r, *inverted_interval(float(r), count)) for r in found]
            z = [rank_interval(float(r), count) for r in found]
            verdicts = [SizePair(1e6, 1e7, count, one, {}).verdict for one in mean]
            given = " | ".join(f"{np.mean([v is verdict for v in verdicts]):.3f}" for verdict in Transfer)
            held = [inverted_interval(float(r), count) for r in uneven]
            print(
                f"| {true} | {count} | {100 * np.mean([low <= true <= high for low, high in z]):.0f} "
                f"| {100 * np.mean([one.low <= true <= one.high for one in mean]):.0f} "
                f"| {100 * np.mean([low <= really <= high for low, high in held]):.0f} | {given} "
                f"| {np.mean([one.breaks for one in mean]):.3f} |"
            )


def two_sizes() -> Observations:
    """Return SlimPajama at 122M and at 310M, its domains' losses."""
    (one, domains), (other, _) = slimpajama("122m"), slimpajama("310m")
    names = [f"{size}-" + table["run"].astype(str) for size, table in (("122M", one), ("310M", other))]
    table = pd.concat([one, other], ignore_index=True).assign(run=pd.concat(names).to_numpy())
    return Observations.from_wide(
        table,
        proportions={d: f"weight_{d}" for d in domains},
        losses={d: f"{d}_loss" for d in domains},
        tokens="n_tokens",
        run="run",
        model_size="model_size",
    )


def real(draws: int) -> None:
    """Print what some of SlimPajama's mixtures say of all 60."""
    whole = rank_transfer(two_sizes())
    assert whole is not None
    (pair,) = whole.pairs
    true, targets = pair.mean.correlation, {t: rank.correlation for t, rank in pair.targets.items()}
    print(f"all 60 mixtures: {whole.sentence} {' '.join(whole.notes)}")
    print("by target: " + ", ".join(f"{t} {rank:.3f}" for t, rank in targets.items()))
    head = " | ".join(Transfer)
    print(f"| mixtures | ρ̂: 5 %, median, 95 % | interval holds ρ of all 60, % | {head} | regret, share of the gain |")
    print("|---|---|---|---|---|---|---|---|")
    one, other = pair.sums
    rng = np.random.default_rng(0)
    for count in (4, 6, 8, 10, 20, 40):
        chosen = [rng.permutation(len(one))[:count] for _ in range(draws)]
        found = [
            SizePair(pair.small, pair.large, count, _rank(one[c], other[c]), {}, (), (one[c], other[c])) for c in chosen
        ]
        held = np.mean([part.mean.low <= true <= part.mean.high for part in found])
        low, middle, high = np.quantile([part.mean.correlation for part in found], [0.05, 0.5, 0.95])
        given = " | ".join(f"{np.mean([part.verdict is verdict for part in found]):.3f}" for verdict in Transfer)
        lost = np.mean([part.regret for part in found]) / np.mean([part.gain for part in found])
        print(f"| {count} | {low:.2f}, {middle:.2f}, {high:.2f} | {100 * held:.0f} | {given} | {lost:.3f} |")


def _rank(one: Array, other: Array) -> Rank:
    found = float(spearmanr(one, other).statistic)
    return Rank(found, *inverted_interval(found, len(one)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["simulated", "real"])
    parser.add_argument("--draws", type=int, default=2000)
    arguments = parser.parse_args()
    if arguments.only != "real":
        simulated(arguments.draws)
    if arguments.only != "simulated":
        real(arguments.draws)
