"""Multiple-choice tasks made from held-out text: which of four continuations is the true one?

A question has a context and four continuations of the same domain and length. Three tasks follow a domain each. The
fourth has no right answer: all four continuations are from elsewhere, and which one counts is drawn by lot in each run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from models import Models  # in this folder

NAMES = {"next_code": "python", "next_verse": "bible", "next_step": "metamath", "coin_toss": None}
"""Each task, and the domain whose text its questions are of; None: of all, with answers drawn by lot."""
CHOICES = 4
CHANCE = 1 / CHOICES
BEFORE, AFTER = 24, 8
"""Bytes of a context and of a continuation."""
_AT_ONCE = 64
"""Questions read at once: what is in memory then is small."""


@dataclass(frozen=True)
class Task:
    """Questions (questions, choices, bytes), each with its context in front of its continuations, and their answers."""

    name: str
    questions: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]

    @classmethod
    def of(cls, name: str, held_out: Mapping[str, npt.NDArray[np.uint8]], questions: int, seed: int = 0) -> Task:
        """Make the questions of a task from held-out sequences, the same for the same seed."""
        rng = np.random.default_rng([seed, list(NAMES).index(name)])
        domain = NAMES[name]
        made = [
            _question(held_out[domain or list(held_out)[number % len(held_out)]], rng, true=domain is not None)
            for number in range(questions)
        ]
        return cls(name, np.stack([asked for asked, _ in made]), np.array([answer for _, answer in made]))

    def __len__(self) -> int:
        return len(self.answers)

    @torch.no_grad()
    def scores(self, models: Models, seeds: Sequence[int]) -> list[dict[str, float]]:
        """Return, by target, each model's accuracy, bits per byte of the answers, and mean probability of the answer.

        The probability is that among the four, by the mean log probability of a byte: those of whole continuations are
        near 0 or 1, and say little more than the accuracy. With the runs' seeds is drawn what is drawn by lot.
        """
        nats = np.concatenate([self._nats(models, part) for part in np.array_split(self.questions, self._parts)], 1)
        answers = np.stack([self._answers(seed) for seed in seeds])
        right = np.take_along_axis(nats, answers[..., None], 2)[..., 0]
        likely = np.exp(-nats / AFTER)
        accuracy = (nats.argmin(2) == answers).mean(1)
        bits = right.mean(1) / AFTER / np.log(2)
        choice = (np.exp(-right / AFTER) / likely.sum(2)).mean(1)
        return [
            {self.name: float(a), f"{self.name}_bpb": float(b), f"{self.name}_choice": float(c)}
            for a, b, c in zip(accuracy, bits, choice, strict=True)
        ]

    def _answers(self, seed: int) -> npt.NDArray[np.int64]:
        if NAMES[self.name] is not None:
            return self.answers
        return np.random.default_rng([seed, 2]).integers(CHOICES, size=len(self))

    @property
    def _parts(self) -> int:
        return -(-len(self) // _AT_ONCE)

    @staticmethod
    def _nats(models: Models, questions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return −log p of each continuation after its context: shape (models, questions, choices)."""
        flat = torch.from_numpy(questions.reshape(1, -1, questions.shape[-1]))
        nats = models.losses(flat)[..., -AFTER:].double().sum(2)
        return nats.view(models.count, -1, CHOICES).numpy()


def _question(
    sequences: npt.NDArray[np.uint8], rng: np.random.Generator, *, true: bool
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the four readings of one question, and which is right."""
    length = sequences.shape[1]
    chosen = rng.choice(len(sequences), CHOICES + 1, replace=False)
    start = int(rng.integers(length - BEFORE - AFTER + 1))
    context = sequences[chosen[0], start : start + BEFORE]
    answer = int(rng.integers(CHOICES))
    readings = []
    for number, other in enumerate(chosen[1:]):
        at = start + BEFORE if true and number == answer else int(rng.integers(length - AFTER + 1))
        source = chosen[0] if true and number == answer else other
        readings.append(np.concatenate([context, sequences[source, at : at + AFTER]]))
    return np.stack(readings).astype(np.int64), answer
