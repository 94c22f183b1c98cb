"""Proxy runs whose losses follow the law: the sweep of the README, as small as an analysis can be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bimix_tracking import DomainLossRecorder, open_tracker

SWEEP = (0.2, 0.5, 0.8)
"""Proportions of code in three runs, from which 0.729 of it is recommended."""
RECOMMENDED = 0.729189


def begin(uri: str, name: str, code: float = 0.5, *, sweep: str | None = None) -> DomainLossRecorder:
    """Train a proxy run to its last step and return its recorder: it is going until that is finished."""
    mixture = {"code": code, "web": 1 - code}
    recorder = DomainLossRecorder(list(mixture), mixture, open_tracker(uri, run_name=name), sweep=sweep)
    seen = 0
    for step, new in enumerate((1000, 3000, 12000, 48000), 1):
        seen += new
        tokens = np.array([new * code, new * (1 - code)]).round().astype(int)
        recorder.add([0, 1], 3.0 * tokens, tokens)
        losses = np.array([code**-0.1 * (90 / seen**0.5 + 3), (1 - code) ** -0.1 * (40 / seen**0.4 + 1)])
        recorder.add([0, 1], 512 * losses, 512, split="eval")
        recorder.log_train(step)
        recorder.log_eval(step)
    return recorder


def train(uri: str, sweep: str | None = None, mixtures: Sequence[float] = SWEEP, prefix: str = "run") -> None:
    """Train a sweep to its end."""
    for number, code in enumerate(mixtures):
        begin(uri, f"{prefix}-{number}", code, sweep=sweep).finish()


def analyses(folder: Path) -> list[Path]:
    """Return the folders of the analyses that a folder of runs has."""
    return sorted(path for path in (folder / "analysis").glob("[!.]*") if path.is_dir())
