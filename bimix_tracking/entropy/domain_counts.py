"""Count blocks of a domain: tokens and their pairs, a sample of sequences, embeddings, and what two domains share."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.documents import Block, Problem, Problems, Reading
from bimix_tracking.entropy.corpora.embedders import Embedder, open_embedder
from bimix_tracking.entropy.corpora.opening import read_block
from bimix_tracking.entropy.corpora.tokenizers import Tokenizer, open_tokenizer
from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.entropy.pair_counts import MEMORY
from bimix_tracking.entropy.sampling import SequenceSample, priorities
from bimix_tracking.entropy.von_neumann import DensityMatrix, unit_vectors
from bimix_tracking.errors import CorpusError

DEFAULT_TOKENIZER = "bytes"
SKETCH = 4096
"""Documents whose hashes are kept to tell what two domains share: a share is told to about 1.5 %."""
PASSAGE = 2000
"""Characters that are embedded at once."""
_AT_ONCE = 1 << 20
_TEXTS = 256
_PASSAGES = 64
_COMPARED = 1 << 16
"""Bytes at each end of a document that its hash is of."""


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
        self.sketch = _lowest(self.sketch, other.sketch)
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


def count_blocks(
    blocks: Sequence[Block], settings: EntropySettings, before: DomainCounts | None = None
) -> DomainCounts:
    """Read, tokenise and count blocks of one domain: what each thread here, or each task of a cluster, does.

    Args:
        blocks: What to count.
        settings: How.
        before: Counts that these will be added to: what cannot get into their samples is then left out of these.

    Raises:
        CorpusError: Something cannot be read, and bad input isn't to be skipped; or ids that the tokenizer hasn't.
    """
    counts = DomainCounts.empty(settings)
    if before is not None:
        counts.sample.expect(before.sample)
        counts.embedded.expect(before.embedded)
    for block in blocks:
        try:
            _Blocks(counts, settings, block.name).count(block)
        except CorpusError as error:
            text = str(error) if block.path in str(error) else f"{block.path}: {error}"
            raise CorpusError(text if block.domain is None else f"domain {block.domain!r}: {text}") from error
    return counts


class _Blocks:
    """The counting of one block."""

    def __init__(self, counts: DomainCounts, settings: EntropySettings, name: str) -> None:
        self._counts, self._settings, self._name = counts, settings, name
        self._tokenizer = tokenizer_of(settings.tokenizer or DEFAULT_TOKENIZER)
        self._embedder = embedder_of(settings.embedder) if settings.embedder else None
        known = self._tokenizer.vocabulary if settings.tokenizer else settings.vocabulary
        self._counter = EntropyCounter(known, memory=settings.memory)
        self._tokens: list[npt.NDArray[Any]] = []
        self._held = 0
        self._sequences = 0
        self._passages = 0
        self._hashes: list[int] = []

    def count(self, block: Block) -> None:
        texts: list[str] = []
        size, group = 0, None
        for document in read_block(block, self._settings.reading, self._counts.problems):
            if group is not None and document.group != group:
                self._take(texts, group)
                self._end(group)
                texts, size = [], 0
            group = document.group
            if not isinstance(document.content, str) and document.content.ndim == 2:
                self._table(document.content, group)
                continue
            self._counts.documents += 1
            if isinstance(document.content, str):
                texts.append(document.content)
                size += len(document.content)
                if len(texts) >= _TEXTS or size >= _AT_ONCE:
                    self._take(texts, group)
                    texts, size = [], 0
            else:
                ids = np.asarray(document.content)
                self._counts.stored_tokens += len(ids)
                self._hash(ids)
                self._put(ids, group)
        if group is not None:
            self._take(texts, group)
            self._end(group)
        self._counts.entropy += self._counter
        hashes = np.array(self._hashes, np.uint64)
        self._counts.sketch = _lowest(self._counts.sketch, hashes)

    def _table(self, ids: npt.NDArray[Any], group: int) -> None:
        """Count documents that are a sequence each, and are packed with nothing."""
        self._counts.documents += len(ids)
        self._counts.stored_tokens += ids.size
        for row in ids:
            self._hash(row)
        self._counter.add(ids)
        self._offer(ids.ravel(), [ids.shape[1]] * len(ids), group)

    def _take(self, texts: Sequence[str], group: int) -> None:
        """Tokenise and embed texts."""
        if not texts:
            return
        for text, ids in zip(texts, self._tokenizer(texts), strict=True):
            content = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
            self._counts.text_bytes += len(content)
            self._hash(content)
            self._put(ids, group)
        if self._embedder is not None:
            passages = [passage for text in texts for passage in passages_of(text)]
            for first in range(0, len(passages), _PASSAGES):
                self._embed(self._embedder, passages[first : first + _PASSAGES], group)

    def _put(self, ids: npt.NDArray[Any], group: int) -> None:
        if len(ids):
            self._tokens.append(ids)
            self._held += len(ids)
        if self._held >= _AT_ONCE:
            self._flush(group, ended=False)

    def _end(self, group: int) -> None:
        self._flush(group, ended=True)
        self._sequences = self._passages = 0

    def _flush(self, group: int, *, ended: bool) -> None:
        """Count what is held, but for the begun sequence unless the group has ended."""
        if not self._tokens:
            return
        length = self._settings.sequence_length
        flat = np.concatenate(self._tokens) if len(self._tokens) > 1 else self._tokens[0]
        rest = flat[:0]
        if length:
            whole = len(flat) // length
            rest = flat[whole * length :]
            self._counter.add(flat[: whole * length].reshape(whole, length))
            self._offer(flat[: whole * length], [length] * whole, group)
            if ended:
                self._counter.add(rest)
                self._offer(rest, [len(rest)], group)
        else:
            lengths = [len(ids) for ids in self._tokens]
            follows = np.ones(len(flat), bool)
            follows[np.cumsum(lengths) - 1] = False
            self._counter.add(flat, follows[:-1])
            self._offer(flat, lengths, group)
        self._tokens = [] if ended or not len(rest) else [rest]
        self._held = sum(map(len, self._tokens))

    def _offer(self, flat: npt.NDArray[Any], lengths: Sequence[int], group: int) -> None:
        order = priorities(
            f"{group} sequences of {self._name}", len(lengths), start=self._sequences, seed=self._settings.seed
        )
        self._sequences += len(lengths)
        self._counts.sample.offer(flat, lengths, order)

    def _embed(self, embedder: Embedder, passages: Sequence[str], group: int) -> None:
        counts = self._counts
        order = priorities(
            f"{group} passages of {self._name}", len(passages), start=self._passages, seed=self._settings.seed
        )
        self._passages += len(passages)
        counts.passages += len(passages)
        wanted = counts.embedded.wants(order)
        chosen = np.arange(len(passages)) if counts.density is not None else np.flatnonzero(wanted)
        if not len(chosen):
            return
        rows = np.asarray(embedder([passages[place] for place in chosen.tolist()]))
        # No norm: the embedder knows nothing of such a text. NaN is a fault, and is refused.
        told = np.abs(rows).max(axis=1, initial=0) != 0
        counts.blank_passages += int((~told).sum())
        if not told.any():
            return
        unit, chosen = unit_vectors(rows[told]), chosen[told]
        if counts.density is not None:
            counts.density.add(unit)
        counts.embedded.offer(unit.ravel(), [unit.shape[1]] * len(unit), order[chosen])

    def _hash(self, document: npt.NDArray[Any]) -> None:
        """Note a document: its size and all of it, or its two ends."""
        content = np.ascontiguousarray(document).view(np.uint8)
        digest = hashlib.blake2b(b"%d " % len(content), digest_size=8)
        for part in (content[:_COMPARED], content[_COMPARED:][-_COMPARED:]):
            digest.update(part.data)
        self._hashes.append(int.from_bytes(digest.digest(), "little"))


def passages_of(text: str) -> Iterator[str]:
    """Cut a text into passages of up to 2,000 characters, at white space where there is some; blank ones are left out.

    >>> [len(passage) for passage in passages_of("word " * 700)]
    [1999, 1499]
    """
    start = 0
    while start < len(text):
        end = start + PASSAGE
        if end < len(text):
            space = max(text.rfind(" ", start + PASSAGE // 2, end), text.rfind("\n", start + PASSAGE // 2, end))
            end = space + 1 if space > 0 else end
        passage = text[start:end].strip()
        if passage:
            yield passage
        start = end


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


def _lowest(one: npt.NDArray[np.uint64], other: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return np.unique(np.concatenate([one, other]))[:SKETCH]


@functools.lru_cache(maxsize=4)
def tokenizer_of(spec: str) -> Tokenizer:
    """Return the tokenizer that blocks are counted with: opened once a process, not once a block."""
    return open_tokenizer(spec)


@functools.lru_cache(maxsize=4)
def embedder_of(spec: str) -> Embedder:
    """Return the embedder that blocks are counted with: opened once a process, not once a block."""
    return open_embedder(spec)
