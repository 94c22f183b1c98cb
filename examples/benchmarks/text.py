"""The pilot's text, cut short: what sweeps trained as one batch draw from, and what they are evaluated on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "pilot"))
from corpus import load  # found by the line above

CONTEXT = 64
"""Bytes of a sequence."""
DOMAINS = ("python", "bible", "metamath")
_HELD_OUT_EVERY = 20
"""Every so many stretches of text, one is for evaluation and for the tasks."""


class Text:
    """Three domains of bytes, apart for training and for evaluation."""

    def __init__(self) -> None:
        corpus = load()
        self.bytes = {name: rows.size for name, rows in corpus.items()}
        self._text = {name: _sequences(np.delete(rows, np.s_[::_HELD_OUT_EVERY], 0)) for name, rows in corpus.items()}
        self.held_out = {name: _sequences(rows[::_HELD_OUT_EVERY]) for name, rows in corpus.items()}

    def batch(
        self, mixture: Mapping[str, float], size: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Draw sequences, each from a domain drawn by the mixture, and return the domains' ids with them."""
        ids = rng.choice(len(DOMAINS), size, p=[mixture[name] for name in DOMAINS])
        rows = [self._text[DOMAINS[i]][rng.integers(len(self._text[DOMAINS[i]]))] for i in ids]
        return np.stack(rows).astype(np.int64), ids

    def evaluation(self, each: int) -> dict[str, Tensor]:
        """Return so many held-out sequences of each domain, from all parts of it: the same for all runs."""
        return {name: torch.from_numpy(_spread(rows, each)) for name, rows in self.held_out.items()}


def _sequences(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return rows.reshape(-1, CONTEXT)


def _spread(rows: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.int64]:
    """Return so many of the rows, from all parts of the text."""
    chosen = np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)
    return np.asarray(rows[chosen], np.int64)
