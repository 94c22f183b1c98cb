"""From small models to a large one: how far off the scale bridge is on unseen mixtures, and whether intervals hold.

python tests/benchmarks/scale.py [--small slimpajama_122m.csv …] [--large slimpajama_310m.csv] [--only accuracy …]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from calibration import differences
from scale_ways import WAYS, Array, Split, Sweeps, bridged, largest, last, score, splits
from scale_worlds import world

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, select_law
from bimix_tracking.fitting.replicates import Replicates

SPLITS, REPLICATES = 10, 100
ANCHORS = (1, 2, 3, 5, 10, 20)
MIXTURES = (10, 20)
COVERED = ("interval", "one", "half", "sum", "half of the sum")
NO_ANCHOR = {"the bridge", "the bridge, by tokens", "joint additive law"}
"""Ways that say something without an anchor."""
WORLDLY = ["the bridge, by tokens", "the bridge, largest small size"]
"""Ways that differ from the bridge only with several small sizes, or schedules that differ."""


Trials = Iterable[tuple[Sweeps, Split]]


def trials(sweeps: Sweeps, mixtures: int, count: int, unpaired: int = 0) -> Trials:
    """Return splits of a real sweep."""
    return [(sweeps, split) for split in splits(sweeps, mixtures, count, unpaired)]


def compare(
    trials: Trials, ways: list[str], anchors: Sequence[int], *, part: float = 1.0, whole: bool = False, name: str
) -> None:
    """Print error and rank of each way on unseen mixtures, at their last checkpoint or along their whole run.

    Args:
        trials: Sweeps and their splits.
        ways: Names in `WAYS`.
        anchors: How many.
        part: Of the anchors' schedule, what is seen.
        whole: All checkpoints, not only the last.
        name: What the rows are called.
    """
    rows = []
    for sweeps, split in trials:
        asked = sweeps.rows(split.unseen, large=True)
        asked = asked if whole else last(asked)
        for k in anchors:
            seen = sweeps.rows(split.anchored[:k], large=True, part=part)
            for way in ways:
                if k or way in NO_ANCHOR:
                    error, rank = score(WAYS[way](sweeps, split, seen, asked), sweeps.losses(asked))
                    rows.append({"anchors": k, "way": way, "error": error, "rank": rank})
    found = pd.DataFrame(rows).groupby(["way", "anchors"]).mean().to_dict("index")
    for way in ways:
        at = [found.get((way, k)) for k in anchors]
        cells = " | ".join("" if one is None else f"{one['error']:.3f}, {one['rank']:.3f}" for one in at)
        print(f"| {name} | {way} | {cells} |", flush=True)


def head(anchors: Sequence[int], what: str) -> None:
    """Print the head of a table of errors."""
    print(f"\n{what}: error %, rank correlation\n")
    print("| small mixtures | way | " + " | ".join(f"{k} anchors" for k in anchors) + " |")
    print("|---|---|" + "---|" * len(anchors), flush=True)


def accuracy(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print errors at the last checkpoint."""
    head(asked.anchors, "last checkpoint")
    for mixtures in asked.mixtures:
        few = [k for k in asked.anchors if k <= mixtures]
        compare(trials(sweeps, mixtures, asked.splits), asked.ways, few, name=str(mixtures))


