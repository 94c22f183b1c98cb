"""How long a whole analysis takes, from a sweep in memory to its page, and what blocks save in a step of a fit.

python tests/benchmarks/engine.py [--only analyses|steps]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
from sweeps import observe, regmix, simulated, slimpajama

from bimix_tracking import Observations, analyze
from bimix_tracking.fitting.engine.grid import grid_of
from bimix_tracking.fitting.engine.least_squares import normal
from bimix_tracking.fitting.engine.problem import FitProblem
from bimix_tracking.fitting.options import FitOptions
from bimix_tracking.laws.protocol import Blocks
from bimix_tracking.laws.registry import BUILT_IN, law

Array = npt.NDArray[np.float64]
REPLICATES = 200


def regmix_runs(count: int) -> Observations:
    """Return some of RegMix's runs: 17 domains, many at a proportion of 0, and 13 losses at one volume."""
    table, proportions, targets = regmix()
    return Observations.from_wide(
        table.iloc[:count], proportions=proportions, losses=targets, tokens="tokens", run="index"
    )


SWEEPS: dict[str, tuple[Callable[[], Observations], float]] = {
    "simulated, 39 × 240 × 10": (lambda: simulated(39, 240, 10), 2e10),
    "simulated, 20 × 120 × 10": (lambda: simulated(20, 120, 10), 2e10),
    "RegMix, 17 × 40 × 1": (lambda: regmix_runs(40), 1e9),
    "SlimPajama, 7 × 60 × 11": (lambda: observe(*slimpajama()), 2e10),
}
"""Domains × runs × checkpoints."""


def one(name: str, chosen: str) -> None:
    """Analyse a sweep in this process, which does nothing else, and print seconds, CPU seconds and megabytes."""
    make, tokens = SWEEPS[name]
    obs = make()
    with tempfile.TemporaryDirectory() as folder:
        begun, cpu = perf_counter(), os.times()
        found = analyze(obs, tokens, law=chosen, replicates=REPLICATES, out=folder)
        took, used = perf_counter() - begun, os.times()
        size = (Path(folder) / "report.html").stat().st_size / 1e6
    spent = used.user + used.system - cpu.user - cpu.system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found.fit.law} | {took:.1f} | {spent:.1f} | {peak:.0f} | {size:.1f}")


def analyses() -> None:
    """Print the table of whole analyses, each in a process of its own."""
    print(f"analyze(obs, tokens, replicates={REPLICATES}, out=folder): fits, checks, replicates, files and page.\n")
    print("| domains × runs × checkpoints | asked | law | seconds | CPU seconds | peak, MB | page, MB |")
    print("|---|---|---|---|---|---|---|")
    for name in SWEEPS:
        for chosen in ("auto", "ensemble"):
            command = [sys.executable, __file__, "--one", name, chosen]
            row = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(f"| {name} | {chosen} | {row} |", flush=True)


def by_points(found: Blocks, weight: Array) -> tuple[Array, Array]:
    """Return what `normal` does, from the Jacobian multiplied out."""
    residual = found.log_loss.reshape(len(weight), -1)
    rows, w = found.jacobian().reshape(*residual.shape, -1), weight.reshape(residual.shape)
    gradient = np.matmul((w * residual)[:, None], rows)[:, 0]
    return np.asarray(gradient), np.asarray(np.matmul(np.swapaxes(rows * w[..., None], 1, 2), rows))


def steps() -> None:
    """Print what the normal equations of a problem cost by blocks and by a Jacobian at every point, in one run."""
    print("JᵀWe and JᵀWJ of all targets, milliseconds a target; medians of 9, the two in turn.\n")
    print("| domains × runs × checkpoints | law | by points | by blocks | ratio | largest relative difference of H |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for size in ((20, 120, 10), (39, 240, 10)):
        obs = simulated(*size)
        for name in BUILT_IN:
            problem = FitProblem(law(name), grid_of(obs), FitOptions(warmup=0.0))
            which = np.arange(4)  # a batch's worth
            starts = law(name).starts(problem.grid.own, problem.inputs, problem.grid.log_loss, problem.grid.weight)
            blocks = law(name).blocks(starts[which, 0], problem.grid.own[which], problem.inputs)
            weight = rng.uniform(0.5, 1.5, blocks.log_loss.shape)
            times: dict[str, list[float]] = {"points": [], "blocks": []}
            for _ in range(9):
                for label, work in (("points", by_points), ("blocks", normal)):
                    begun = perf_counter()
                    found = work(blocks, weight)
                    times[label].append(perf_counter() - begun)
            whole, quick = (1e3 * float(np.median(times[n])) / len(which) for n in ("points", "blocks"))
            exact = by_points(blocks, weight)[1]
            off = float(np.abs(found[1] - exact).max() / np.abs(exact).max())
            shape = " × ".join(map(str, size))
            print(f"| {shape} | {name} | {whole:.2f} | {quick:.3f} | {whole / quick:.0f} | {off:.0e} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["analyses", "steps"])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(*asked.one)
        return
    for name, part in {"steps": steps, "analyses": analyses}.items():
        if asked.only in {None, name}:
            print(f"\n{name}\n")
            part()


if __name__ == "__main__":
    main()
