"""How long a fit with its bootstrap and the choice of the law take, how much memory, and how both grow with the sweep.

python tests/benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import curve_fit
from sweeps import observe, simulated, slimpajama

from bimix_tracking import Observations, fit_law, select_law
from bimix_tracking.fitting.resampling import bootstrap

Array = npt.NDArray[np.float64]

REPLICATES = 1000
REPEATS = 5


def fresh(obs: Observations) -> Observations:
    """Return the same observations with nothing computed from them yet."""
    return replace(obs)


def seconds(what: Callable[[Observations], object], obs: Observations, repeats: int = REPEATS) -> list[float]:
    """Return how long each repeat took, each on observations as if just read."""
    times = []
    for _ in range(repeats):
        again = fresh(obs)
        start = perf_counter()
        what(again)
        times.append(perf_counter() - start)
    return times


def bimix(x: Array, alpha: float, beta: float, B: float, C: float) -> Array:
    """Return the losses of the law at x = (own proportion, tokens)."""
    return np.asarray(x[0] ** -alpha * (B * x[1] ** -beta + C))


def of_domain(obs: Observations, target: str) -> tuple[Array, Array, npt.NDArray[np.intp]]:
    """Return x for `bimix`, the losses, and which run each belongs to."""
    rows = obs.losses[obs.losses["domain"] == target]
    tokens = rows["tokens"].to_numpy()
    own = obs.mixtures[target].reindex(rows["run"]).to_numpy()
    run = obs.mixtures.index.get_indexer(pd.Index(rows["run"])).astype(np.intp)
    return np.stack([own, tokens / np.exp(np.log(tokens).mean())]), rows["loss"].to_numpy(), run


def curve_fits(obs: Observations, start: str, domains: int = 11, repeats: int = 3) -> list[float]:
    """Return how long each of several refits by SciPy took: half the domains, each on runs drawn again."""
    rng = np.random.default_rng(0)
    times = []
    for target in obs.targets[::2][:domains]:
        x, loss, run = of_domain(obs, target)
        fit = partial(curve_fit, bimix, method="trf", bounds=([0.0] * 4, [5.0, 5.0, np.inf, np.inf]))
        p0 = {"ones": np.ones(4), "SciPy's own": None}.get(start)
        if start == "the fit to all runs":
            p0 = fit(x, loss, p0=np.ones(4))[0]
        for _ in range(repeats):
            drawn = rng.integers(0, len(obs.runs), len(obs.runs))
            places = np.concatenate([np.flatnonzero(run == r) for r in drawn])
            begin = perf_counter()
            fit(x[:, places], loss[places], p0=p0)
            times.append(perf_counter() - begin)
    return times


def fit_and_bootstrap() -> None:
    """Time the point fit with its bootstrap against as many refits by SciPy."""
    obs = simulated(22, 60, 20)
    options: dict[str, Any] = {"replicates": REPLICATES, "method": "linearised"}
    whole = float(np.median(seconds(lambda o: bootstrap(o, fit_law(o), **options), obs)))
    point = float(np.median(seconds(fit_law, obs)))
    count = len(obs.targets) * (REPLICATES + 1)
    print(f"fit_law and a linearised bootstrap(replicates={REPLICATES}), 22 domains × 60 runs × 20 checkpoints:")
    print(f"{whole:.3f} s, the median of {REPEATS} (fit_law alone {point:.3f} s).\n")
    print(f"| curve_fit starts from | one refit, ms | {count} refits, s | ours, s | ratio |")
    print("|---|---|---|---|---|")
    for start in ("ones", "SciPy's own", "the fit to all runs"):
        one = float(np.median(curve_fits(obs, start)))
        print(f"| {start} | {1e3 * one:.1f} | {one * count:.0f} | {whole:.3f} | {one * count / whole:.0f} |")


def standard_errors(replicates: int = 300) -> None:
    """Compare the standard errors of the linearised bootstrap with those of refits, of the same draws."""
    print(f"Standard errors, linearised / exact, {replicates} replicates of the same draws:\n")
    print("| sweep | parameters | lowest | median | highest | off by more than 5 % | linearised, s | exact, s |")
    print("|---|---|---|---|---|---|---|---|")
    for name, obs in (("simulated, 22 domains", simulated(22, 60, 20)), ("SlimPajama", observe(*slimpajama()))):
        fit = fit_law(obs)
        errors, times = [], []
        for method in ("linearised", "exact"):
            start = perf_counter()
            drawn = bootstrap(obs, fit, replicates=replicates, method=method)
            times.append(perf_counter() - start)
            errors.append(np.array([list(drawn.standard_errors(t).values()) for t in fit.targets]))
        ratio = errors[0] / errors[1]
        spread = " | ".join(f"{v:.3f}" for v in (ratio.min(), np.median(ratio), ratio.max()))
        beyond = int((np.abs(ratio - 1) > 0.05).sum())
        print(f"| {name} | {ratio.size} | {spread} | {beyond} | {times[0]:.3f} | {times[1]:.1f} |")


def select(obs: Observations) -> object:
    """Choose the law as the benchmark does."""
    return select_law(obs, folds=5)


def peak() -> float:
    """Return the most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes
    # ru_maxrss of a process that another one started begins at what that one holds; this doesn't.
    found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return float(found.split()[1]) * 1024 / 1e6


def selection_alone() -> None:
    """Print the memory before, the times, and the memory after; run in a process of its own."""
    obs = observe(*slimpajama())
    before = peak()
    times = seconds(select, obs)
    print(before, times[0], float(np.median(times)), peak())


def selection() -> None:
    """Time the choice of the law on the reference sweep, and its memory, in a process of its own."""
    child = subprocess.run([sys.executable, __file__, "--selection"], check=True, capture_output=True, text=True)
    before, first, median, most = map(float, child.stdout.split())
    print("select_law(folds=5) on SlimPajama, 7 domains × 60 runs × 10 or 11 checkpoints:\n")
    print("| first call, s | median of 5, s | memory before, MB | peak, MB |")
    print("|---|---|---|---|")
    print(f"| {first:.2f} | {median:.2f} | {before:.0f} | {most:.0f} |")


def growth() -> None:
    """Time the choice of the law on sweeps that grow in runs, in checkpoints and in domains."""
    print("select_law(folds=5) as the sweep grows from 7 domains × 60 runs × 11 checkpoints:\n")
    print("| domains | runs | checkpoints | losses, × | select_law, s | ratio | linear would be, s |")
    print("|---|---|---|---|---|---|---|")
    sizes = [(7, 60, 11), (7, 240, 11), (7, 960, 11), (7, 60, 44), (7, 60, 176), (14, 60, 11), (28, 60, 11)]
    least = float(np.median(seconds(select, simulated(*sizes[0]))))
    for size in sizes:
        times = int(np.prod(size) / np.prod(sizes[0]))
        took = least if times == 1 else seconds(select, simulated(*size), 1)[0]
        numbers = " | ".join(map(str, (*size, times)))
        print(f"| {numbers} | {took:.2f} | {took / least:.1f} | {least * times:.2f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--selection", action="store_true", help="print only the numbers of the choice of the law")
    if parser.parse_args().selection:
        selection_alone()
        return
    for part in (fit_and_bootstrap, standard_errors, selection, growth):
        part()
        print(flush=True)


if __name__ == "__main__":
    main()
