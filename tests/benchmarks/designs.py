"""How well planned runs do against random runs, judged by what a user runs, `select_law`.

python tests/benchmarks/designs.py --only pool         # runs chosen among the 60 mixtures of real sweeps
python tests/benchmarks/designs.py --only simulated    # sweeps simulated from known laws
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import warnings
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from sweeps import observe, slimpajama

from bimix_tracking import Mixture, Observations, fit_law, next_runs, plan_pilot, recommend, select_law
from bimix_tracking.errors import BimixError

Array = npt.NDArray[np.float64]
DOMAINS, RUNS, NOISE = (3, 7, 22), (8, 16, 32), (0.003, 0.01)
TOKENS = 1e9


class Truth:
    """L_i = c_i (r_i + Σ_j t_ij r_j)^(−α_i), drawn at random: t = 0 is BiMix."""

    def __init__(self, domains: int, law: str, rng: np.random.Generator) -> None:
        self.names = [f"d{i}" for i in range(domains)]
        self.law = law
        self.alpha = rng.uniform(0.03, 0.2, domains)
        self.level = rng.uniform(1.5, 3.0, domains)
        few = rng.random((domains, domains)) < min(1.0, 2.0 / domains)
        self.teach = rng.uniform(0, 0.5, (domains, domains)) * few * (law == "transfer")
        np.fill_diagonal(self.teach, 1.0)
        at = np.full((1, domains), 1 / domains)
        for _ in range(3000):
            pull = (self.alpha * self.level * (at @ self.teach.T) ** (-self.alpha - 1)) @ self.teach
            at = at * pull / (at * pull).sum()
        self.best = float(self.losses(at).sum())

    def losses(self, shares: Array) -> Array:
        """Return the losses without noise, (n, domains)."""
        return np.asarray(self.level * np.maximum(shares @ self.teach.T, 1e-9) ** -self.alpha)

    def observe(self, shares: Array, noise: float, rng: np.random.Generator) -> Observations:
        """Return a sweep at one data volume."""
        loss = self.losses(shares) * np.exp(noise * rng.standard_normal(shares.shape))
        table = pd.DataFrame(shares, columns=[f"p {d}" for d in self.names])
        table[[f"l {d}" for d in self.names]] = loss
        return Observations.from_wide(
            table.assign(tokens=TOKENS, run=[f"r{i}" for i in range(len(shares))]),
            proportions={d: f"p {d}" for d in self.names}, losses={d: f"l {d}" for d in self.names},
            tokens="tokens", run="run",
        )  # fmt: skip

    def regret(self, shares: Array, noise: float, rng: np.random.Generator, law: str | None) -> float:
        """Return how much summed loss the recommendation from runs at shares has above the optimum, nats."""
        try:
            obs = self.observe(shares, noise, rng)
            fit = select_law(obs).fit if law is None else fit_law(obs, law)
            found = recommend(fit, TOKENS).mixture.array(self.names)
        except BimixError:
            found = np.full(len(self.names), 1 / len(self.names))  # what a team does without a recommendation
        return float(self.losses(found[None]).sum()) - self.best


def random_shares(domains: int, runs: int, rng: np.random.Generator) -> Array:
    """Return runs even on the simplex: Dirichlet(1)."""
    shares = np.maximum(rng.dirichlet(np.ones(domains), runs), 1e-3)
    return np.asarray(shares / shares.sum(1, keepdims=True))


def designs(domains: int, runs: int, seed: int) -> dict[str, Array]:
    """Return the designs compared."""
    rng = np.random.default_rng([seed, 1])
    names = [f"d{i}" for i in range(domains)]
    near = np.maximum(rng.dirichlet(np.full(domains, 3.0), runs), 1e-3)
    return {
        "informative": plan_pilot(names, runs, seed=seed).shares,
        "space-filling": plan_pilot(names, runs, seed=seed, method="space-filling").shares,
        "random": random_shares(domains, runs, rng),
        "random near equal parts": near / near.sum(1, keepdims=True),
    }


def pilots(
    repetitions: int, law: str | None, domains: tuple[int, ...] = DOMAINS, sizes: tuple[int, ...] = RUNS
) -> Iterator[pd.DataFrame]:
    """Yield, a (truth, domains, runs, noise) at a time, one row a repetition and one column a design."""
    for k in domains:
        for n in sizes:
            # A plan doesn't depend on the truth; a handful of seeds stand for the method.
            made = [designs(k, n, seed) for seed in range(min(repetitions, 6))]
            for kind in ("bimix", "transfer"):
                for noise in NOISE:
                    rows = []
                    for one in range(repetitions):
                        truth = Truth(k, kind, np.random.default_rng([one, k, 7]))
                        given = made[one % len(made)] | {
                            "random": random_shares(k, n, np.random.default_rng([one, n, 9]))
                        }
                        rows.append(
                            {
                                name: 1e3 * truth.regret(shares, noise, np.random.default_rng([one, n, 3]), law)
                                for name, shares in given.items()
                            }
                        )
                    yield pd.DataFrame(rows, index=pd.Index([f"{kind} | {k} | {n} | {noise:.1%}"] * repetitions))


class Swept:
    """A real sweep of 60 mixtures, of which some are taken for training."""

    def __init__(self, size: str) -> None:
        self.table, self.domains = slimpajama(size)
        shares = [f"weight_{d}" for d in self.domains]
        rows = self.table.drop_duplicates("run")
        mixtures = [Mixture(dict(zip(self.domains, row, strict=True))) for row in rows[shares].to_numpy().tolist()]
        self.pool = dict(zip(mixtures, rows["run"].tolist(), strict=True))
        self.last = self.table["n_tokens"] == self.table.groupby("run")["n_tokens"].transform("max")
        self.tokens = float(self.table["n_tokens"].max())

    def observed(self, runs: list[int]) -> Observations:
        """Return the curves of some runs."""
        return observe(self.table[self.table["run"].isin(runs)], self.domains)

    def score(self, runs: list[int]) -> dict[str, float]:
        """Return how far off `select_law`'s choice is on the other mixtures, in per cent, and its regret, in mnat.

        `end` is the mean relative error of the losses at the end of the runs, `all` at all checkpoints. The regret is
        that of the mixture of the 60 whose predicted mean final loss is lowest: its observed one above the best.
        """
        fit = select_law(self.observed(runs)).fit
        shares = self.table[[f"weight_{d}" for d in self.domains]].to_numpy()
        predicted = fit.predict(shares, self.table["n_tokens"].to_numpy())[self.domains].to_numpy()
        observed = self.table[[f"{d}_loss" for d in self.domains]].to_numpy()
        off, last = 100 * np.abs(predicted / observed - 1), self.last.to_numpy()
        unseen = ~self.table["run"].isin(runs).to_numpy()
        final = observed[last].mean(1)
        return {
            "end": float(np.nanmean(off[unseen & last])),
            "all": float(np.nanmean(off[unseen])),
            "regret": 1e3 * float(final[predicted[last].mean(1).argmin()] - final.min()),
        }


def chosen_among(size: str, repetitions: int, sizes: tuple[int, ...]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield, a case at a time, the scores of random and of planned runs side by side, a row a repetition."""
    sweep = Swept(size)
    names, pool, every = sweep.domains, list(sweep.pool), np.arange(len(sweep.pool))
    for n in sizes:
        rows = []
        for one in range(repetitions):
            random = np.random.default_rng([one, n, 11]).permutation(every)[:n].tolist()
            planned = [sweep.pool[mixture] for mixture in plan_pilot(names, n, pool=pool, seed=one).mixtures]
            rows.append({"random": sweep.score(random), "planned": sweep.score(planned)})
        yield f"{n}", pd.json_normalize(rows)
    rows = []
    for one in range(repetitions):
        order = np.random.default_rng([one, 12]).permutation(every).tolist()
        first, obs = order[:8], sweep.observed(order[:8])
        more = next_runs(obs, select_law(obs).fit, 4, tokens=sweep.tokens, pool=pool, seed=one)
        planned = [*first, *(sweep.pool[mixture] for mixture in more.mixtures)]
        rows.append({"random": sweep.score(order[:12]), "planned": sweep.score(planned)})
    yield "8 random + 4", pd.json_normalize(rows)


