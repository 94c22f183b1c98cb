"""How fast entropies are counted, beside other ways; how far estimators are off on real text; one and two cores.

python tests/benchmarks/entropy.py [--tokens 100000000] [--folder /tmp/bimix-tokens]
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt
from tokens import VOCABULARY, tokens

from bimix_tracking.entropy.counter import Entropies, EntropyCounter
from bimix_tracking.entropy.estimators import ESTIMATORS
from bimix_tracking.entropy.sample_error import token_curves

LENGTH = 1024
BLOCK = 1 << 24
REPEATS = 5
BAR, BAR_TWO = 40e6, 1.8
Table = npt.NDArray[np.uint16]


def ours(table: Table, *, memory: int = 1 << 30) -> Entropies:
    """Count on one core."""
    counter = EntropyCounter(VOCABULARY, memory=memory)
    for first in range(0, len(table), BLOCK // LENGTH):
        counter.add(table[first : first + BLOCK // LENGTH])
    return counter.entropies()


def in_threads(table: Table, workers: int) -> Entropies:
    """Count as `measuring.Threads` does: a block a thread, added up."""
    total = EntropyCounter(VOCABULARY)

    def count(first: int) -> None:
        nonlocal total
        part = EntropyCounter(VOCABULARY)
        part.add(table[first : first + BLOCK // LENGTH])
        total += part

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(count, range(0, len(table), BLOCK // LENGTH)))
    total.unite(workers)
    return total.entropies()


def entropy_of(counts: npt.NDArray[np.int64]) -> float:
    """Return −Σ p log p."""
    share = counts / counts.sum()
    return -float((share * np.log(share)).sum())


def by_unique(table: Table) -> Entropies:
    """Count as one writes it first: `np.unique` of all pairs at once."""
    pairs = table[:, :-1].astype(np.int64) * VOCABULARY + table[:, 1:]
    distinct, counts = np.unique(pairs, return_counts=True)
    firsts = np.bincount(distinct // VOCABULARY, weights=counts).astype(np.int64)
    shannon, joint = entropy_of(np.unique(table, return_counts=True)[1]), entropy_of(counts)
    return Entropies(shannon, joint, joint - entropy_of(firsts[firsts > 0]))


def by_counter(table: Table) -> Entropies:
    """Count with a dictionary."""
    pairs: Counter[tuple[int, int]] = Counter()
    tokens: Counter[int] = Counter()
    for row in table.tolist():
        pairs.update(itertools.pairwise(row))
        tokens.update(row)
    firsts: Counter[int] = Counter()
    for (one, _), count in pairs.items():
        firsts[one] += count
    shannon, joint, first = (entropy_of(np.array(list(found.values()))) for found in (tokens, pairs, firsts))
    return Entropies(shannon, joint, joint - first)


def timed(run: Callable[[], Entropies], repeats: int = REPEATS) -> tuple[float, Entropies]:
    """Return the median seconds, and what was found."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        found = run()
        seconds.append(perf_counter() - start)
    return median(seconds), found


