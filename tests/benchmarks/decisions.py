"""How fast, how sure and how good the recommended mixtures are, on sweeps whose truth is known.

python tests/benchmarks/decisions.py [--only speed|coverage|regret] [--sweeps 40]
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, fit_law, recommend, select_law
from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.registry import BUILT_IN
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.solvers.sqp import onto_simplex

Array = npt.NDArray[np.float64]
DOMAINS, RUNS, CHECKPOINTS = (3, 7, 22), (8, 16, 32), 6
OF_RUN, OF_LOSS = 0.005, 0.003
"""Standard deviations of log loss: of each run and target, which all its checkpoints share, and of each loss."""
FIRST, LAST, SCALE = 1e9, 2e10, 5e9
SAMPLES, TOP = 20_000, 128
TREES = {
    "objective": "regression",
    "learning_rate": 0.1,
    "min_data_in_leaf": 2,
    "min_data_in_bin": 1,
    "seed": 42,
    "verbosity": -1,
    "num_threads": 1,
}
ROUNDS = 100
REGRET_SWEEPS = {3: 15, 7: 15, 22: 8}
FEW_LAWS = ("bimix", "transfer", "ensemble")
"""For 22 domains, where laws with two parameters a domain take minutes."""


def truth(law: str, domains: int, rng: np.random.Generator) -> LawFit:
    """Return a BiMix or transfer law with random parameters, as a fit without an error."""
    names = tuple(f"domain {i}" for i in range(domains))
    targets = {}
    for name in names:
        beta = rng.uniform(0.3, 0.8)
        parameters = {
            "alpha": rng.uniform(0.03, 0.15),
            "beta": beta,
            "B": rng.uniform(0.3, 1) * SCALE**beta,
            "C": rng.uniform(1.5, 3),
        }
        if law == "transfer":
            # Half of the others teach a domain something.
            helps = rng.uniform(0, 0.4, domains) * (rng.random(domains) < 0.5)
            parameters |= {f"t[{d}]": float(h) * (d != name) for d, h in zip(names, helps, strict=True)}
        targets[name] = DomainFit(parameters, Outcome.CONVERGED, 99, 9, 0.0, 1.0, (9, 9), (0.0, 1.0))
    return LawFit(law, names, targets, (FIRST, LAST), SCALE, 0.01, 1e-9, "", "the truth")


def sweep(law: LawFit, runs: int, rng: np.random.Generator) -> Observations:
    """Return the losses of random mixtures by a law, with noise of each run and of each loss."""
    names, count = law.domains, len(law.domains)
    shares = np.maximum(rng.dirichlet(np.full(count, 3.0), runs), 2e-3)
    shares /= shares.sum(1, keepdims=True)
    run, tokens = np.repeat(np.arange(runs), CHECKPOINTS), np.tile(np.geomspace(FIRST, LAST, CHECKPOINTS), runs)
    off = OF_RUN * rng.standard_normal((runs, count))[run] + OF_LOSS * rng.standard_normal((len(run), count))
    losses = law.predict(shares[run], tokens).to_numpy(float) * np.exp(off)
    table = pd.DataFrame(shares[run], columns=[f"p {n}" for n in names])
    table[[f"l {n}" for n in names]] = losses
    table = table.assign(run=run, tokens=tokens)
    return Observations.from_wide(
        table, proportions={n: f"p {n}" for n in names}, losses={n: f"l {n}" for n in names}, tokens="tokens", run="run"
    )


def total(law: LawFit, shares: Array) -> Array:
    """Return the sum of a law's losses at the largest volume, one number a mixture."""
    return np.asarray(law.predict(np.atleast_2d(shares), LAST).to_numpy(float).sum(1))


def median_of(work: Callable[[], object], times: int = 5) -> float:
    """Return the median of the seconds that something takes."""
    found = []
    for _ in range(times):
        start = perf_counter()
        work()
        found.append(perf_counter() - start)
    return float(np.median(found))


# --- speed --------------------------------------------------------------------------------------------------------


