"""The compute of a sweep beside that of the run it is for, in floating-point operations.

Training a model of N parameters on D tokens takes about 6 N D of them, N without embeddings (Kaplan et al. 2020, arXiv
2001.08361, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bimix_tracking.data.model_sizes import nearest
from bimix_tracking.recommendation.costs import Costs

PER_TOKEN = 6.0
"""FLOPs by parameter and token: two forward, four backward."""


def training_flops(model_size: float, tokens: float) -> float:
    """Return the FLOPs of a training run, 6 N D (arXiv 2001.08361, section 2.1).

    Args:
        model_size: N, parameters without embeddings.
        tokens: D.

    >>> f"{training_flops(7e9, 1e12):.1e}"
    '4.2e+22'
    """
    return PER_TOKEN * model_size * tokens


@dataclass(frozen=True)
class Compute:
    """What the runs of a sweep took, by model size, and what the run takes that they are for.

    Args:
        runs: By model size, rising: (parameters, FLOPs of each run).
        model_size: Parameters of the run they are for.
        target: Its FLOPs.
    """

    runs: tuple[tuple[float, tuple[float, ...]], ...]
    model_size: float
    target: float

    @property
    def spent(self) -> float:
        """FLOPs of all runs, proxies and anchors alike."""
        return sum(sum(each) for _, each in self.runs)

    @property
    def share(self) -> float:
        """What the sweep took, as a part of what the run takes."""
        return self.spent / self.target

    def gpu_hours(self, costs: Costs) -> float | None:
        """Return the GPU-hours of all runs; None where those of a proxy run aren't known.

        `gpu_hours_per_run` is of a run of the smallest size; others are in proportion to their FLOPs. Runs of the
        target's own size go by the hours of the target run, where these are known. Small models use a GPU less well, so
        sizes between them took no more than this.

        Args:
            costs: What the team says.
        """
        if costs.gpu_hours_per_run is None:
            return None
        smallest = self.runs[0][1]
        rate = costs.gpu_hours_per_run / (sum(smallest) / len(smallest))
        hours = 0.0
        for number, (size, each) in enumerate(self.runs):
            own = number and nearest(self.model_size, [size]) is not None
            known = costs.target_gpu_hours if own else None
            hours += sum(each) * (rate if known is None else known / self.target)
        return hours

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "flops_by_size": [{"model_size": size, "runs": len(each), "flops": sum(each)} for size, each in self.runs],
            "sweep_flops": self.spent,
            "target_flops": self.target,
            "sweep_share_of_target": self.share,
        }


def compute_of(
    sizes: Mapping[str, float], tokens: Mapping[str, float], target_size: float | None, target_tokens: float
) -> Compute | None:
    """Return the compute of runs, 6 N D each; None where the size of one, or of the run they are for, isn't known.

    Args:
        sizes: Parameters of each run's model.
        tokens: What each run was trained on, in the unit of `target_tokens`.
        target_size: Parameters of the run they are for.
        target_tokens: Its data volume.

    >>> found = compute_of({"a": 1e8, "b": 1e8, "anchor": 1e9}, dict.fromkeys(["a", "b", "anchor"], 2e9), 1e9, 1e11)
    >>> found.spent, round(found.share, 4)  # 6 · (2 · 1e8 + 1e9) · 2e9
    (1.44e+19, 0.024)
    """
    if target_size is None or not tokens or not set(tokens) <= set(sizes):
        return None
    by_size: dict[float, list[float]] = {}
    for run, seen in tokens.items():
        by_size.setdefault(sizes[run], []).append(training_flops(sizes[run], seen))
    runs = tuple((size, tuple(each)) for size, each in sorted(by_size.items()))
    return Compute(runs, target_size, training_flops(target_size, target_tokens))
