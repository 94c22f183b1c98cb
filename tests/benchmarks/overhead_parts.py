"""What the tables of `overhead.py` share: the recipe that we compare with, a meter, and how a pair is told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from bimix_integrations.trainers.torch import IGNORE, DomainLossMeter
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from bimix_tracking import DomainLossRecorder
from bimix_tracking.tracking.local import JsonlTracker  # by its class: `open_tracker` needs the package installed

BLOCK = 10
"""Steps between two records: a block is as many, and has one."""


class Recipe:
    """The recipe that goes round: mask the token losses by domain, and `.item()` each."""

    def __init__(self, domains: int) -> None:
        self.sums, self.tokens = [0.0] * domains, [0] * domains

    def add(self, losses: Tensor, targets: Tensor, ids: Tensor) -> None:
        """Add a batch, a domain at a time."""
        of_token = ids.unsqueeze(-1).expand_as(targets)
        for domain in range(len(self.sums)):
            mask = (of_token == domain) & (targets != IGNORE)
            if mask.any():
                self.sums[domain] += losses[mask].sum().item()
                self.tokens[domain] += int(mask.sum().item())


def names_of(domains: int) -> list[str]:
    """Return names for so many domains."""
    return [f"domain-{i}" for i in range(domains)]


def tracker_in(folder: Path, domains: int) -> JsonlTracker:
    """Return a tracker that writes JSON lines."""
    return JsonlTracker(f"jsonl:{folder}", run_name=f"{domains}-{perf_counter()}")


def meter_of(domains: int, folder: Path) -> DomainLossMeter:
    """Return a meter that writes JSON lines."""
    names = names_of(domains)
    mixture = dict.fromkeys(names, 1 / domains)
    return DomainLossMeter(DomainLossRecorder(names, mixture, tracker_in(folder, domains)))


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a folder for the rows."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def ratio(ours: Sequence[float], base: Sequence[float]) -> str:
    """Return the median of paired ratios with its quartiles."""
    paired = [a / b for a, b in zip(ours, base, strict=True)]
    low, _, high = quantiles(paired, n=4)
    return f"{median(paired):.4f} ({low:.4f} to {high:.4f})"


def events_of(run: Callable[[], object], *activities: ProfilerActivity, memory: bool = False) -> list[Any]:
    """Return what the profiler saw, unparsed: parsing takes seconds for a real model."""
    with profile(activities=list(activities), profile_memory=memory) as profiler:
        run()
    return list(profiler.profiler.kineto_results.events())


def peak(step: Callable[[], object]) -> int:
    """Return the most bytes that were allocated at once on the CPU during a step, beyond those before it."""
    events = events_of(step, ProfilerActivity.CPU, memory=True)
    now = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