def speed() -> None:
    """Print what an optimum of 1,000 domains and those of 1,000 replicates take."""
    rng = np.random.default_rng(0)
    wide = truth("bimix", 1000, rng)
    available = {
        d: LAST * float(share) for d, share in zip(wide.domains, rng.uniform(0.0002, 0.002, 1000), strict=True)
    }
    box = constrain(wide.domains, tokens=LAST, available_tokens=available)
    problem = Problem(wide, LAST, dict.fromkeys(wide.domains, 1.0), box)
    capped = int((problem.minimum([])[0].shares[0] >= box.upper).sum())
    print(f"1,000 domains, each with a cap, {capped} of them at it; 1,000 replicates of 22 domains. Medians of 5.\n")
    print("| what | seconds |")
    print("|---|---|")
    print(f"| the optimum of BiMix (`Problem.minimum`), 1,000 domains | {median_of(lambda: problem.minimum([])):.4f} |")
    whole = median_of(lambda: recommend(wide, LAST, available_tokens=available))
    print(f"| the whole `recommend` of it | {whole:.4f} |")
    obs = sweep(truth("bimix", 22, rng), 60, rng)
    for law in ("bimix", "ensemble"):
        fit = fit_law(obs, law)
        theta = {}
        for name, member in (fit.members or {law: fit}).items():
            known = [at for at in map(member.theta, member.targets) if at is not None]
            theta[name] = np.stack(known) * (1 + 0.01 * rng.standard_normal((1000, len(known), 1)))
        tried = {d: f.shares for d, f in fit.targets.items()}
        bounded = Problem(fit, LAST, dict.fromkeys(fit.targets, 1.0), constrain(fit.domains, bounds=tried))
        start = bounded.minimum([])[0].shares[0]
        reached = bounded.minima(theta, start).kkt_residual
        took = median_of(lambda b=bounded, t=theta, s=start: b.minima(t, s), 3)  # type: ignore[misc]  # defaults
        worst = f"{100 * (reached > 1e-6).mean():.1f} % not within 1e-6 of their conditions"
        print(f"| 1,000 replicates re-optimised (`Problem.minima`), {law}, 22 domains; {worst} | {took:.3f} |")


# --- coverage -----------------------------------------------------------------------------------------------------


def cover(domains: int, runs: int, seed: int) -> dict[str, float]:
    """Return whether one sweep's intervals hold the truth, and how sure it said it was."""
    rng = np.random.default_rng([seed, domains, runs])
    law = truth("bimix", domains, rng)
    obs = sweep(law, runs, rng)
    fit = fit_law(obs, "bimix")
    best = recommend(law, LAST).mixture.array(law.domains)
    # A reference as near to the optimum as is hard to tell, or clearly off it.
    near = best * np.exp(np.exp(rng.uniform(np.log(0.05), np.log(0.6))) * rng.standard_normal(domains))
    reference = Mixture.normalized(dict(zip(law.domains, near.tolist(), strict=True)))
    draws = bootstrap(obs, fit, replicates=200, seed=seed, method="few-steps")
    rec = recommend(fit, LAST, reference=reference, replicates=draws)
    if rec.uncertainty is None or rec.interval is None:
        raise RecommendationError("too few replicates")
    low, high = rec.interval["low"].to_numpy(float), rec.interval["high"].to_numpy(float)
    # The optimum is sought within the proportions tried, and so is what its interval should hold.
    best = recommend(law, LAST, bounds={d: fit.tried(d) for d in law.domains}).mixture.array(law.domains)
    ours, theirs = total(law, np.stack([rec.mixture.array(law.domains), reference.array(law.domains)]))
    gain = float(theirs - ours)
    return {
        "share": float(((low <= best) & (best <= high)).mean()),
        "below": float((best < low).mean()),
        "above": float((best > high).mean()),
        "width": float(((high - low) / best).mean()),
        "gain": float(rec.uncertainty.gain[0] <= gain <= rec.uncertainty.gain[1]),
        "probability": rec.uncertainty.probability,
        "better": float(gain > 0),
    }


def coverage(sweeps: int) -> None:
    """Print how often intervals hold the truth, and how often a recommendation is as good as it says."""
    print(f"Nominal 90 %; {sweeps} sweeps a cell, ± one standard error over sweeps.\n")
    print(
        "| domains | runs | proportions in their interval, % | missed below, above, % | width, of the share "
        "| gain in its interval, % | mean probability of being better | truly better |"
    )
    print("|---|---|---|---|---|---|---|---|")
    every, refused = [], 0
    for domains in DOMAINS:
        for runs in RUNS:
            rows = []
            for seed in range(sweeps):
                try:
                    rows.append(cover(domains, runs, seed))
                except RecommendationError:
                    refused += 1
            found = pd.DataFrame(rows)
            every.append(found)
            mean, error = found.mean(), found.std() / len(found) ** 0.5
            print(
                f"| {domains} | {runs} | {100 * mean['share']:.1f} ± {100 * error['share']:.1f} "
                f"| {100 * mean['below']:.1f}, {100 * mean['above']:.1f} | {mean['width']:.2f} "
                f"| {100 * mean['gain']:.1f} ± {100 * error['gain']:.1f} "
                f"| {mean['probability']:.2f} | {mean['better']:.2f} |",
                flush=True,
            )
    told = pd.concat(every, ignore_index=True)
    print(f"\n{refused} sweeps gave no recommendation.\n")
    print("| probability said | recommendations | mean said | truly better |")
    print("|---|---|---|---|")
    for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 0.99), (0.99, 1)):
        part = told[(told["probability"] > low) & (told["probability"] <= high)]
        if len(part):
            said = f"{part['probability'].mean():.2f} | {part['better'].mean():.2f}"
            print(f"| {low} to {high} | {len(part)} | {said} |")