def print_pools(repetitions: int, files: list[str]) -> None:
    """Print what runs that are chosen among the mixtures of a sweep predict of its other mixtures."""
    columns = ("end, random %", "planned %", "ratio", "all checkpoints, ratio", "regret, random mnat", "planned mnat")
    print(f"| sweep | runs | {' | '.join(columns)} |")
    print("|---" * (2 + len(columns)) + "|")
    for size in files:
        for case, found in chosen_among(size, repetitions, (8, 12)):
            mean = found.mean()
            ratio = {kind: mean[f"planned.{kind}"] / mean[f"random.{kind}"] for kind in ("end", "all")}
            worse = found["planned.regret"] - found["random.regret"]
            # Of a ratio of means, by the delta method.
            apart = found["planned.end"] - ratio["end"] * found["random.end"]
            error = apart.std(ddof=1) / np.sqrt(len(found)) / mean["random.end"]
            cells = (
                size,
                case,
                f"{mean['random.end']:.3f}",
                f"{mean['planned.end']:.3f}",
                f"{ratio['end']:.2f} ± {error:.2f}",
                f"{ratio['all']:.2f}",
                f"{mean['random.regret']:.2f}",
                f"{mean['planned.regret']:.2f} ({worse.mean():+.2f} ± {worse.std(ddof=1) / np.sqrt(len(found)):.2f})",
            )
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("pool", "simulated"))
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--sizes", nargs="*", default=["310m", "122m"], help="of the real sweeps")
    parser.add_argument("--law", help="fit this law instead of what select_law chooses")
    parser.add_argument("--domains", type=int, nargs="*", default=DOMAINS, help="of simulated sweeps")
    parser.add_argument("--runs", type=int, nargs="*", default=RUNS, help="of simulated sweeps")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.only != "simulated":
        print_pools(given.repetitions, given.sizes)
    if given.only == "pool":
        return
    designs_of = ("informative", "space-filling", "random", "random near equal parts")
    print(f"| truth | domains | runs | noise | {' | '.join(designs_of)} | random − informative |")
    print("|---" * (5 + len(designs_of)) + "|")
    for found in pilots(given.repetitions, given.law, tuple(given.domains), tuple(given.runs)):
        means = " | ".join(f"{found[name].mean():.2f}" for name in designs_of)
        lead = found["random"] - found["informative"]
        error = lead.std(ddof=1) / np.sqrt(len(lead))
        print(f"| {found.index[0]} | {means} | {lead.mean():.2f} ± {error:.2f} |", flush=True)


if __name__ == "__main__":
    main()