def unpaired(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print errors at the last checkpoint, where anchors are of mixtures that no small run has."""
    head((1, 2, 3), "last checkpoint, anchors of other mixtures")
    ways = [name for name in asked.ways if name != "one factor, by pairs"]
    for mixtures in asked.mixtures:
        compare(trials(sweeps, mixtures, asked.splits, 3), ways, (1, 2, 3), name=str(mixtures))


def trajectories(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print errors over all checkpoints but the first."""
    head((1, 2, 3), "all checkpoints but the first")
    for mixtures in asked.mixtures:
        compare(trials(sweeps, mixtures, asked.splits), asked.ways, (1, 2, 3), whole=True, name=str(mixtures))


def cut(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print errors at the last checkpoint where anchors were seen for half their schedule."""
    head((1, 2, 3), "anchors cut at half")
    ways = [name for name in asked.ways if name != "law of the anchors alone"]
    for mixtures in asked.mixtures:
        compare(trials(sweeps, mixtures, asked.splits), ways, (1, 2, 3), part=0.5, name=str(mixtures))


def simulated(_: Sweeps, asked: argparse.Namespace) -> None:
    """Print errors in worlds of three small sizes with schedules of their own."""
    worlds = [(one, next(splits(one, 12, 1))) for one in map(world, range(asked.splits))]
    ways = [*asked.ways, *(name for name in WORLDLY if "the bridge" in asked.ways)]
    head((0, 1, 3), "simulated, three small sizes, last checkpoint")
    compare(worlds, ways, (0, 1, 3), name="12 each")
    head((1, 3), "simulated, three small sizes, anchors cut at half")
    compare(worlds, ways, (1, 3), part=0.5, name="12 each")
    if "the bridge" in asked.ways:
        covered(worlds, (0, 1, 3), 1.0, "12 each, simulated")
        covered(worlds, (1, 3), 0.5, "12 each, simulated, cut at half")


def coverage(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print how often 90 % intervals hold at unseen mixtures, with whole anchors and cut ones."""
    for mixtures in asked.mixtures:
        few = [k for k in asked.anchors if k <= mixtures]
        covered(trials(sweeps, mixtures, asked.splits), few, 1.0, str(mixtures))
        covered(trials(sweeps, mixtures, asked.splits), few[:3], 0.5, f"{mixtures}, cut at half")


def covered(trials: Trials, anchors: Sequence[int], part: float, name: str) -> None:
    """Print how often 90 % intervals hold: of an expected loss, a new run's loss and sum, the change between two."""
    print("\n90 % intervals at unseen mixtures, last checkpoint: held %, and half their width in % of the loss\n")
    print("| small mixtures | anchors | interval | a new run | half | a new run's sum | half | worst domain | change |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for k in anchors:
        found = pd.DataFrame([_covered(sweeps, split, k, part) for sweeps, split in trials]).mean()
        worst = found[[c for c in found.index if c.startswith("of ")]].min()
        cells = " | ".join(f"{100 * found[n]:.{2 if 'half' in n else 1}f}" for n in COVERED)
        print(f"| {name} | {k} | {cells} | {100 * worst:.0f} | {100 * found['change']:.1f} |", flush=True)


def _covered(sweeps: Sweeps, split: Split, anchors: int, part: float) -> dict[str, float]:
    obs, fit = bridged(sweeps, split, sweeps.rows(split.anchored[:anchors], large=True, part=part))
    drawn = bootstrap(obs, fit, replicates=REPLICATES, seed=split.number)
    fit, drawn = fit.at(sweeps.target), drawn.at(sweeps.target)
    rows = last(sweeps.rows(split.unseen, large=True))
    ends = rows.iloc[np.flatnonzero(np.isfinite(sweeps.losses(rows)).all(1))]
    shares, volume, losses = sweeps.shares(ends), ends["n_tokens"].to_numpy(float), sweeps.losses(ends)
    held, half = single_runs(fit, drawn, shares, volume, losses)
    low, high = (end[sweeps.domains].to_numpy(float) for end in drawn.interval(shares, volume))
    weights = dict.fromkeys(sweeps.domains, 1.0)
    pairs = differences(drawn, shares, volume, losses, weights, np.random.default_rng(split.number))
    return {
        "interval": float(((low <= losses) & (losses <= high)).mean()),
        "one": float(held[:, :-1].mean()),
        "half": float(half[:, :-1].mean()),
        "sum": float(held[:, -1].mean()),
        "half of the sum": float(half[:, -1].mean()),
        "change": float(pairs["held"].mean()),
        **dict(zip((f"of {d}" for d in sweeps.domains), held[:, :-1].mean(0).tolist(), strict=True)),
    }


def single_runs(fit: LawFit, drawn: Replicates, shares: Array, volume: Array, losses: Array) -> tuple[Array, Array]:
    """Return whether 90 % intervals of new runs hold each loss and, last, their sum, and half their widths (log)."""
    domains = list(fit.targets)[: losses.shape[1]]
    centre = fit.losses(shares, volume)[domains].to_numpy(float)
    held, half = np.empty((2, len(shares), len(domains) + 1))
    for n, row in enumerate(shares):
        mixture = Mixture.normalized(dict(zip(fit.domains, row.tolist(), strict=True)))
        for i, weights in enumerate([*({d: 1.0} for d in domains), dict.fromkeys(domains, 1.0)]):
            which = [domains.index(d) for d in weights]
            half[n, i] = drawn.half_of_run(weights, mixture, float(volume[n]), 0.9)
            held[n, i] = abs(np.log(losses[n, which].sum() / centre[n, which].sum())) <= half[n, i]
    return held, half


def speed(sweeps: Sweeps, asked: argparse.Namespace) -> None:
    """Print how long the choice of the law takes at two sizes, against one, in turn."""
    split = next(splits(sweeps, 20, 1))
    one = sweeps.observe(largest(sweeps, split), bare=True)
    print("\n| anchors | one size, s | two sizes, s | ratio |\n|---|---|---|---|")
    for k in (1, 3, 20):
        two = sweeps.observe(largest(sweeps, split), sweeps.rows(split.anchored[:k], large=True))
        times = np.array([[_seconds(one), _seconds(two, model_size=sweeps.target)] for _ in range(asked.splits)])
        ratio = float(np.median(times[:, 1] / times[:, 0]))
        print(f"| {k} | {np.median(times[:, 0]):.2f} | {np.median(times[:, 1]):.2f} | {ratio:.2f} |", flush=True)


def _seconds(obs: Observations, model_size: float | None = None) -> float:
    fresh = Observations(**{one.name: getattr(obs, one.name) for one in fields(obs)})
    begin = time.perf_counter()
    select_law(fresh, model_size=model_size)
    return time.perf_counter() - begin


TABLES = {
    "accuracy": accuracy,
    "unpaired": unpaired,
    "trajectories": trajectories,
    "cut": cut,
    "coverage": coverage,
    "simulated": simulated,
    "speed": speed,
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", nargs="+", default=["slimpajama_122m.csv"])
    parser.add_argument("--large", default="slimpajama_310m.csv")
    parser.add_argument("--only", nargs="*", default=list(TABLES), choices=TABLES)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--mixtures", type=int, nargs="*", default=list(MIXTURES))
    parser.add_argument("--anchors", type=int, nargs="*", default=list(ANCHORS))
    ways = [name for name in WAYS if name not in WORLDLY]
    parser.add_argument("--ways", nargs="*", default=ways, choices=WAYS)
    asked = parser.parse_args()
    sweeps = Sweeps.read([*asked.small, asked.large])
    for name in asked.only:
        TABLES[name](sweeps, asked)


if __name__ == "__main__":
    main()
