"""Count blocks of a domain: read, tokenise, count tokens and their pairs, draw the samples, embed passages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.corpora.documents import Block
from bimix_tracking.entropy.corpora.embedders import Embedder
from bimix_tracking.entropy.corpora.opening import read_block
from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.entropy.domain_counts import DomainCounts, EntropySettings, embedder_of, lowest, tokenizer_of
from bimix_tracking.entropy.sampling import priorities
from bimix_tracking.entropy.von_neumann import unit_vectors
from bimix_tracking.errors import CorpusError

DEFAULT_TOKENIZER = "bytes"
PASSAGE = 2000
"""Characters that are embedded at once."""
_AT_ONCE = 1 << 20
_TEXTS = 256
_PASSAGES = 64
_COMPARED = 1 << 16
"""Bytes at each end of a document that its hash is of."""


def count_blocks(
    blocks: Sequence[Block], settings: EntropySettings, before: DomainCounts | None = None
) -> DomainCounts:
    """Read, tokenise and count blocks of one domain: what each thread here, or each task of a cluster, does.

    Args:
        blocks: What to count.
        settings: How.
        before: Counts that these will be added to: what cannot get into their samples is then excluded.

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
        self._counts.sketch = lowest(self._counts.sketch, hashes)

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
        known = np.abs(rows).max(axis=1, initial=0) != 0
        counts.blank_passages += int((~known).sum())
        if not known.any():
            return
        unit, chosen = unit_vectors(rows[known]), chosen[known]
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
    """Cut a text into passages of up to 2,000 characters, at white space where there is some; blank ones are dropped.

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
