"""A world of two model sizes: mixture effects are shared, levels are not, and change along a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bimix_tracking import DomainLossRecorder, Observations, open_tracker

LAWS = {"code": (0.08, 0.4, 900.0, 1.2), "web": (0.05, 0.5, 2000.0, 2.6), "math": (0.12, 0.45, 1200.0, 0.9)}
"""α, β, B, C of the small size's losses r^−α (B / s^β + C)."""
SMALL, LARGE = 20_000_000, 310_000_000
SCHEDULE = {SMALL: 1.6e7, LARGE: 2.56e8}
FALL = {"code": 0.19, "web": 0.14, "math": 0.16}
"""By how much the logarithm of a loss falls from the small size to the large one, at the end of a run."""
LATER = {"code": 0.02, "web": 0.01, "math": 0.015}
"""How much more of that comes with each factor e in progress."""
PROGRESS = (0.0625, 0.125, 0.25, 0.5, 0.75, 1.0)
PROXIES = [(0.2, 0.6, 0.2), (0.6, 0.2, 0.2), (0.2, 0.2, 0.6), (0.4, 0.4, 0.2), (0.2, 0.4, 0.4), (0.4, 0.2, 0.4), (0.33, 0.33, 0.34), (0.1, 0.7, 0.2)]  # fmt: skip  # noqa: E501


def truth(shares: Mapping[str, float], progress: float, size: int) -> dict[str, float]:
    """Return the losses of a run without noise."""
    tokens = progress * SCHEDULE[SMALL]
    return {
        name: shares[name] ** -alpha
        * (b / tokens**beta + c)
        * (np.exp(-FALL[name] - LATER[name] * np.log(progress)) if size == LARGE else 1.0)
        for name, (alpha, beta, b, c) in LAWS.items()
    }


def rows(
    name: str,
    shares: Sequence[float],
    size: int,
    *,
    progress: Sequence[float] = PROGRESS,
    noise: float = 0.003,
    off: float = 0.0,
    schedule: bool = True,
) -> list[dict[str, object]]:
    """Return the rows of a run, its losses times 1 + `off`."""
    mixture = dict(zip(LAWS, shares, strict=True))
    luck = np.exp(noise * np.random.default_rng([*name.encode(), size]).standard_normal(len(LAWS)))
    return [
        {"run": name, "tokens": p * SCHEDULE[size], "model_size": size}
        | {"schedule": SCHEDULE[size] if schedule else float("nan")}
        | {f"p {domain}": share for domain, share in mixture.items()}
        | {
            f"l {domain}": loss * by * (1 + off)
            for (domain, loss), by in zip(truth(mixture, p, size).items(), luck, strict=True)
        }
        for p in progress
    ]


def proxies(**more: float) -> list[dict[str, object]]:
    """Return the rows of the small runs."""
    return [row for i, shares in enumerate(PROXIES) for row in rows(f"proxy-{i}", shares, SMALL, **more)]  # type: ignore[arg-type]  # each option's own


def observed(*parts: list[dict[str, object]]) -> Observations:
    """Return runs as observations."""
    return Observations.from_wide(
        pd.DataFrame([row for part in parts for row in part]),
        proportions={d: f"p {d}" for d in LAWS},
        losses={d: f"l {d}" for d in LAWS},
        tokens="tokens",
        run="run",
        model_size="model_size",
        schedule_tokens="schedule",
    )


def train(
    folder: Path,
    name: str,
    shares: Sequence[float],
    size: int,
    *,
    progress: Sequence[float] = PROGRESS,
    finished: bool = True,
    **manifest: object,
) -> None:
    """Leave a run in a folder of plain files."""
    mixture = dict(zip(LAWS, shares, strict=True))
    batch = SCHEDULE[size] / 16
    recorder = DomainLossRecorder(
        tuple(LAWS), mixture, open_tracker(f"jsonl:{folder}", run_name=name), sweep="pilot", model_size=size,
        batch_tokens=int(batch), schedule_tokens=int(SCHEDULE[size]), **manifest,  # type: ignore[arg-type]  # of a manifest
    )  # fmt: skip
    before = 0.0
    for row, at in zip(rows(name, shares, size, progress=progress), progress, strict=True):
        tokens = [round((at - before) * SCHEDULE[size] * share) for share in shares]
        recorder.add([0, 1, 2], [2.0 * n for n in tokens], tokens)
        recorder.add([0, 1, 2], [1e6 * float(str(row[f"l {d}"])) for d in LAWS], [10**6] * 3, split="eval")
        recorder.log_train(round(at * 16))
        recorder.log_eval(round(at * 16))
        before = at
    if finished:
        recorder.finish()
