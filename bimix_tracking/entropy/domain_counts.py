"""How a corpus is measured, and what is counted of one of its domains: sums and samples that add in any order."""

from __future__ import annotations

import functools
import io
import json
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.documents import Problem, Problems, Reading
from bimix_tracking.entropy.corpora.embedders import Embedder, open_embedder
from bimix_tracking.entropy.corpora.tokenizers import Tokenizer, open_tokenizer
from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.entropy.pair_counts import MEMORY
from bimix_tracking.entropy.sampling import SequenceSample
from bimix_tracking.entropy.von_neumann import DensityMatrix

SKETCH = 4096
"""Documents whose hashes are kept to estimate what two domains share, to about 1.5 %."""


@dataclass(frozen=True)
class EntropySettings:
    """How a corpus is measured. It can be pickled: every worker has the same.

    Args:
        tokenizer: As `open_tokenizer` takes it; by default bytes for text, and token ids as they are stored.
        vocabulary: How many ids there are, where token ids are read without a tokenizer.
        embedder: As `open_embedder` takes it, for text; None embeds nothing.
        embed_all: Whether every passage is embedded, not just a sample.
        sequence_length: Tokens of a sequence that documents are packed into, as in the paper; 0: a document is one.
        sample_tokens: Tokens of the sample in which domains are compared, at most.
        sample_passages: Passages of the sample that is embedded, at most.
        seed: Of the samples.
        memory: Bytes that counts of pairs may take, of all domains together; more go to temporary files.
        reading: How files are read.
    """

    tokenizer: str | None = None
    vocabulary: int | None = None
    embedder: str | None = "hashing"
    embed_all: bool = False
    sequence_length: int = 1024
    sample_tokens: int = 1 << 22
    sample_passages: int = 1 << 13
    seed: int = 0
    memory: int = MEMORY
    reading: Reading = field(default_factory=Reading)


@dataclass
class DomainCounts:
    """What was counted of a domain. Parts add (`+=`) to the same in any order.

    Args:
        entropy: Counts of all tokens.
        sample: Some sequences, drawn at random.
        embedded: Embeddings of some passages, drawn at random, as sequences of d numbers.
        density: Sums of all embeddings, where all were asked for.
        sketch: The lowest hashes of documents.
        problems: What could not be read.
    """

    entropy: EntropyCounter
    sample: SequenceSample
    embedded: SequenceSample
    density: DensityMatrix | None = None
    sketch: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    problems: Problems = field(default_factory=Problems)
    documents: int = 0
    text_bytes: int = 0
    stored_tokens: int = 0
    """Tokens that were read as ids: no text stood behind them."""
    passages: int = 0
    blank_passages: int = 0
    """Passages in which the embedder found nothing."""

    @classmethod
    def empty(cls, settings: EntropySettings) -> Self:
        """Return counts of nothing yet."""
        embedder = embedder_of(settings.embedder) if settings.embedder else None
        dimensions = embedder.dimensions if embedder else 1
        return cls(
            EntropyCounter(memory=settings.memory),
            SequenceSample(settings.sample_tokens),
            SequenceSample(settings.sample_passages * dimensions, np.float32),
            DensityMatrix(dimensions) if embedder and settings.embed_all else None,
        )

    def __iadd__(self, other: DomainCounts) -> Self:
        self.entropy += other.entropy
        self.sample += other.sample
        self.embedded += other.embedded
        if self.density is not None and other.density is not None:
            self.density += other.density
        self.sketch = lowest(self.sketch, other.sketch)
        first = sorted([*self.problems.first, *other.problems.first], key=lambda problem: problem.where)
        self.problems = Problems(self.problems.count + other.problems.count, first[: Problems.MOST_NAMED])
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def to_bytes(self) -> bytes:
        """Return all of it, to be sent to another process."""
        said = {name: getattr(self, name) for name in _NUMBERS}
        said["problems"] = [self.problems.count, [[p.where, p.what, p.documents] for p in self.problems.first]]
        parts = {
            "said": json.dumps(said).encode(),
            "entropy": self.entropy.to_bytes(),
            "sample": self.sample.to_bytes(),
            "embedded": self.embedded.to_bytes(),
            "sketch": self.sketch.tobytes(),
            "density": self.density.to_bytes() if self.density is not None else b"",
        }
        arrays: dict[str, Any] = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
        content = io.BytesIO()
        np.savez(content, **arrays)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = {name: arrays[name].tobytes() for name in arrays.files}
        said = json.loads(parts["said"])
        count, first = said.pop("problems")
        return cls(
            EntropyCounter.from_bytes(parts["entropy"]),
            SequenceSample.from_bytes(parts["sample"]),
            SequenceSample.from_bytes(parts["embedded"]),
            DensityMatrix.from_bytes(parts["density"]) if parts["density"] else None,
            np.frombuffer(parts["sketch"], np.uint64),
            Problems(count, [Problem(*entry) for entry in first]),
            **said,
        )


_NUMBERS = ("documents", "text_bytes", "stored_tokens", "passages", "blank_passages")


def shared(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> float:
    """Return about which part of the distinct documents of the smaller of two domains is in the other one too.

    Args:
        one: The lowest hashes of a domain's documents, as `DomainCounts` has them.
        other: Those of the other.
    """
    if not (len(one) and len(other)):
        return 0.0
    # Below the lower of the two borders both hold every document they have.
    border = min(hashes[-1] if len(hashes) >= SKETCH else np.uint64(2**64 - 1) for hashes in (one, other))
    one, other = one[one <= border], other[other <= border]
    return len(np.intersect1d(one, other, assume_unique=True)) / max(min(len(one), len(other)), 1)


def lowest(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the lowest hashes of both, as many as are kept."""
    return np.unique(np.concatenate([one, other]))[:SKETCH]


@functools.lru_cache(maxsize=4)
def tokenizer_of(spec: str) -> Tokenizer:
    """Return the tokenizer that blocks are counted with: opened once a process, not once a block."""
    return open_tokenizer(spec)


@functools.lru_cache(maxsize=4)
def embedder_of(spec: str) -> Embedder:
    """Return the embedder that blocks are counted with: opened once a process, not once a block."""
    return open_embedder(spec)
