"""How long the command line takes to start: medians of twenty processes each, in turn.

    python tests/benchmarks/startup.py

The bar: `bimix --help` takes no longer than three times `python -c pass` and the import of NumPy together.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

BIMIX = str(Path(sys.executable).with_name("bimix"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
    "bimix --help": [BIMIX, "--help"],
    "bimix analyze --help": [BIMIX, "analyze", "--help"],
    "python -c 'import bimix_tracking'": [sys.executable, "-c", "import bimix_tracking"],
}


def seconds(command: list[str]) -> float:
    """Return how long a process took."""
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Print a row of a table for each command."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(20):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    median = {name: statistics.median(each) for name, each in taken.items()}
    for name, each in median.items():
        print(f"| `{name}` | {1000 * each:.0f} ms |")
    bar = 3 * median["python -c 'import numpy'"]  # that process passes too
    print(f"bimix --help: {median['bimix --help'] / bar:.2f} of the bar, {1000 * bar:.0f} ms")


if __name__ == "__main__":
    main()
