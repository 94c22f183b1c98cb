"""How well the laws rank unseen mixtures of RegMix's 512 runs of 1M parameters, against its gradient-boosted trees.

python tests/benchmarks/regmix.py [--splits 3] [--training 256] [--without-trees]
"""

from __future__ import annotations

import argparse
import os
from time import perf_counter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr
from sweeps import regmix

from bimix_tracking import Observations, fit_law

LAWS = ("bimix", "transfer", "additive", "exponential", "ensemble")
TRAINING = 256
TREES = {"objective": "regression", "learning_rate": 0.01, "seed": 42, "verbosity": -1, "num_threads": 2}
ROUNDS = 1000


def ranks(predicted: npt.NDArray[np.float64], observed: npt.NDArray[np.float64]) -> list[float]:
    """Return Spearman's rank correlation of each target over the unseen runs."""
    return [float(spearmanr(p, o).statistic) for p, o in zip(predicted.T, observed.T, strict=True)]


def run(splits: int, training: int = TRAINING, seed: int = 0, *, trees: bool = True) -> pd.DataFrame:
    """Return one row a (split, predictor, target) with rank, relative error and the seconds of all targets' fits."""
    table, proportions, targets = regmix()
    shares, losses = table[list(proportions.values())].to_numpy(), table[list(targets.values())].to_numpy()
    rng = np.random.default_rng(seed)
    rows = []
    for split in range(splits):
        order = rng.permutation(len(table))
        seen, unseen = order[:training], order[-256:]
        predictions = {}
        obs = Observations.from_wide(
            table.iloc[seen], proportions=proportions, losses=targets, tokens="tokens", run="index"
        )
        for law in LAWS:
            start = perf_counter()
            fit = fit_law(obs, law)
            took = perf_counter() - start
            predictions[law] = fit.predict(shares[unseen], 1e9)[list(targets)].to_numpy(), took
        if trees:
            start = perf_counter()
            columns = [
                lightgbm.train(TREES, lightgbm.Dataset(shares[seen], losses[seen, i]), ROUNDS).predict(shares[unseen])
                for i in range(len(targets))
            ]
            predictions["LightGBM"] = np.column_stack([np.asarray(c) for c in columns]), perf_counter() - start
        for name, (predicted, took) in predictions.items():
            off = np.abs(predicted / losses[unseen] - 1).mean(0)
            found = zip(targets, ranks(predicted, losses[unseen]), off, strict=True)
            rows += [
                {"split": split, "law": name, "target": target, "rank": rank, "error": 100 * error, "seconds": took}
                for target, rank, error in found
            ]
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--training", type=int, default=TRAINING)
    parser.add_argument("--without-trees", action="store_true")
    asked = parser.parse_args()
    found = run(asked.splits, asked.training, trees=not asked.without_trees)
    splits, targets = found["split"].nunique(), found["target"].nunique()
    print(f"{asked.training} runs seen, 256 others unseen; {splits} random splits; {targets} targets.\n")
    print("| predictor | mean Spearman | lowest split | lowest target | error % | seconds |")
    print("|---|---|---|---|---|---|")
    for law, part in found.groupby("law", sort=False):
        split = part.groupby("split")["rank"].mean()
        target = part.groupby("target")["rank"].mean()
        lowest = f"{target.min():.4f} ({target.idxmin()})"
        numbers = f"{split.mean():.4f} | {split.min():.4f} | {lowest}"
        print(f"| {law} | {numbers} | {part['error'].mean():.2f} | {part['seconds'].median():.2f} |")


if __name__ == "__main__":
    main()
