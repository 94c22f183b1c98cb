"""How good the mixture is that planned runs lead to, against random runs: sweeps simulated from known laws.

python tests/benchmarks/designs.py [--repetitions 30]
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

from bimix_tracking import Observations, fit_law, plan_pilot, recommend
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

    def regret(self, shares: Array, noise: float, rng: np.random.Generator, law: str) -> float:
        """Return how much summed loss the recommendation from runs at shares has above the optimum, nats."""
        try:
            found = recommend(fit_law(self.observe(shares, noise, rng), law), TOKENS).mixture.array(self.names)
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


def pilots(repetitions: int, law: str | None, domains: tuple[int, ...] = DOMAINS) -> Iterator[pd.DataFrame]:
    """Yield, a (truth, domains, runs, noise) at a time, one row a repetition and one column a design."""
    for k in domains:
        for n in RUNS:
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
                                name: 1e3 * truth.regret(shares, noise, np.random.default_rng([one, n, 3]), law or kind)
                                for name, shares in given.items()
                            }
                        )
                    yield pd.DataFrame(rows, index=pd.Index([f"{kind} | {k} | {n} | {noise:.1%}"] * repetitions))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--law", default=None)
    parser.add_argument("--domains", type=int, nargs="*", default=DOMAINS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    designs_of = ("informative", "space-filling", "random", "random near equal parts")
    print(f"| truth | domains | runs | noise | {' | '.join(designs_of)} | random − informative |")
    print("|---" * (5 + len(designs_of)) + "|")
    for found in pilots(given.repetitions, given.law, tuple(given.domains)):
        means = " | ".join(f"{found[name].mean():.2f}" for name in designs_of)
        lead = found["random"] - found["informative"]
        error = lead.std(ddof=1) / np.sqrt(len(lead))
        print(f"| {found.index[0]} | {means} | {lead.mean():.2f} ± {error:.2f} |", flush=True)


if __name__ == "__main__":
    main()
