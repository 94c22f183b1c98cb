"""How long a training thread is inside a log call: a server that is well, one that is dead, one that answers after 5 s.

    python tests/benchmarks/log_call.py

Rows of 10, 100 and 1,000 domains; the median and the 99th percentile of 200 calls of `recorder.log_train`, with the
journal's fsync and without, and the same for MLflow's own `log_batch` at the healthy server.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[2]))

from bimix_tracking import DomainLossRecorder, open_tracker
from tests.adapters.services import MlflowServer, free_port

CALLS = 200
_fsync = os.fsync
_waited = 0.0


def counted_fsync(file: Any) -> None:
    """Wait for the disk, and note for how long."""
    global _waited  # noqa: PLW0603  # os.fsync has nowhere else to put it
    start = time.perf_counter()
    _fsync(file)
    _waited += time.perf_counter() - start


def slow_proxy(address: str, seconds: float) -> ThreadingHTTPServer:
    """Return a server that hands requests to another and answers after so many seconds."""

    class Slow(BaseHTTPRequestHandler):
        def forward(self) -> None:
            time.sleep(seconds)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            request = urllib.request.Request(address + self.path, body, method=self.command)  # loopback
            request.add_header("Content-Type", self.headers.get("Content-Type") or "application/json")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # loopback
                    code, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                code, content = error.code, error.read()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = forward  # noqa: N815  # the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ours(uri: str, domains: int) -> tuple[list[float], list[float]]:
    """Return seconds of each call, with and without its fsync."""
    names = [f"domain_{number}" for number in range(domains)]
    recorder = DomainLossRecorder(names, dict.fromkeys(names, 1 / domains), open_tracker(uri))
    recorder.start()
    ids, losses = np.arange(domains), np.full(domains, 3.0)
    with_fsync, without = [], []
    for step in range(1, CALLS + 1):
        recorder.add(ids, losses)
        waited, start = _waited, time.perf_counter()
        recorder.log_train(step)
        seconds = time.perf_counter() - start
        with_fsync.append(seconds)
        without.append(seconds - (_waited - waited))
        time.sleep(0.02)  # a step
    recorder.finish()
    return with_fsync, without


def direct(address: str, domains: int) -> list[float]:
    """Return seconds of each call of MLflow's client."""
    client = MlflowClient(address)
    run = client.create_run("0").info.run_id
    seconds = []
    for step in range(1, 51):
        metrics = [Metric(f"m/{n}_{q}", 3.0, 0, step) for n in range(domains) for q in range(4)]
        start = time.perf_counter()
        client.log_batch(run, metrics=metrics)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Print the table."""
    setattr(os, "fsync", counted_fsync)  # noqa: B010  # mypy takes no assignment to a module's function
    os.environ["BIMIX_FLUSH_SECONDS"] = "0.1"
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp())
    os.environ["BIMIX_SPOOL"] = str(folder / "spool")
    server = MlflowServer(folder)
    slow = slow_proxy(server.address, 5)
    servers = {
        "healthy": server.address,
        "dead": f"http://127.0.0.1:{free_port()}",
        "answers after 5 s": f"http://127.0.0.1:{slow.server_address[1]}",
    }
    print("| server | domains | log call, median ms | 99th percentile | with fsync, median ms |")
    print("|---|---|---|---|---|")
    show: Callable[[list[float]], str] = lambda seconds: f"{1000 * statistics.median(seconds):.3f}"  # noqa: E731
    try:
        for domains in (10, 100, 1000):
            for name, address in servers.items():
                with_fsync, without = ours(f"mlflow+{address}#log", domains)
                tail = 1000 * float(np.percentile(without, 99))
                print(f"| {name} | {domains} | {show(without)} | {tail:.2f} | {show(with_fsync)} |", flush=True)
            print(f"| MLflow's log_batch, healthy | {domains} | {show(direct(server.address, domains))} | | |")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