# --- regret -------------------------------------------------------------------------------------------------------


def trees(obs: Observations, lower: Array, upper: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the best of many random mixtures by boosted trees, and the mean of the best ones: RegMix's procedure."""
    last = obs.losses[obs.losses["tokens"] == obs.losses["tokens"].max()]
    losses = last.pivot_table(index="run", columns="domain", values="loss")
    shares = obs.mixtures.loc[losses.index, list(obs.domains)].to_numpy(float)
    asked = onto_simplex(rng.dirichlet(np.full(shares.shape[1], 3.0), SAMPLES), lower, upper)
    said = np.zeros(SAMPLES)
    for target in obs.domains:
        said += np.asarray(
            lightgbm.train(TREES, lightgbm.Dataset(shares, losses[target].to_numpy(float)), ROUNDS).predict(asked)
        )
    order = np.argsort(said, kind="stable")[:TOP]
    return asked[order[0]], asked[order].mean(0)


def regrets(law: str, domains: int, runs: int, seed: int) -> dict[str, float | str]:
    """Return by how much the mixtures that one sweep leads to are worse than the best one in the same box."""
    rng = np.random.default_rng([seed, domains, runs, len(law)])
    true = truth(law, domains, rng)
    obs = sweep(true, runs, rng)
    shares = obs.mixtures[list(obs.domains)].to_numpy(float)
    lower, upper = shares.min(0), shares.max(0)
    box = {d: (float(a), float(b)) for d, a, b in zip(obs.domains, lower, upper, strict=True)}
    start = perf_counter()
    laws: Sequence[str] = FEW_LAWS if domains > 7 else (*BUILT_IN, "ensemble")
    chosen = select_law(obs, laws, seed=seed).fit
    ours = recommend(chosen, LAST, bounds=box).mixture.array(obs.domains)
    took = perf_counter() - start
    start = perf_counter()
    one, several = trees(obs, lower, upper, rng)
    theirs = perf_counter() - start
    best = recommend(true, LAST, bounds=box).mixture.array(obs.domains)
    losses = total(
        true, np.stack([best, ours, one, several, onto_simplex(np.full(domains, 1 / domains), lower, upper)])
    )
    names = ("ours", "best", "mean", "even")
    by: Mapping[str, float] = dict(zip(names, (losses[1:] - losses[0]).tolist(), strict=True))
    return {**by, "law": chosen.law, "seconds": took, "seconds of trees": theirs}


def regret(sweeps: Mapping[int, int]) -> None:
    """Print the regrets of both ways."""
    print(
        "| truth | domains | runs | sweeps | ours | RegMix, best | RegMix, mean of 128 | equal parts | chosen "
        "| s, ours | s, RegMix |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for law in ("bimix", "transfer"):
        for domains in DOMAINS:
            for runs in RUNS:
                found = pd.DataFrame([regrets(law, domains, runs, seed) for seed in range(sweeps[domains])])
                numbers = found[["ours", "best", "mean", "even"]]
                mean, error = numbers.mean(), numbers.std() / len(found) ** 0.5
                said = " | ".join(f"{mean[n]:.4f} ± {error[n]:.4f}" for n in ("ours", "best", "mean", "even"))
                took = Counter(found["law"]).most_common()
                print(
                    f"| {law} | {domains} | {runs} | {len(found)} | {said} | {', '.join(f'{n} {c}×' for n, c in took)} "
                    f"| {found['seconds'].median():.2f} | {found['seconds of trees'].median():.2f} |",
                    flush=True,
                )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["speed", "coverage", "regret"])
    parser.add_argument("--sweeps", type=int, default=40, help="a cell, of coverage")
    asked = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "speed": speed,
        "coverage": lambda: coverage(asked.sweeps),
        "regret": lambda: regret(REGRET_SWEEPS),
    }
    for name, part in parts.items():
        if asked.only in {None, name}:
            print(f"\n{name}\n")
            part()


if __name__ == "__main__":
    main()
