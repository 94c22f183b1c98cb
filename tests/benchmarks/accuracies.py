"""Simulated accuracies of known truth: which targets are called noise, and how often 90 % intervals hold.

python tests/benchmarks/accuracies.py [--only fitness|intervals] [--sweeps 20]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

from bimix_tracking import Mixture, Observations, bootstrap, recommend, select_law
from bimix_tracking.data.targets import Target
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.selection.fitness import fitness

Array = npt.NDArray[np.float64]
Surface = Callable[[Array], Array]
QUESTIONS, CHANCES = (250, 500, 1000, 2000), (0.0, 0.25, 0.5)
FORMS = ("one domain", "saturating", "two domains", "exponential")
"""What moves an accuracy's logit; only the last is a law's own form, and only before the logit."""
SWEEPS = ((12, 3, 1), (24, 3, 1), (12, 7, 1), (24, 7, 1), (48, 7, 1), (24, 7, 4), (24, 17, 1), (48, 17, 1))
"""Runs, domains and volumes of sweeps whose intervals are counted."""
RATIO = 2.0
"""The spread of a real target between mixtures, in sampling errors."""


def surface(rng: np.random.Generator, form: str, domains: int) -> Surface:
    """Return a function of mixtures, shape (n, domains), that moves an accuracy."""
    parts, one = rng.dirichlet(np.full(domains, 0.5)), int(rng.integers(domains))
    slopes = rng.normal(size=domains) / 2
    forms: dict[str, Surface] = {
        "one domain": lambda r: np.log(r[:, one] + 0.05),
        "saturating": lambda r: -np.exp(-2 * domains * (r @ parts)),
        "two domains": lambda r: np.sqrt(r[:, one] + 0.01) + 0.6 * np.sqrt(r[:, (one + 1) % domains] + 0.01),
        "exponential": lambda r: -np.exp(r @ slopes),
    }
    return forms[form]


def mixtures(rng: np.random.Generator, runs: int, domains: int) -> Array:
    """Return drawn mixtures, shape (runs, domains)."""
    return rng.dirichlet(np.full(domains, rng.choice([1.0, 3.0])), runs)


def mixed_sweep(rng: np.random.Generator, runs: int, domains: int) -> tuple[Observations, dict[str, str]]:
    """Return a sweep of real targets and noise, and of which kind each is."""
    shares, asked, chance = mixtures(rng, runs, domains), int(rng.choice(QUESTIONS)), float(rng.choice(CHANCES))
    columns = {f"d{i}": shares[:, i] for i in range(domains)}
    targets, kinds = [], {}
    for i in range(6):
        moved = surface(rng, FORMS[i % 4], domains)(shares)
        moved = (moved - moved.mean()) / moved.std()
        q = rng.uniform(0.2, 0.7)
        mean = chance + (1 - chance) * q
        spread = RATIO * np.sqrt(mean * (1 - mean) / asked) / ((1 - chance) * q * (1 - q))
        truth = chance + (1 - chance) * expit(logit(q) + spread * moved)
        columns[f"task {i}"] = rng.binomial(asked, truth) / asked
        targets.append(Target(f"task {i}", "accuracy", questions=asked, chance=chance))
        kinds[f"task {i}"] = "real accuracy"
        if i < 4:
            columns[f"judge {i}"] = RATIO * moved + rng.normal(size=runs)
            targets.append(Target(f"judge {i}", "score", higher_is_better=True))
            kinds[f"judge {i}"] = "real score"
    for i in range(4):
        columns[f"coin {i}"] = rng.binomial(asked, max(chance, 0.2) + 0.05 * i, runs) / asked
        targets.append(Target(f"coin {i}", "accuracy", questions=asked, chance=chance))
        kinds[f"coin {i}"] = "noise accuracy"
    for i in range(2):
        columns[f"die {i}"], columns[f"held {i}"] = rng.normal(size=runs), 2 * np.exp(0.01 * rng.normal(size=runs))
        targets += [Target(f"die {i}", "score", higher_is_better=True), Target(f"held {i}")]
        kinds |= {f"die {i}": "noise score", f"held {i}": "noise loss"}
    names = [f"d{i}" for i in range(domains)]
    table = pd.DataFrame(columns).assign(tokens=1e9, run=range(runs))
    obs = Observations.from_wide(table, proportions=names, losses=[], targets=targets, tokens="tokens", run="run")
    return obs, kinds


def called(sweeps: int, *, held_out: bool) -> None:
    """Print which part of each kind of target is called noise."""
    kinds = ("real accuracy", "noise accuracy", "real score", "noise score", "noise loss")
    print(f"Called noise, of {sweeps} sweeps a row; – where nothing is judged.\n")
    print(f"| runs | domains | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}", flush=True)
    for runs, domains in ((12, 3), (12, 7), (24, 7), (12, 17), (24, 17), (48, 17), (64, 7)):
        unfit: dict[str, int] = defaultdict(int)
        judged: dict[str, int] = defaultdict(int)
        total: dict[str, int] = defaultdict(int)
        for seed in range(sweeps):
            obs, of = mixed_sweep(np.random.default_rng([seed, runs, domains]), runs, domains)
            found = fitness(obs, select_law(obs).validation if held_out else None)
            for target, kind in of.items():
                unfit[kind] += not found[target].fit
                judged[kind] += found[target].judged or not found[target].fit
                total[kind] += 1
        cells = [f"{100 * unfit[kind] / total[kind]:.1f} %" if judged[kind] else "–" for kind in kinds]
        print(f"| {runs} | {domains} | {' | '.join(cells)} |", flush=True)


def sweep_of(
    rng: np.random.Generator, runs: int, domains: int, volumes: int
) -> tuple[Observations, Callable[[Array], dict[str, Array]]]:
    """Return a sweep judged by four accuracies, and their expected values at the last volume, by mixture."""
    shares, asked = mixtures(rng, runs, domains), int(rng.choice(QUESTIONS))
    chance = float(rng.choice(CHANCES))
    tokens = np.geomspace(2.5e8, 1e9, volumes) if volumes > 1 else np.array([1e9])
    rows = np.repeat(np.arange(runs), volumes)
    late = np.log(np.tile(tokens, runs) / 1e9)
    columns = {f"d{i}": shares[rows, i] for i in range(domains)}
    truths: dict[str, Surface] = {}
    targets = []
    for form in FORMS:
        moved, centre, spread = surface(rng, form, domains), logit(rng.uniform(0.2, 0.7)), rng.uniform(0.15, 0.5)
        drawn = moved(rng.dirichlet(np.full(domains, 2.0), 2000))
        mean, size = drawn.mean(), drawn.std()

        def logits(
            r: Array, moved: Surface = moved, at: float = centre, by: float = spread / size, mean: float = mean
        ) -> Array:
            return np.asarray(at + by * (moved(r) - mean))

        truths[form] = logits
        expected = chance + (1 - chance) * expit(logits(shares)[rows] + 0.3 * late)
        columns[form] = rng.binomial(asked, expected) / asked
        targets.append(Target(form, "accuracy", questions=asked, chance=chance))
    table = pd.DataFrame(columns).assign(tokens=np.tile(tokens, runs), run=rows)
    names = [f"d{i}" for i in range(domains)]
    obs = Observations.from_wide(table, proportions=names, losses=[], targets=targets, tokens="tokens", run="run")
    return obs, lambda r: {form: chance + (1 - chance) * expit(logits(r)) for form, logits in truths.items()}


def coverage(sweeps: int) -> None:
    """Print how often 90 % intervals hold the truth, of new mixtures' accuracies, of changes and of the gain."""
    print(f"90 % intervals that hold, of {sweeps} sweeps a row.\n")
    print("| runs | domains | volumes | value | change | gain |\n|---|---|---|---|---|---|", flush=True)
    for runs, domains, volumes in SWEEPS:
        held: dict[str, list[float]] = defaultdict(list)
        for seed in range(sweeps):
            rng = np.random.default_rng([7, seed, runs, domains, volumes])
            obs, truth = sweep_of(rng, runs, domains, volumes)
            fit = select_law(obs).fit
            drawn = bootstrap(obs, fit, replicates=100)
            new = mixtures(rng, 20, domains)
            reference = np.full((1, domains), 1 / domains)
            values, base = truth(new), truth(reference)
            low, high = drawn.interval(new, 1e9)
            even = Mixture.uniform(obs.domains)
            for one, at in enumerate(new[:5]):
                mixture = Mixture.normalized(dict(zip(obs.domains, at.tolist(), strict=True)))
                least, most = drawn.change(mixture, even, 1e9)
                for form in FORMS:
                    held["change"].append(least[form] <= values[form][one] - base[form][0] <= most[form])
            for form in FORMS:
                held["value"] += ((low[form] <= values[form]) & (values[form] <= high[form])).tolist()
            rec = recommend(fit, 1e9, replicates=drawn)
            assert rec.uncertainty is not None
            best = truth(rec.mixture.array(obs.domains)[None])
            weight = objective_weights(rec.weights, fit.links)
            gain = sum(
                weight[form] * (fit.link(form).loss(base[form][0]) - fit.link(form).loss(best[form][0]))
                for form in FORMS
            )
            held["gain"].append(bool(rec.uncertainty.gain[0] <= gain <= rec.uncertainty.gain[1]))
        cells = [f"{100 * float(np.mean(held[what])):.0f} %" for what in ("value", "change", "gain")]
        print(f"| {runs} | {domains} | {volumes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("fitness", "intervals"))
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--held-out", action="store_true", help="judge held-out ranks too: slow")
    asked_for = parser.parse_args()
    if asked_for.only != "intervals":
        called(asked_for.sweeps, held_out=asked_for.held_out)
    if asked_for.only != "fitness":
        coverage(asked_for.sweeps)
