"""Sweeps whose targets are no domains of the mixtures: what each law predicts of unseen ones, and if intervals hold.

python tests/benchmarks/targets.py [--only errors|coverage] [--sweeps regmix …] [--runs 8 16 …] [--splits 4]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr
from sweeps import regmix, slimpajama

from bimix_tracking import Observations, bootstrap, select_law
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.registry import names

Array = npt.NDArray[np.float64]
PILE = ("arxiv", "book", "c4", "cc", "github", "stackexchange", "wikipedia")
PROXIES = 22
REPLICATES = 60
UNSEEN = 120
PAIRS = 300
LEVEL = 0.9


@dataclass(frozen=True)
class Table:
    """A sweep of one data volume: mixtures, (runs, domains), and losses of targets, (runs, targets)."""

    shares: Array
    losses: Array
    domains: tuple[str, ...]
    targets: tuple[str, ...]

    def observed(self, runs: npt.NDArray[np.intp]) -> Observations:
        """Return the observations of some of the runs."""
        table = pd.DataFrame(self.shares[runs], columns=[f"p {d}" for d in self.domains])
        table[[f"l {t}" for t in self.targets]] = self.losses[runs]
        return Observations.from_wide(
            table.assign(run=[f"run {i}" for i in runs], tokens=1e9),
            proportions={d: f"p {d}" for d in self.domains},
            losses={t: f"l {t}" for t in self.targets},
            tokens="tokens",
            run="run",
        )


def of_regmix(*, outside: bool) -> Table:
    """Return RegMix's 512 runs; `outside`: with names for its 13 losses that are no domain's."""
    table, proportions, targets = regmix()
    shares = table[list(proportions.values())].to_numpy(float)
    named = tuple(f"{t} loss" if outside else t for t in targets)
    losses = table[list(targets.values())].to_numpy(float)
    return Table(shares / shares.sum(1, keepdims=True), losses, tuple(proportions), named)


def of_slimpajama(size: str) -> Table:
    """Return the last losses of SlimPajama's 60 runs, OpenHermes among them, none by a domain's name."""
    table, domains = slimpajama(size)
    columns = [f"{d}_loss" for d in (*domains, "openhermes")]
    last = table[table["n_tokens"] == table.groupby("run")["n_tokens"].transform("max")].dropna(subset=columns)
    return Table(
        last[[f"weight_{d}" for d in domains]].to_numpy(float),
        last[columns].to_numpy(float),
        tuple(domains),
        tuple(f"{c} of the set" for c in columns),
    )


def simulated(truth: str, seed: int, runs: int = 160, noise: float = 0.004) -> Table:
    """Return a sweep of 7 domains and 22 targets with other names, many proportions at 0, by a law that isn't ours.

    Args:
        truth: `power`, an effective share; `terms`, a sum of saturating terms; `exponential`; `interaction`, an
            exponential of square roots of proportions and of their products in pairs.
        seed: Of the truth and its runs.
        runs: How many.
        noise: Of a run's log losses, half of its variance shared by all of them.
    """
    rng, count = np.random.default_rng([seed, len(truth)]), len(PILE)
    natural = np.array([0.03, 0.04, 0.15, 0.67, 0.045, 0.02, 0.045])
    even = rng.random((runs, 1)) < 0.5
    shares = np.where(even, rng.dirichlet(np.ones(count), runs), rng.dirichlet(natural * 8 + 0.1, runs))
    shares = np.where(shares < 0.004, 0.0, shares)
    shares = shares / shares.sum(1, keepdims=True)
    level = rng.uniform(2, 4.5, PROXIES)
    helps = rng.gamma(0.4, 1, (PROXIES, count))
    helps = np.maximum(helps / helps.max(1, keepdims=True), 0.02)
    if truth == "power":
        losses = level * (shares @ helps.T) ** -rng.uniform(0.05, 0.2, PROXIES)
    elif truth == "terms":
        power, part = rng.uniform(0.3, 0.9, (PROXIES, count)), rng.uniform(0.15, 0.5, PROXIES)
        terms = (helps * shares[:, None] ** power).sum(-1)
        losses = level * (1 - part + 0.6 * part / (terms + 0.05) ** 0.7)
    elif truth == "exponential":
        losses = level * (0.6 + 0.4 * np.exp(-1.2 * shares @ helps.T))
    else:
        root, pairs = np.sqrt(shares + 1e-4), rng.normal(0, 0.25, (PROXIES, count, count)) * (1 - np.eye(count))
        products = np.einsum("rk,rl,tkl->rt", root, root, pairs)
        losses = level * (0.6 + 0.4 * np.exp(-root @ helps.T - 0.3 * products))
    luck = rng.standard_normal((runs, PROXIES)) + rng.standard_normal((runs, 1))
    return Table(shares, losses * np.exp(noise * luck / np.sqrt(2)), PILE, tuple(f"pile {i}" for i in range(PROXIES)))


SWEEPS: dict[str, Callable[[int], Table]] = {
    "regmix": lambda _: of_regmix(outside=True),
    "regmix, own names": lambda _: of_regmix(outside=False),
    "slimpajama 122m": lambda _: of_slimpajama("122m"),
    "slimpajama 310m": lambda _: of_slimpajama("310m"),
    "power": lambda seed: simulated("power", seed),
    "terms": lambda seed: simulated("terms", seed),
    "exponential": lambda seed: simulated("exponential", seed),
    "interaction": lambda seed: simulated("interaction", seed),
}


def split(table: Table, size: int, seed: int) -> tuple[Observations, npt.NDArray[np.intp]]:
    """Return the observations of `size` runs, and the places of the others."""
    order = np.random.default_rng([seed, size]).permutation(len(table.shares))
    return table.observed(order[:size]), order[size:]


def judged(fit: LawFit, table: Table, unseen: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Return the mean relative error of unseen losses, none above 100 %, and the rank correlation of their means."""
    at = [table.targets.index(t) for t in fit.targets]
    predicted = fit.losses(table.shares[unseen], 1e9).to_numpy(float)
    seen = table.losses[unseen][:, at]
    known = np.isfinite(predicted).all(1)
    error = np.minimum(np.abs(predicted / seen - 1), 1.0)[known]
    return float(error.mean()), float(spearmanr(predicted[known].mean(1), seen[known].mean(1)).statistic)


