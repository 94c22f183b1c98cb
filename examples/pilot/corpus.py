"""Three real domains as bytes: a byte is a token, so nothing has to be downloaded."""

from __future__ import annotations

import gzip
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

CONTEXT = 128
"""Tokens of a sequence."""
_HELD_OUT_EVERY = 20
"""Every so many sequences of a domain, one is for evaluation."""
_DATA = Path(__file__).parent / "data"
_NOT_SOURCE = {"test", "tests", "idlelib", "site-packages", "encodings", "pydoc_data", "lib2to3", "__pycache__"}


def load() -> dict[str, npt.NDArray[np.uint8]]:
    """Return the bytes of each domain, cut into sequences: shape (sequences, CONTEXT)."""
    texts = {
        "python": _standard_library(),
        "bible": gzip.decompress((_DATA / "king_james_bible.txt.gz").read_bytes()),
        "metamath": gzip.decompress((_DATA / "set.mm.gz").read_bytes()),
    }
    return {
        name: np.frombuffer(text, np.uint8)[: len(text) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
        for name, text in texts.items()
    }


def _standard_library() -> bytes:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in root.rglob("*.py") if not _NOT_SOURCE & set(p.relative_to(root).parts))
    return b"".join(file.read_bytes() for file in files)


class Examples(Dataset[dict[str, Any]]):
    """Sequences with the name of their domain."""

    def __init__(self, sequences: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> None:
        self._sequences = sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        domain, sequence = self._sequences[index]
        tokens = torch.from_numpy(sequence.astype(np.int64))
        return {"input_ids": tokens, "labels": tokens, "domain": domain}


def training_set(
    corpus: Mapping[str, npt.NDArray[np.uint8]], mixture: Mapping[str, float], size: int, seed: int
) -> Examples:
    """Draw `size` sequences, each from a domain drawn by the mixture."""
    rng = np.random.default_rng(seed)
    kept = {name: np.delete(rows, np.s_[::_HELD_OUT_EVERY], axis=0) for name, rows in corpus.items()}
    names = list(mixture)
    drawn = rng.choice(len(names), size=size, p=[mixture[name] for name in names])
    return Examples([(names[i], kept[names[i]][rng.integers(len(kept[names[i]]))]) for i in drawn])


def evaluation_set(corpus: Mapping[str, npt.NDArray[np.uint8]], each: int) -> Examples:
    """Return the same `each` held-out sequences of every domain, for all runs."""
    chosen = []
    for name, rows in corpus.items():
        held_out = rows[::_HELD_OUT_EVERY]
        spread = np.linspace(0, len(held_out) - 1, min(each, len(held_out))).astype(int)
        chosen += [(name, held_out[i]) for i in spread]
    return Examples(chosen)
