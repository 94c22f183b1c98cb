"""How much faster two workers of a Ray cluster count than one, and whether they count the same.

python tests/benchmarks/ray_entropy.py [--tokens 100000000] [--times 16] [--text 60] [--folder /tmp/bimix-tokens]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import ray
from bimix_integrations.engines.ray import RayEngine
from tokens import VOCABULARY, texts, tokens, trained

from bimix_tracking.entropy.corpora import find_blocks
from bimix_tracking.entropy.corpora.documents import Block, Reading
from bimix_tracking.entropy.domain_counts import EntropySettings
from bimix_tracking.entropy.measuring import Engine, Threads

REPEATS = 3
BAR = 1.6
SETTINGS = EntropySettings(vocabulary=VOCABULARY)
Blocks = Mapping[str, Sequence[Block]]


def corpus(folder: Path, count: int, times: int) -> Blocks:
    """Return the blocks of one domain: a file of real text's tokens, several times over."""
    tokens(folder, count)
    blocks = find_blocks(folder / f"tokens-{count}.npy", SETTINGS.reading)
    return {"text": blocks * times}


def lines(folder: Path, megabytes: int) -> tuple[Blocks, EntropySettings]:
    """Return the blocks of so much real text as JSON lines, and settings with a tokenizer for it."""
    path, tokenizer = folder / f"text-{megabytes}.jsonl", folder / "tokenizer.json"
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            for text in texts():
                file.write(json.dumps({"text": text}) + "\n")
                if file.tell() > megabytes * 10**6:
                    break
    if not tokenizer.exists():
        trained().save(str(tokenizer))
    settings = EntropySettings(tokenizer=str(tokenizer), reading=Reading(block_bytes=2 << 20))
    return {"text": find_blocks(path, settings.reading)}, settings


def timed(
    engine: Engine, blocks: Blocks, settings: EntropySettings = SETTINGS, repeats: int = REPEATS
) -> tuple[float, str]:
    """Return the median seconds, and a hash of the counts of all pairs."""
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        counts = engine(blocks, settings, _quiet)
        seconds.append(perf_counter() - start)
    return median(seconds), hashlib.sha256(counts["text"].entropy.to_bytes()).hexdigest()


def on_ray(workers: int, blocks: Blocks, settings: EntropySettings) -> tuple[float, str]:
    """Return the same of a cluster of so many workers, which has started."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        timed(RayEngine(), {"text": blocks["text"][: 4 * workers]}, settings, 1)  # workers start, and import
        found = timed(RayEngine(), blocks, settings)
        ray.shutdown()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000_000)
    parser.add_argument("--times", type=int, default=16, help="how often the text is counted")
    parser.add_argument("--text", type=int, default=60, help="MB of text that is tokenised too")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bimix-tokens")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    # One thread of Rust a process: else one worker would tokenise on both cores.
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "true"}
    blocks, settings = lines(options.folder, options.text)
    compare(
        f"{options.text} MB of real text, tokenised by a BPE of {VOCABULARY:,} ids",
        "MB",
        options.text,
        blocks,
        settings,
    )
    total = options.tokens * options.times
    what = f"{total:,} tokens that were tokenised beforehand ({options.tokens:,}, {options.times} times)"
    compare(what, "M tokens", total / 1e6, corpus(options.folder, options.tokens, options.times), SETTINGS)


def compare(what: str, unit: str, size: float, blocks: Blocks, settings: EntropySettings) -> None:
    """Print the table of one corpus."""
    print(f"\n{what}, {len(blocks['text'])} blocks, {os.cpu_count()} cores, medians of {REPEATS}:\n")
    print(f"| | workers | seconds | {unit}/s |\n|---|---|---|---|")
    took, hashes = {}, set()
    for workers in (1, 2):
        for name, (seconds, found) in (
            ("threads of one process", timed(Threads(workers), blocks, settings)),
            ("Ray", on_ray(workers, blocks, settings)),
        ):
            took[name, workers] = seconds
            hashes.add(found)
            print(f"| {name} | {workers} | {seconds:.2f} | {size / seconds:.1f} |", flush=True)
    ratio = took["Ray", 1] / took["Ray", 2]
    print(f"\nRay: two workers {ratio:.2f} × one (bar {BAR}); all four counted the same: {len(hashes) == 1}")


def _quiet(what: str, done: int, total: int) -> None:
    """Show nothing."""


if __name__ == "__main__":
    main()
