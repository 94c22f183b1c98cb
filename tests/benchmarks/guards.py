"""How long optima within guards take, and how often guards hold on the truth, with a margin and without.

python tests/benchmarks/guards.py [--only speed|probability] [--sweeps 100]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import process_time
from typing import TypeVar

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking import LawFit, Mixture, Observations, bootstrap, select_law
from bimix_tracking.errors import ConstraintError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.recommendation.constraints import constrain
from bimix_tracking.recommendation.guarding import guarded, guards_of
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.solvers.guarded import GuardedMinimum
from bimix_tracking.recommendation.solvers.limits import Limit, Limits, Near
from bimix_tracking.recommendation.validity import within

Array = npt.NDArray[np.float64]
Found = TypeVar("Found")
TOKENS, SCALE = 1e8, 1e7
LAWS = ("bimix", "transfer", "additive", "exponential")
SPEED_DOMAINS, REPLICATES, TIMES = 22, 200, 5
DOMAINS, DRAWS = 5, 100
GUARD, PROBABILITY, NOISE, LAST = "all<=+0.5%", 0.9, 0.005, 2e10


# --- speed --------------------------------------------------------------------------------------------------------


def parameters(law: str, domains: tuple[str, ...], own: int, rng: np.random.Generator) -> dict[str, float]:
    """Return a law of one target, at sizes that real fits have."""
    beta, floor = rng.uniform(0.3, 0.8), rng.uniform(1, 3)
    others = {d: 0.0 if i == own else rng.uniform(0, 0.3) for i, d in enumerate(domains)}
    if law in {"bimix", "transfer"}:
        found = {"alpha": rng.uniform(0.03, 0.4), "beta": beta, "B": rng.uniform(0.3, 1) * SCALE**beta, "C": floor}
        return found | ({f"t[{d}]": v for d, v in others.items()} if law == "transfer" else {})
    if law == "additive":
        gains = {f"C[{d}]": 1.0 if i == own else others[d] for i, d in enumerate(domains)}
        rates = {f"gamma[{d}]": rng.uniform(0.4, 0.95) for d in domains}
        return {"E": floor, "beta": beta, "B": 0.5 * SCALE**beta} | gains | rates
    slopes = {f"t[{d}]": rng.uniform(-4, -1) if i == own else rng.uniform(-0.5, 0.5) for i, d in enumerate(domains)}
    return {"c": floor, **slopes, "beta": beta, "B": 0.3 * SCALE**beta}


def made(law: str, seed: int) -> LawFit:
    """Return a fit with a random law a domain."""
    rng, names = np.random.default_rng(seed), tuple(f"d{i:02}" for i in range(SPEED_DOMAINS))
    targets = {
        d: DomainFit(parameters(law, names, i, rng), Outcome.CONVERGED, 90, 12, 0.01, 0.9, (9, 9), (0.0, 1.0))
        for i, d in enumerate(names)
    }
    return LawFit(law, names, targets, (1e6, TOKENS), SCALE, 0.01, 1e-9, "hash", "made")


def timed(run: Callable[[], Found]) -> tuple[float, Found]:
    """Return the median CPU time of some calls, which nobody else lengthens, and what the last one found."""
    took = []
    for _ in range(TIMES):
        begun = process_time()
        found = run()
        took.append(process_time() - begun)
    return float(np.median(took)), found


def speed() -> None:
    """Print the table of times."""
    print(f"{SPEED_DOMAINS} domains, a guard of 0.5 % on each; medians of {TIMES}, in CPU time of one thread.\n")
    print(
        "| law | largest change | binding | one search, ms | `Problem.minimum`, ms | 200 replicates, s | KKT residual |"
    )
    print("|---|---|---|---|---|---|---|")
    for law in LAWS:
        fit = made(law, 0)
        rng = np.random.default_rng(1)
        reference = rng.dirichlet(np.full(SPEED_DOMAINS, 3.0))
        limits = Limits(tuple(Limit(name, lambda loss: 1.005 * loss) for name in fit.domains), reference)
        weights = {d: float(w) for d, w in zip(fit.domains, rng.uniform(0, 2, SPEED_DOMAINS), strict=True)}
        plain = Problem(fit, TOKENS, weights, constrain(fit.domains), limits=limits)
        at = np.stack([theta for theta in map(fit.theta, fit.targets) if theta is not None])
        scatter = rng.normal(0, 0.01, (REPLICATES, *at.shape)) * np.abs(at)
        for near in (None, Near(reference, 0.1), Near(reference, 0.03, "kl")):
            problem = replace(plain, near=near)
            one, _ = timed(partial(problem.within, np.zeros(1, np.intp)))
            whole, (found, _) = timed(partial(problem.minimum, []))
            every, drawn = timed(partial(problem.minima, {law: at + scatter}, found.shares[0]))
            said = "none" if near is None else f"{near.radius:g} ({near.change})"
            residual = max(float(found.kkt_residual[0]), float(drawn.kkt_residual.max()))
            binding = int((found.multipliers[0] > 1e-6).sum()) if isinstance(found, GuardedMinimum) else 0
            print(
                f"| {law} | {said} | {binding} | {1e3 * one:.0f} | {1e3 * whole:.0f} | {every:.2f} | {residual:.0e} |",
                flush=True,
            )


# --- probability --------------------------------------------------------------------------------------------------


def transferring(shares: Array, helps: Array, alpha: Array) -> Array:
    """Return (Σ_j t_ij r_j)^−α_i: the law `transfer`."""
    return np.asarray((shares @ helps.T) ** -alpha)


def crossed(shares: Array, helps: Array, alpha: Array) -> Array:
    """Return what no law has: half a power of the effective share, half an exponential, and a term r_i r_j."""
    effective = shares @ helps.T
    beside = shares * np.roll(shares, 1, axis=-1)
    return np.asarray(0.5 * effective**-alpha + 0.5 * np.exp(-2 * alpha * (effective - 0.3)) - 0.3 * alpha * beside)


TRUTHS = {"transfer": transferring, "crossed": crossed}


def sweep(law: str, runs: int, noise: float, rng: np.random.Generator) -> tuple[Observations, Callable[[Array], Array]]:
    """Return a sweep, and the expected losses of mixtures at its largest volume."""
    helps = np.eye(DOMAINS) + np.where(rng.random((DOMAINS, DOMAINS)) < 0.5, rng.uniform(0, 0.4, (DOMAINS, DOMAINS)), 0)
    helps[np.diag_indices(DOMAINS)] = 1.0
    alpha, floor = rng.uniform(0.05, 0.2, DOMAINS), rng.uniform(1.5, 3, DOMAINS)
    names = [f"d{i}" for i in range(DOMAINS)]
    shares = 0.95 * rng.dirichlet(np.full(DOMAINS, 2.0), runs) + 0.05 / DOMAINS
    volumes = np.geomspace(1e9, LAST, 6)

    def expected(at: Array, volume: float = LAST) -> Array:
        return np.asarray(TRUTHS[law](at, helps, alpha) * (floor + 0.5 * (volume / 5e9) ** -0.5))

    loss = np.stack([expected(shares, float(volume)) for volume in volumes], 1)
    loss *= np.exp(noise * rng.standard_normal((runs, 1, DOMAINS)) + noise / 2 * rng.standard_normal(loss.shape))
    run = np.repeat(np.arange(runs), len(volumes))
    table = pd.DataFrame(shares[run], columns=names).assign(run=run, tokens=np.tile(volumes, runs))
    table[[f"loss {d}" for d in names]] = loss.reshape(-1, DOMAINS)
    obs = Observations.from_wide(
        table, proportions={d: d for d in names}, losses={d: f"loss {d}" for d in names}, tokens="tokens", run="run"
    )
    return obs, expected


def probability(count: int) -> None:
    """Print how often guards hold together on the truth."""
    print(f"`{GUARD}` on {DOMAINS} losses against the mean of four runs' mixtures, weights drawn from 0 to 2, noise of")
    print(f"{100 * NOISE:g} % of each run and loss; {count} sweeps a row.\n")
    print(
        "| truth | fitted | runs | without margin: said, % | held, % | at 0.9: said, % | held, % | of the gain, % "
        "| refused |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for law, fitted in (("transfer", "transfer"), ("crossed", "transfer"), ("crossed", "auto")):
        for runs in (12, 24):
            rows, refused = [], 0
            for seed in range(count):
                row = held(law, fitted, runs, seed)
                rows += [row] if row else []
                refused += not row
            said, true, gain, said_with, true_with, gain_with = np.array(rows).mean(0)
            print(
                f"| {law} | {fitted} | {runs} | {100 * said:.0f} | {100 * true:.0f} | {100 * said_with:.0f} "
                f"| {100 * true_with:.0f} | {100 * gain_with / gain:.0f} | {refused} |",
                flush=True,
            )


def held(law: str, fitted: str, runs: int, seed: int) -> list[float]:
    """Return of one sweep, without a margin and with one: the probability said, whether all held, and the true gain."""
    rng = np.random.default_rng([seed, runs, len(law)])
    obs, expected = sweep(law, runs, NOISE, rng)
    # What is in use lies among what was tried: guards against a mixture far from it may have no answer.
    tried = obs.mixtures.to_numpy(float)[rng.choice(runs, 4, replace=False)].mean(0)
    reference = Mixture.normalized(dict(zip(obs.domains, tried.tolist(), strict=True)))
    weights = dict(zip(obs.domains, rng.uniform(0, 2, DOMAINS).tolist(), strict=True))
    fit = select_law(obs, None if fitted == "auto" else [fitted], seed=seed, weights=weights).fit
    drawn = bootstrap(obs, fit, replicates=DRAWS, seed=seed)
    problem = within(fit, LAST, weights, constrain(obs.domains), {}, [])
    guards, _ = guards_of(fit, [GUARD], None, weights)
    at, weight = expected(reference.array(obs.domains)), np.array(list(weights.values()))
    row: list[float] = []
    for asked in (None, PROBABILITY):
        try:
            found = guarded(problem, guards, reference, replicates=drawn, probability=asked)
        except ConstraintError:
            return []
        now = expected(found.found.shares[0])
        row += [float(found.together or 0.0), float((now <= 1.005 * at).all()), float(weight @ (at - now))]
    return row


def main() -> None:
    """Print what is asked for."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--only", choices=["speed", "probability"])
    asked.add_argument("--sweeps", type=int, default=100)
    given = asked.parse_args()
    if given.only != "probability":
        speed()
    if given.only != "speed":
        probability(given.sweeps)


if __name__ == "__main__":
    main()
