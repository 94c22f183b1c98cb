"""What the spawned trainings share: examples, models, and ways to write down and to pause."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

DOMAINS = ["code", "web", "c++", "never"]
MIXTURE = {"code": 0.4, "web": 0.4, "c++": 0.2, "never": 0.0}
TIME, VOCABULARY = 12, 17
Features = list[dict[str, Any]]


def examples(count: int, seed: int) -> Features:
    """Return examples of uneven lengths: padding is where means of means go wrong."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        tokens = rng.integers(VOCABULARY, size=TIME)
        labels = np.where(np.arange(TIME) < rng.integers(3, TIME + 1), tokens, -100)
        # No `c++` in even places: of two processes that take turns, one never sees it.
        domain = str(rng.choice(["code", "web"] if number % 2 == 0 else ["web", "c++"]))
        made.append({"input_ids": tokens.tolist(), "labels": labels.tolist(), "domain": domain})
    return made


def stack(features: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return a batch, of no rows perhaps."""
    rows = list(features)
    return {
        "input_ids": torch.tensor([row["input_ids"] for row in rows], dtype=torch.int64).reshape(-1, TIME),
        "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.int64).reshape(-1, TIME),
        "domain_ids": torch.tensor([DOMAINS.index(row["domain"]) for row in rows], dtype=torch.int64),
    }


class Tiny(nn.Module):
    """A float64 bigram model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8, dtype=torch.float64)
        self.head = nn.Linear(8, VOCABULARY, dtype=torch.float64)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.embedding(tokens))
        return logits


def gpt2() -> Any:
    """Return a GPT-2 of one layer, always the same."""
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415  # seconds that the plain loop needn't wait

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "n_positions": TIME, "n_embd": 16, "n_layer": 1, "n_head": 2}
    none: dict[str, Any] = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **none, bos_token_id=0, eos_token_id=0, tie_word_embeddings=False))


def write(path: Path, content: Any) -> None:
    """Write JSON that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


def wait_to_be_killed(folder: Path) -> None:
    """Tell the parent process that the place was reached, and by whom, and wait for its signal."""
    write(folder / "reached.json", os.getpid())
    time.sleep(120)
    raise TimeoutError("nobody killed this process")


def leave() -> None:
    """End this process once all have come here: gloo's threads now and then abort a process whose peer is gone."""
    if distributed.is_initialized():
        distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
