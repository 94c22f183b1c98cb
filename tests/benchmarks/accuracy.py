"""How far off each law and the chosen predictor are on unseen mixtures of a real sweep, over repeated random splits.

python tests/benchmarks/accuracy.py [--splits 20] [--size 310m] [--mixtures 6 8 12]
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sweeps import observe, slimpajama

from bimix_tracking import LawFit, Observations, select_law

SIZES = {6: 2, 10: 1, 20: 1, 36: 1}
"""Training mixtures, and how many times the splits: with six of them, chance is larger."""


def score(fit: LawFit, seen: pd.DataFrame, obs: Observations, domains: list[str]) -> tuple[float, float]:
    """Return the mean relative error on unseen runs in per cent, and the rank correlation of the mean final loss."""
    predicted = fit.predict(seen[[f"weight_{d}" for d in obs.domains]].to_numpy(), seen["n_tokens"].to_numpy())
    observed = seen[[f"{d}_loss" for d in domains]].to_numpy()
    off = np.abs(predicted[domains].to_numpy() / observed - 1)
    last = (seen["n_tokens"] == seen.groupby("run")["n_tokens"].transform("max")).to_numpy()
    means = predicted[domains].to_numpy()[last].mean(1), observed[last].mean(1)
    return 100 * float(np.nanmean(off)), float(spearmanr(*means, nan_policy="omit").statistic)


def run(splits: int, sizes: dict[int, int] | None = None, seed: int = 0, size: str = "122m") -> pd.DataFrame:
    """Return one row a (training mixtures, split, law) with error and rank; `chosen` is what `select_law` takes."""
    table, domains = slimpajama(size)
    rows = []
    for mixtures, times in (sizes or SIZES).items():
        rng = np.random.default_rng(seed)
        for split in range(splits * times):
            chosen = rng.permutation(table["run"].unique())[:mixtures]
            inside = table["run"].isin(chosen)
            obs = observe(table[inside], domains)
            found = select_law(obs, seed=split)
            for name, fit in {**found.fits, "chosen": found.fit}.items():
                error, rank = score(fit, table[~inside], obs, domains)
                told = {"law": name, "error": error, "rank": rank, "took": found.fit.law}
                rows.append({"mixtures": mixtures, "split": split, **told})
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--size", default="122m", help="of the models: 122m or 310m")
    parser.add_argument("--mixtures", type=int, nargs="*", default=list(SIZES))
    asked = parser.parse_args()
    found = run(asked.splits, {mixtures: SIZES.get(mixtures, 1) for mixtures in asked.mixtures}, size=asked.size)
    print("| training mixtures | splits | law | error % | rank correlation | of the best single law |")
    print("|---|---|---|---|---|---|")
    for count, part in found.groupby("mixtures"):
        means = part.groupby("law", sort=False)[["error", "rank"]].mean()
        best = means.drop(index=["ensemble", "chosen"], errors="ignore")["error"].min()
        for law, row in means.iterrows():
            ratio = f"{row['error'] / best:.3f}"
            print(f"| {count} | {part['split'].nunique()} | {law} | {row['error']:.3f} | {row['rank']:.3f} | {ratio} |")
        took = part[part["law"] == "chosen"]["took"].value_counts()
        print(f"| {count} | | chosen was | {', '.join(f'{n} {c}×' for n, c in took.items())} | | |")


if __name__ == "__main__":
    main()
