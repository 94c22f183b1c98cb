"""What the training examples share: real text of three domains, a model that trains in seconds, what is printed.

Nothing to run. The text is that of the pilot (examples/pilot/data), a byte being a token: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bimix_integrations.trainers.collate import DomainCollator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from bimix_tracking import Analysis

sys.path.append(str(Path(__file__).with_name("pilot")))
from corpus import CONTEXT, Examples, evaluation_set, load, training_set  # found by the line above

DOMAINS = ("python", "bible", "metamath")
BATCH = 16
_SEES = 8


class TinyModel(nn.Module):
    """Predict the next byte from the eight before it: logits (batch, time, 256) of tokens (batch, time)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(256, 32)
        self.mix = nn.Conv1d(32, 128, _SEES)
        self.out = nn.Linear(128, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        seen = nn.functional.pad(self.embedding(tokens).transpose(1, 2), (_SEES - 1, 0))
        logits: Tensor = self.out(nn.functional.gelu(self.mix(seen)).transpose(1, 2))
        return logits


class Text:
    """The three domains' text, as sequences for training and, the same for every run, for evaluation."""

    def __init__(self) -> None:
        self._corpus = load()

    def training(self, mixture: Mapping[str, float], steps: int, seed: int = 0) -> Examples:
        """Return the examples of so many steps, each drawn by the mixture; each says which domain it is of."""
        return training_set(self._corpus, mixture, steps * BATCH, seed)

    def evaluation(self) -> Examples:
        """Return held-out examples, as many of each domain."""
        return evaluation_set(self._corpus, 64)


def loader(examples: Dataset[dict[str, Any]]) -> DataLoader[Any]:
    """Return batches of `input_ids`, `labels` and `domain_ids`."""
    return DataLoader(examples, BATCH, collate_fn=DomainCollator(default_collate, DOMAINS))


def options(doc: str | None, name: str) -> argparse.Namespace:
    """Return `out`, `runs` and `steps` from the command line, and `tokens`: of the run that the mixture is for."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("example-results", name), help="a new folder for all results")
    parser.add_argument("--runs", type=int, default=5, help="proxy runs, a mixture each")
    parser.add_argument("--steps", type=int, default=120, help="of each run")
    found = parser.parse_args()
    if found.runs < 3 or found.steps < 16:
        parser.error("that is too little to analyse: give at least 3 runs and 16 steps")
    if found.out.exists() and any(found.out.iterdir()):
        sys.exit(f"{found.out} holds something already: remove it, or choose another folder with --out")
    found.out = found.out.resolve()
    found.out.mkdir(parents=True, exist_ok=True)
    found.tokens = 10 * found.steps * BATCH * (CONTEXT - 1)
    torch.set_num_threads(1)  # more only get in each other's way in a model so small
    return found


def tell(analysis: Analysis, chosen: argparse.Namespace) -> None:
    """Print the verdict of a training example, its mixture and gain, and the next command."""
    rec = analysis.recommendation
    print(analysis.verdict.sentence)
    print(f"Recommended at {rec.tokens:,.0f} tokens: {rec.mixture}")
    if rec.uncertainty is not None:
        low, high = rec.uncertainty.gain
        print(f"Gain over equal parts: {rec.gain:.4f} nats, 90 % interval {low:.4f} to {high:.4f}.")
    print(f"A demonstration, not a result: {chosen.steps} steps of a tiny model show little beyond their own noise.")
    page = chosen.out / "analysis"
    print(f"Report: {page / 'report.html'}")
    print(f"Next: bimix export {page / 'mixture.yaml'} --format list")