def errors(sweep: str, size: int, splits: int) -> None:
    """Print a row: each single law, the ensemble without `transfer` and with it, and what is chosen."""
    singles = names()
    rows: list[dict[str, float]] = []
    for seed in range(splits):
        table = SWEEPS[sweep](seed)
        if size + UNSEEN // 10 > len(table.shares):
            return
        obs, unseen = split(table, size, seed)
        found = select_law(obs, seed=seed)
        row: dict[str, float] = {}
        for name, fit in {**found.fits, "chosen": found.fit}.items():
            row[name], row[f"{name} rank"] = judged(fit, table, unseen)
        without = select_law(obs, (*(n for n in singles if n != "transfer"), "ensemble"), seed=seed)
        row["without"], row["without rank"] = judged(without.fit, table, unseen)
        rows.append(row)
    mean = pd.DataFrame(rows).mean()
    best = min((n for n in singles if n in mean), key=lambda n: mean[n])
    cells = " | ".join(
        f"{100 * mean[n]:.2f}" if n in mean else "–" for n in (*singles, "without", "ensemble", "chosen")
    )
    ranks = " | ".join(f"{mean[f'{n} rank']:.3f}" for n in (best, "without", "chosen"))
    print(f"| {sweep} | {size} | {cells} | {mean['chosen'] / mean[best]:.2f} | {ranks} |", flush=True)


def coverage(sweep: str, size: int, splits: int) -> None:
    """Print a row: how many unseen losses are in the intervals, and differences of two; widths against the errors."""
    rows = []
    for seed in range(splits):
        table = SWEEPS[sweep](seed)
        if size + UNSEEN // 10 > len(table.shares):
            return
        obs, unseen = split(table, size, seed)
        unseen = unseen[:UNSEEN]
        fit = select_law(obs, seed=seed).fit
        drawn = bootstrap(obs, fit, replicates=REPLICATES, seed=seed)
        shares, at = table.shares[unseen], [table.targets.index(t) for t in fit.targets]
        seen, centre = table.losses[unseen][:, at], fit.losses(shares, 1e9).to_numpy(float)
        low, high = (end.to_numpy(float) for end in drawn.interval(shares, 1e9, LEVEL))
        held = (low <= seen) & (seen <= high)
        one, other = np.triu_indices(len(shares), 1)
        picked = np.random.default_rng(seed).choice(len(one), min(PAIRS, len(one)), replace=False)
        one, other = one[picked], other[picked]
        by_draw = drawn.losses(shares, 1e9)
        weighted = [({t: 1.0}, np.eye(len(at))[i]) for i, t in enumerate(fit.targets)]
        pairs = []
        for weights, each in [*weighted, (dict.fromkeys(fit.targets, 1.0), np.ones(len(at)))]:
            apart = (centre[one] - centre[other]) @ each
            form = drawn.form(weights)
            variance = np.zeros(len(one)) if form is None else form.between(shares[one], shares[other])
            below, above = drawn.sides((by_draw[:, one] - by_draw[:, other]) @ each - apart, weights, variance, LEVEL)
            truly = (seen[one] - seen[other]) @ each
            pairs.append(float(((apart + below <= truly) & (truly <= apart + above)).mean()))
        rows.append(
            {
                "one": held.mean(),
                "pair": np.mean(pairs[:-1]),
                "sum": pairs[-1],
                "width": np.median((high - low) / 2 / seen),
                "ideal": np.mean(np.quantile(np.abs(centre / seen - 1), LEVEL, axis=0)),
            }
        )
    mean, least = 100 * pd.DataFrame(rows).mean(), 100 * pd.DataFrame(rows)["one"].min()
    print(
        f"| {sweep} | {size} | {mean['one']:.0f} | {least:.0f} | {mean['pair']:.0f} | {mean['sum']:.0f} "
        f"| {mean['width']:.2f} | {mean['ideal']:.2f} |",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["errors", "coverage"])
    parser.add_argument("--sweeps", nargs="+", choices=list(SWEEPS), default=list(SWEEPS), metavar="SWEEP")
    parser.add_argument("--runs", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--splits", type=int, default=4)
    asked = parser.parse_args()
    if asked.only != "coverage":
        singles = names()
        print(
            f"| sweep | runs | {' | '.join(singles)} | ensemble without transfer | ensemble | chosen "
            "| of the best single law | rank of that law | without transfer | chosen |"
        )
        print("|---" * (len(singles) + 9) + "|")
        for sweep in asked.sweeps:
            for size in asked.runs:
                errors(sweep, size, asked.splits)
    if asked.only != "errors":
        print(
            "\n| sweep | runs | one loss, % | in the worst split | difference of two, % | of their sums "
            "| half width, % | 90 % quantile of errors, % |\n" + "|---" * 8 + "|"
        )
        for sweep in asked.sweeps:
            for size in asked.runs:
                coverage(sweep, size, asked.splits)


if __name__ == "__main__":
    main()