def speed(table: Table) -> None:
    """Print tokens a second."""
    in_threads(table[: len(table) // 8], 2)  # pages of the file and of the process are there from here on
    print(
        f"\nSE + JE + CE of {table.size:,} tokens, vocabulary {VOCABULARY:,}, rows of {LENGTH}, median of {REPEATS}:\n"
    )
    print("| | cores | seconds | M tokens/s | SE, JE, CE |\n|---|---|---|---|---|")
    small = table[: 4_000_000 // LENGTH]
    expected = by_counter(small)
    rows: list[tuple[str, int, Table, Callable[[], Entropies], int]] = [
        ("EntropyCounter", 1, table, lambda: ours(table), REPEATS),
        ("EntropyCounter, 32 MB of memory", 1, table, lambda: ours(table, memory=32 << 20), 1),
        ("EntropyCounter in threads", 1, table, lambda: in_threads(table, 1), REPEATS),
        ("EntropyCounter in threads", 2, table, lambda: in_threads(table, 2), REPEATS),
        (
            "np.unique of all pairs",
            1,
            table[: 32_000_000 // LENGTH],
            lambda: by_unique(table[: 32_000_000 // LENGTH]),
            1,
        ),
        ("Counter", 1, small, lambda: by_counter(small), 1),
    ]
    took = {}
    for name, cores, part, run, repeats in rows:
        seconds, found = timed(run, repeats)
        took[name, cores] = seconds
        shown = ", ".join(f"{value:.6f}" for value in found)
        print(f"| {name} | {cores} | {seconds:.2f} | {part.size / seconds / 1e6:.1f} | {shown} |")
    rate = table.size / took["EntropyCounter", 1]
    ratio = took["EntropyCounter in threads", 1] / took["EntropyCounter in threads", 2]
    same = np.allclose(ours(small), expected, atol=1e-12)
    print(f"\none core {rate / 1e6:.0f}M tokens/s (bar {BAR / 1e6:.0f}M), two cores {ratio:.2f} × one (bar {BAR_TWO}); "
          f"on {small.size:,} tokens the same as Counter to 1e-12: {same}")  # fmt: skip


def memory(folder: Path, count: int) -> None:
    """Print the peak memory of processes that count more and more with the same setting."""
    print("\nPeak memory of a process that counts with 128 MB, its imports (80 MB) and what it is sorting included:\n")
    print("| tokens | distinct pairs | spilled | peak, MB |\n|---|---|---|---|")
    for part in (count // 4, count // 2, count):
        command = [sys.executable, __file__, "--folder", str(folder), "--tokens", str(count), "--peak", str(part)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def peak(path: Path, count: int) -> None:
    """Print one row of that table; the file is read, not mapped, whose pages would count too."""
    with tempfile.TemporaryDirectory() as folder, path.open("rb") as file:
        counter = EntropyCounter(memory=128 << 20, folder=folder)
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        for first in range(0, count, BLOCK):
            part = np.fromfile(file, np.uint16, min(BLOCK, count - first))
            counter.add(part[: len(part) // LENGTH * LENGTH].reshape(-1, LENGTH))
        distinct = counter.spectra()[1].distinct
        spilled = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
    # Not `getrusage`: that is at least what the parent had when it started this process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1e3
    print(f"| {count:,} | {distinct:,} | {spilled / 1e6:.0f} MB | {most:.0f} |")


def estimators(table: Table) -> None:
    """Print how far each estimator is off, in samples of sequences, from the plug-in of 24 times the largest sample."""
    print("\nConditional entropy of random sequences, less that of the whole stretch of 24M tokens (plug-in), nats:\n")
    print(
        "| stretch | tokens of the sample | "
        + " | ".join(ESTIMATORS)
        + " | standard error |\n|"
        + "---|" * (len(ESTIMATORS) + 3)
    )
    rng = np.random.default_rng(0)
    rows = 24 * (1 << 20) // LENGTH
    for number in range(min(4, len(table) // rows)):
        stretch = table[number * rows : (number + 1) * rows]
        whole = ours(stretch).conditional
        for size in (1 << 16, 1 << 18, 1 << 20, 1 << 22):
            curves = token_curves(
                list(stretch[np.sort(rng.permutation(rows)[: size // LENGTH])][rng.permutation(size // LENGTH)])
            )
            off = [curves[name]["conditional"].value - whole for name in ESTIMATORS]
            error = curves["grassberger"]["conditional"].error
            print(
                f"| {number + 1} ({whole:.3f}) | {size:,} | "
                + " | ".join(f"{d:+.3f}" for d in off)
                + f" | {error:.3f} |"
            )


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "bimix-tokens", help="where tokens stay"
    )
    parser.add_argument("--peak", type=int, help="used by this script itself")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.peak:
        peak(options.folder / f"tokens-{options.tokens}.npy", options.peak)
        return
    flat = tokens(options.folder, options.tokens)
    table = flat[: len(flat) // LENGTH * LENGTH].reshape(-1, LENGTH)
    speed(table)
    memory(options.folder, options.tokens)
    estimators(table)


if __name__ == "__main__":
    main()
