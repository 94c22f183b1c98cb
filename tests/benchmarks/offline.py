"""How fast W&B's offline files are read, beside the straightforward way, in one process; every value is compared.

python tests/benchmarks/offline.py [--rows 20000]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter

from bimix_integrations.trackers.wandb.offline.history_record import pb
from bimix_integrations.trackers.wandb.offline.run_file import read_file
from bimix_integrations.trackers.wandb.offline.source import WandbOfflineSource
from bimix_integrations.trackers.wandb.offline.transaction_log import TransactionLog
from bimix_integrations.trackers.wandb.rows import is_ours, own_rows

Rows = Sequence[Mapping[str, float]]
REPEATS = 3
BAR = 30_000
WRITER = """
import random, sys, wandb
rows, metrics, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
draw = random.Random(0)
names = [f"bimix_eval_loss/domain_{i}" for i in range(metrics - 2)]
domains = [name.partition("/")[2] for name in names]
config = {"bimix": {"schema": 1, "domains": domains, "mixture": {name: 1 / len(domains) for name in domains}}}
settings = wandb.Settings(console="off", x_disable_stats=True)
with wandb.init(mode="offline", dir=folder, project="bench", config=config, settings=settings) as run:
    for step in range(rows):
        run.log({"bimix/step": step, "bimix/tokens": step * 524288, **{name: draw.random() * 9 for name in names}})
"""


def plainly(path: Path) -> list[dict[str, float]]:
    """Return the history as protobuf and JSON give it: every record parsed, every value decoded."""
    rows = []
    for record in map(pb.Record.FromString, TransactionLog(path)):
        if record.WhichOneof("record_type") == "history":
            items = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            rows.append({name: float(value) for name, value in items.items() if name.startswith("bimix")})
    return rows


def best(read: Callable[[], Rows]) -> tuple[Rows, float]:
    """Return what is read, and the seconds that the fastest repeat took."""
    fastest = float("inf")
    rows: Rows = ()
    for _ in range(REPEATS):
        start = perf_counter()
        rows = read()
        fastest = min(fastest, perf_counter() - start)
    return rows, fastest


def table_row(count: int, metrics: int) -> str:
    """Write an offline run of so many rows and metrics with the SDK, read it both ways, and say how long that took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", WRITER, str(count), str(metrics), folder]
        subprocess.run(command, check=True, env=os.environ | {"WANDB_SILENT": "true"})
        (path,) = Path(folder).glob("wandb/offline-*/run-*.wandb")
        _, took = best(lambda: WandbOfflineSource(f"wandb-offline:{folder}").records()[0].rows)
        theirs, plain = best(lambda: plainly(path))
        ours, _ = own_rows(read_file(path, is_ours).rows)  # of the source's record, many rows are thinned for the fit
        if ours != theirs or len(ours) != count:
            sys.exit("the two ways differ")
        size = path.stat().st_size / 1e6
    figures = (metrics, f"{size:.1f}", f"{count / took:,.0f}", f"{count * metrics / took:,.0f}")
    compared = (f"{count / plain:,.0f}", f"{plain / took:.1f}", f"{count * metrics:,}, all equal")
    return f"| {' | '.join(map(str, (*figures, *compared)))} |"


def main() -> None:
    """Print a row for each width of the history."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    count = parser.parse_args().rows
    print(f"{count:,} rows of history, best of {REPEATS}; the bar is {BAR:,} rows/s\n")
    columns = ("metrics a row", "file, MB", "as a source, rows/s", "values/s", "plainly, rows/s", "ratio", "compared")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for metrics in (5, 25):
        print(table_row(count, metrics))
    print(f"\nlargest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
