"""What anchors were expected to buy, against what they bought: on made-up sweeps of known levels, and on SlimPajama.

python tests/benchmarks/anchor_worth.py [--splits 10]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from bimix_tracking import select_law
from bimix_tracking.design.stopping import SUM, stopping
from tests.core.anchor_sweeps import compared, observed, on_made_up


def slimpajama() -> tuple[pd.DataFrame, list[str]]:
    """Return SlimPajama at 122M and 310M, without its first checkpoints, by the columns of `made_up`."""
    folder = Path(os.environ.get("BIMIX_REFERENCE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    both = pd.concat([pd.read_csv(folder / f"slimpajama_{size}.csv") for size in ("122m", "310m")])
    shares = [column for column in map(str, both) if column.startswith("weight_")]
    names = [column.removeprefix("weight_") for column in shares]
    both["mixture"] = both[shares].round(6).groupby(shares).ngroup()
    both["run"] = both["mixture"].astype(str) + "-" + both["model_size"].astype(str)
    both = both[both["n_tokens"] > both.groupby("run")["n_tokens"].transform("min")]
    columns = {"n_tokens": "tokens"} | {f"weight_{n}": f"p_{n}" for n in names} | {f"{n}_loss": n for n in names}
    return both.rename(columns=columns), names


def on_slimpajama(splits: int, small: int, anchors: int) -> pd.DataFrame:
    """Return expected and found errors at 310M, a row a random split: anchors are among the small runs' mixtures."""
    table, names = slimpajama()
    rows = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(60).tolist()
        rows.append(compared(table, names, order[:small], order[:anchors], order[small:]))
    return pd.DataFrame(rows)


def errors_there(splits: int, small: int) -> list[float]:
    """Return mean relative errors at 310M of mixtures without a run: of as many runs there, and of 1, 2, 3 anchors."""
    table, names = slimpajama()
    size, mixture = table["model_size"], table["mixture"]
    last = table[size == size.max()].sort_values("tokens").drop_duplicates("run", keep="last")
    found = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(60).tolist()
        asked = last[last["mixture"].isin(order[small:])]
        shares, truth = (asked[list(columns)].to_numpy(float) for columns in ([f"p_{n}" for n in names], names))
        there = table[(size == size.max()) & mixture.isin(order[:small])]
        proxies = table[(size == size.min()) & mixture.isin(order[:small])]
        sweeps = [there, *(pd.concat([proxies, there[there["mixture"].isin(order[:k])]]) for k in (1, 2, 3))]
        fits = [select_law(observed(sweep, names), model_size=size.max()).fit for sweep in sweeps]
        predicted = [fit.predict(shares, last["tokens"].max())[names].to_numpy(float) for fit in fits]
        found.append([float(np.nanmean(np.abs(each / truth - 1))) for each in predicted])
    return [float(error) for error in np.mean(found, axis=0)]


def stopped(small: int, anchors: int, seed: int = 0) -> pd.DataFrame:
    """Return what stopping early adds, by part: from proxies of one size, and from curves at the larger one."""
    table, names = slimpajama()
    order = np.random.default_rng(seed).permutation(60).tolist()
    size, mixture, weights = table["model_size"], table["mixture"], dict.fromkeys(names, 1.0)
    proxies = table[(size == size.min()) & mixture.isin(order[:small])]
    both = pd.concat([proxies, table[(size == size.max()) & mixture.isin(order[:anchors])]])
    fit = select_law(observed(proxies, names)).fit
    sweeps = {"one size": observed(proxies, names), "two sizes": observed(both, names)}
    found = {name: stopping(obs, fit, weights) for name, obs in sweeps.items()}
    return pd.DataFrame({name: one.error[SUM] for name, one in found.items() if one is not None})


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=10)
    splits = parser.parse_args().splits
    rows = []
    for mixtures in (8, 16):
        for anchors in (1, 2, 3):
            found = on_made_up(splits, mixtures=mixtures, anchors=anchors)
            rows.append(("made up", mixtures, anchors, *(100 * np.sqrt((found**2).mean()))))
    for small in (10, 20):
        for anchors in (1, 2, 3):
            found = on_slimpajama(splits, small, anchors)
            rows.append(("122M to 310M", small, anchors, *(100 * np.sqrt((found**2).mean()))))
    columns = [
        "sweep",
        "mixtures",
        "anchors",
        "expected, by target",
        "found",
        "expected, of the sum",
        "found",
    ]
    print("Standard deviation of a predicted loss at the larger size, %")
    print(pd.DataFrame(rows, columns=columns).round(2).to_string(index=False))
    print("\nMean relative error at 310M of mixtures without a run there, %: as many runs there; 1, 2, 3 anchors")
    for small in (10, 20, 35):
        print(small, *(f"{100 * error:.3f}" for error in errors_there(splits, small)))
    print("\nError of the sum at the end where an anchor stops early, %, 20 proxies at 122M, 6 runs at 310M")
    print((100 * stopped(20, 6)).round(2).to_string())


if __name__ == "__main__":
    main()
