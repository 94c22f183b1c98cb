"""How fast a sweep comes back from MLflow, against one `get_metric_history` per run and metric on the same store.

    python tests/benchmarks/reading.py

300 runs × 10 domains × 50 evaluations = 150,000 points in SQLite, in PostgreSQL, and behind a server; every point is
compared. Then 1,000,000 points directly, with the peak memory of the process that reads them.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from mlflow.tracking import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[2]))

from bimix_integrations.trackers.mlflow import MlflowSource

from bimix_tracking import Observations
from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES, RunManifest
from tests.adapters.services import MlflowServer, Postgres

DOMAINS = 10
REPEATS = 5


def fill(
    uri: str, folder: Path, name: str, runs: int, steps: int, *, curves: bool = False, tokens: bool = False
) -> None:
    """Put a sweep into a store as the tracker would have; points by SQL, for time's sake."""
    client = MlflowClient(uri)
    experiment = client.create_experiment(name, artifact_location=(folder / name).as_uri())
    domains = [f"d{number}" for number in range(DOMAINS)]
    manifest = RunManifest(tuple(domains)).to_dict()
    tags = {"bimix.role": "train", "bimix.schema": "1", "bimix.domains": json.dumps({d: d for d in domains})}
    tags["bimix.mixture"] = json.dumps(dict.fromkeys(domains, 1 / DOMAINS))
    points: list[dict[str, Any]] = []
    latest: list[dict[str, Any]] = []
    for number in range(runs):
        run_id = client.create_run(experiment, run_name=f"run-{number}", tags=tags).info.run_id
        rows = []
        for step in range(1, steps + 1):
            row = {f"bimix_eval_loss/{d}": 2 + i / 7 + number / 1000 + 1 / step for i, d in enumerate(domains)}
            rows.append({metric_names.STEP: step, metric_names.TOKENS: 1000.0 * step, **row})
            row |= {metric_names.TOKENS: 1000.0 * step} if tokens else {}
            told = {"t": 1000 * step, "s": step, "r": run_id}
            points += [{"k": key, "v": value, **told} for key, value in row.items()]
        latest += points[-len(row) :]
        if curves:
            content = {"schema": 1, "manifest": manifest | {"mixture": json.loads(tags["bimix.mixture"])}, "rows": rows}
            client.log_text(run_id, json.dumps(content), CURVES)
        client.set_terminated(run_id)
    engine = sqlalchemy.create_engine(uri)
    columns = "(key, value, timestamp, step, is_nan, run_uuid) VALUES (:k, :v, :t, :s, false, :r)"
    with engine.begin() as database:
        for first in range(0, len(points), 50_000):
            database.execute(sqlalchemy.text(f"INSERT INTO metrics {columns}"), points[first : first + 50_000])
        database.execute(sqlalchemy.text(f"INSERT INTO latest_metrics {columns}"), latest)
    engine.dispose()


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, Any]:
    """Return the median of seconds and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def compare(label: str, uri: str, name: str) -> None:
    """Print one line of the table, if every point is the same."""
    client, source = MlflowClient(uri), MlflowSource(f"mlflow+{uri}#{name}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)

    def naive() -> dict[tuple[str, str], list[tuple[int, float]]]:
        return {
            (run.info.run_id, key): [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for run in found
            for key in run.data.metrics
        }

    apart, expected = timed(naive, 1)
    runs, listed = timed(lambda: source._runs(source._store.reader()).runs)
    whole, records = timed(source.records)
    read: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for record in records:
        for row in record.rows:
            for key, value in row.items():
                if key.startswith(metric_names.EVAL_LOSS):
                    read.setdefault((record.run_id, key), []).append((int(row[metric_names.STEP]), value))
    assert read == {point: sorted(values) for point, values in expected.items()}, "not every point is the same"
    assert len(listed) == len(records)
    ours, points = whole - runs, sum(map(len, read.values()))
    line = f"| {label} | {points:,} | {apart:.2f} | {ours:.3f} | {apart / ours:.0f} "
    print(line + f"| {runs:.3f} | {(apart + runs) / whole:.0f} |", flush=True)


def read_million(uri: str) -> None:
    """Print seconds and peak memory of reading a sweep and pooling it; in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    records = MlflowSource(uri).records()
    read = time.perf_counter() - start
    obs = Observations.from_records(records, source=uri)
    pooled = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{len(obs.losses):,} points: {read:.1f} s, pooled {pooled:.1f} s; peak {peak >> 10} MiB, {before >> 10} before"
    )


def main() -> None:
    """Print the tables."""
    folder = Path(tempfile.mkdtemp())
    sqlite, postgres = f"sqlite:///{folder}/mlflow.db", Postgres()
    server = None
    try:
        print("| store | points | one at a time, s | ours, s | ratio | finding the runs, s | ratio with it |")
        print("|---|---|---|---|---|---|---|")
        for uri in (sqlite, postgres.uri):
            fill(uri, folder, f"plain-{len(uri)}", 300, 50)
        compare("SQLite", sqlite, f"plain-{len(sqlite)}")
        compare("PostgreSQL", postgres.uri, f"plain-{len(postgres.uri)}")
        fill(sqlite, folder, "curves", 300, 50, curves=True)
        server = MlflowServer(folder, sqlite)
        compare("server, bulk endpoint", server.address, f"plain-{len(sqlite)}")
        compare("server, artifacts", server.address, "curves")
        fill(sqlite, folder, "million", 300, 334, tokens=True)
        fill(postgres.uri, folder, "million-pg", 300, 334, tokens=True)
        for uri in (f"mlflow+{sqlite}#million", f"mlflow+{postgres.uri}#million-pg"):
            subprocess.run([sys.executable, __file__, uri], check=True)  # ourselves
    finally:
        postgres.remove()
        if server is not None:
            server.stop()


if __name__ == "__main__":
    read_million(sys.argv[1]) if len(sys.argv) > 1 else main()
