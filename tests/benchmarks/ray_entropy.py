"""How much faster two workers of a Ray cluster count than one, and whether they count the same.

python tests/benchmarks/ray_entropy.py [--tokens 100000000] [--times 16] [--folder /tmp/bimix-tokens]
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import ray
from bimix_integrations.engines.ray import RayEngine
from tokens import VOCABULARY, tokens

from bimix_tracking.corpora import find_blocks
from bimix_tracking.corpora.documents import Block
from bimix_tracking.counting import EntropySettings
from bimix_tracking.measuring import Engine, Threads

REPEATS = 3
BAR = 1.6
SETTINGS = EntropySettings(vocabulary=VOCABULARY)
Blocks = Mapping[str, Sequence[Block]]


def corpus(folder: Path, count: int, times: int) -> Blocks:
    """Return the blocks of one domain: a file of real text's tokens, several times over."""
    tokens(folder, count)
    blocks = find_blocks(folder / f"tokens-{count}.npy", SETTINGS.reading)
    return {"text": blocks * times}


def timed(engine: Engine, blocks: Blocks, repeats: int = REPEATS) -> tuple[float, str]:
    """Return the median seconds, and a hash of the counts of all pairs."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        counts = engine(blocks, SETTINGS, _quiet)
        seconds.append(perf_counter() - start)
    return median(seconds), hashlib.sha256(counts["text"].entropy.to_bytes()).hexdigest()


def on_ray(workers: int, blocks: Blocks) -> tuple[float, str]:
    """Return the same of a cluster of so many workers, which has started."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        timed(RayEngine(), {"text": blocks["text"][: 4 * workers]}, 1)  # workers start, and import
        found = timed(RayEngine(), blocks)
        ray.shutdown()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--times", type=int, default=16, help="how often the text is counted")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bimix-tokens")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    blocks = corpus(options.folder, options.tokens, options.times)
    total = options.tokens * options.times
    print(
        f"\n{total:,} tokens of real text ({options.tokens:,}, {options.times} times), vocabulary {VOCABULARY:,}, "
        f"{len(blocks['text'])} blocks, {os.cpu_count()} cores, medians of {REPEATS}:\n"
    )
    print("| | workers | seconds | M tokens/s |\n|---|---|---|---|")
    took, hashes = {}, set()
    for workers in (1, 2):
        for name, (seconds, found) in (
            ("threads of one process", timed(Threads(workers), blocks)),
            ("Ray", on_ray(workers, blocks)),
        ):
            took[name, workers] = seconds
            hashes.add(found)
            print(f"| {name} | {workers} | {seconds:.2f} | {total / seconds / 1e6:.1f} |", flush=True)
    ratio = took["Ray", 1] / took["Ray", 2]
    print(f"\nRay: two workers {ratio:.2f} × one (bar {BAR}); all four counted the same: {len(hashes) == 1}")


def _quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


if __name__ == "__main__":
    main()
