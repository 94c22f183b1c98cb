"""Entropies of a domain's tokens, from counts that add: of the data, not of a model's predictions."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bimix_tracking.entropy.estimators import ESTIMATORS, Spectrum, standard_error
from bimix_tracking.entropy.pair_counts import MEMORY, SHIFT, PairCounts, Run, merge
from bimix_tracking.errors import CorpusError, MixtureError, did_you_mean
from bimix_tracking.mixture import Mixture

_MOST = 1 << 31
_NARROW = 1 << 16
_HEADER = struct.Struct("<4sQQQ")
_MAGIC = b"bxE3"
_ENDS = 8
"""Which part of the memory is for the last tokens of sequences: there are fewer distinct ones than pairs."""


_NOTHING = Run(np.zeros(0, np.uint64), np.zeros(0, np.int64))


class Entropies(NamedTuple):
    """Entropies of tokens, nats: of a token, of two neighbours, of a token given the one before it."""

    shannon: float
    joint: float
    conditional: float


class _Spectra(NamedTuple):
    """How often tokens, pairs, and the first tokens of pairs were counted."""

    tokens: Spectrum
    pairs: Spectrum
    firsts: Spectrum


class EntropyCounter:
    """Count neighbouring tokens, and return their entropies in nats (arXiv 2405.14908v4, §4).

    Shannon SE = −Σ_x P(x) log P(x), over all tokens x. Over all pairs of a token x and the next one x′ of its sequence:
    joint JE = −Σ_x,x′ P(x,x′) log P(x,x′); conditional CE = −Σ_x,x′ P(x,x′) log P(x′|x) (Eq. 12). Pairs don't cross
    the ends of sequences, so a sequence's last token is in SE, and is no x: SE + CE = JE holds as far as the last
    tokens are like the others.

    Counters add (`+=`), in any order and any parts, and the sum is the same to the last count.

    Args:
        vocabulary: How many ids the tokenizer has; ids from there on are refused. Unknown by default.
        memory: Bytes that counts may take in memory; what is more goes to temporary files, and nothing else changes.
        folder: Where these are made.

    >>> counter = EntropyCounter()
    >>> counter.add([0, 1, 0, 1, 0])
    >>> round(counter.shannon, 3), round(counter.joint, 3), abs(round(counter.conditional, 12))
    (0.673, 0.693, 0.0)
    """

    def __init__(
        self, vocabulary: int | None = None, *, memory: int = MEMORY, folder: str | Path | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._pairs = PairCounts(memory - memory // _ENDS, folder)
        # Tokens without a next one, as pairs with 0: all other tokens are in pairs.
        self._ends = PairCounts(memory // _ENDS, folder)
        self._tokens = 0
        self._known: _Spectra | None = None

    def add(self, tokens: npt.ArrayLike, follows: npt.ArrayLike | None = None) -> None:
        """Add sequences of token ids.

        Args:
            tokens: Integers from 0 to 2³¹ − 1, shape (length,), or (sequences, length). Arrays of 16 bits are fastest.
            follows: For one sequence: whether each token from the second on makes a pair with the one before, shape
                (length − 1,); without it all do.

        Raises:
            CorpusError: Ids that are no such integers, or beyond the vocabulary.
        """
        ids = np.asarray(tokens)
        if not ids.size:
            return
        ids = self._checked(ids)
        self._known = None
        self._tokens += ids.size
        ends = ids[..., -1].ravel()
        if follows is not None:
            kept = np.asarray(follows, bool)
            self._pairs.add(ids[:-1][kept], ids[1:][kept])
            ends = np.append(ids[:-1][~kept], ends)
        elif ids.shape[-1] > 1:
            self._pairs.add(ids[..., :-1], ids[..., 1:])
        self._ends.add(ends, np.zeros_like(ends))

    def __iadd__(self, other: EntropyCounter) -> Self:
        self._known = None
        self._tokens += other._tokens
        self._pairs += other._pairs
        self._ends += other._ends
        return self

    def settle(self) -> None:
        """Merge what was added, and write out what is beyond the memory; several threads may do so at once."""
        self._pairs.settle()
        self._ends.settle()

    def unite(self, workers: int = 1) -> None:
        """Merge all that was added, in threads: what the entropies would wait for otherwise."""
        self._pairs.unite(workers)
        self._ends.unite(workers)

    def without(self, part: EntropyCounter) -> EntropyCounter:
        """Return the counts less those of a part that was added: what a jackknife needs.

        Raises:
            ValueError: The part was not added: a count would be below 0.
        """
        rest = EntropyCounter(self._vocabulary)
        rest._tokens = self._tokens - part._tokens
        rest._pairs.add_run(_less(self._pairs.whole(), part._pairs.whole()))
        rest._ends.add_run(_less(self._ends.whole(), part._ends.whole()))
        return rest

    @property
    def tokens(self) -> int:
        """How many tokens were added: what SE is of."""
        return self._tokens

    @property
    def pairs(self) -> int:
        """How many pairs were counted: what JE and CE are of."""
        return self.spectra()[1].total

    @property
    def shannon(self) -> float:
        """Plug-in entropy of a token, nats; 0 without any."""
        return self.entropies().shannon

    @property
    def joint(self) -> float:
        """Plug-in entropy of a pair of neighbours, nats; 0 without any."""
        return self.entropies().joint

    @property
    def conditional(self) -> float:
        """Plug-in entropy of a token given the one before it, nats; 0 without any."""
        return self.entropies().conditional

    def entropies(self, estimator: str = "plug-in") -> Entropies:
        """Return the three entropies by an estimator; CE is that of pairs less that of their first tokens.

        Args:
            estimator: `plug-in` (the paper's, biased low), `miller-madow`, `chao-shen` or `grassberger`.

        Raises:
            ValueError: No such estimator.
        """
        if estimator not in ESTIMATORS:
            raise ValueError(f"no estimator {estimator!r}; {did_you_mean(estimator, ESTIMATORS)}")
        shannon, joint, first = (ESTIMATORS[estimator](seen) for seen in self._seen())
        return Entropies(shannon, joint, joint - first)

    def standard_errors(self) -> tuple[float, float]:
        """Return those of SE and JE as if tokens were drawn independently, nats: less than they are of real text."""
        shannon, joint = (standard_error(seen) for seen in self.spectra())
        return shannon, joint

    def spectra(self) -> tuple[Spectrum, Spectrum]:
        """Return how many tokens, and how many pairs, were counted how often."""
        return self._seen()[:2]

    def _seen(self) -> _Spectra:
        if self._known is None:
            pairs = Spectrum.of(())
            firsts: list[Run] = []
            for run in self._pairs.runs():
                pairs += Spectrum.of(run.counts)
                tokens = run.keys >> np.uint64(SHIFT)
                starts = np.flatnonzero(np.concatenate([[True], tokens[1:] != tokens[:-1]]))
                firsts.append(Run(tokens[starts], np.add.reduceat(run.counts, starts)))
            # A token's pairs may lie on both sides of a border between two pieces.
            first = merge(firsts) if firsts else _NOTHING
            ends = self._ends.whole()
            every = merge([first, Run(ends.keys >> np.uint64(SHIFT), ends.counts)])
            self._known = _Spectra(Spectrum.of(every.counts), pairs, Spectrum.of(first.counts))
        return self._known

    def counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return all pairs of ids in ascending order, shape (distinct, 2), and how often each was seen."""
        keys, counts = self._pairs.whole()
        upper, lower = keys >> np.uint64(SHIFT), keys & np.uint64((1 << SHIFT) - 1)
        return np.stack([upper, lower], axis=1).astype(np.int64), counts

    def to_bytes(self) -> bytes:
        """Return the counts, 16 bytes a distinct pair or last token: the same bytes for the same counts."""
        runs = [self._pairs.whole(), self._ends.whole()]
        # Differences of sorted keys are small: who wants to compress them can.
        tables = [np.stack([np.diff(keys, prepend=np.uint64(0)).view(np.int64), counts]) for keys, counts in runs]
        content = np.concatenate(tables, axis=None).astype("<i8").tobytes()
        return _HEADER.pack(_MAGIC, self._tokens, *(len(run.keys) for run in runs)) + content

    @classmethod
    def from_bytes(cls, content: bytes) -> EntropyCounter:
        """Read what `to_bytes` wrote.

        Raises:
            CorpusError: It is no such thing, or was cut off.
        """
        try:
            magic, tokens, pairs, ends = _HEADER.unpack_from(content)
            numbers = np.frombuffer(content, "<i8", offset=_HEADER.size)
            tables = numbers[: 2 * pairs].reshape(2, pairs), numbers[2 * pairs :].reshape(2, ends)
        except (struct.error, ValueError) as error:
            raise CorpusError(f"these are not counts of tokens: {error}") from error
        if magic != _MAGIC:
            raise CorpusError("these are not counts of tokens, or of another version")
        counter = cls()
        counter._tokens = tokens
        for into, table in zip((counter._pairs, counter._ends), tables, strict=True):
            into.add_run(Run(np.cumsum(table[0]).astype(np.uint64), table[1].astype(np.int64)))
        return counter

    def to_dict(self) -> dict[str, str]:
        """Return the counts as JSON types, for a checkpoint."""
        return {"counts": base64.b64encode(zlib.compress(self.to_bytes(), 1)).decode()}

    @classmethod
    def from_dict(cls, texts: Mapping[str, str]) -> EntropyCounter:
        """Read what `to_dict` wrote.

        Raises:
            CorpusError: It is no such thing.
        """
        try:
            return cls.from_bytes(zlib.decompress(base64.b64decode(texts["counts"])))
        except (KeyError, ValueError, zlib.error) as error:
            raise CorpusError(f"these are not counts of tokens: {error}") from error

    def _checked(self, ids: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return ids that may be packed, in 16 bits where they fit: those sort fastest."""
        if not np.issubdtype(ids.dtype, np.integer) or ids.ndim not in (1, 2):
            raise CorpusError(f"token ids must be integers from 0 on, one row or a table, got {ids.dtype} {ids.shape}")
        if ids.dtype == np.uint16 and self._vocabulary is None:
            return ids
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= _MOST:
            raise CorpusError(f"token ids must be integers from 0 on, below 2³¹, got {low} to {high}")
        if self._vocabulary is not None and high >= self._vocabulary:
            raise CorpusError(f"token id {high} is beyond the vocabulary of {self._vocabulary}: is this its tokenizer?")
        return ids.astype(np.uint16, copy=False) if high < _NARROW else ids


def _less(whole: Run, part: Run) -> Run:
    keys, counts = merge([whole, Run(part.keys, -part.counts)])
    if len(counts) and counts.min() < 0:
        raise ValueError("the part has counts that the whole has not: it was not added")
    return Run(keys[counts > 0], counts[counts > 0])


def entropy_mixture(
    entropies: Mapping[str, float],
    *,
    temperature: float = 1.0,
    available_tokens: Mapping[str, float] | None = None,
) -> Mixture:
    """Return the mixture in proportion to exp(H) of each domain: no training is needed (arXiv 2405.14908v4, Eq. 13).

        r_i = n_i exp(H_i / T) / Σ_j n_j exp(H_j / T),   n = 1 unless tokens are given

    Args:
        entropies: H by domain in nats; bits would be another temperature, 1/ln 2.
        temperature: T > 0; above 1 flattens, below 1 sharpens. The paper has 1.
        available_tokens: n by domain, to weigh each domain's entropy by how much of it there is. The paper has none.

    Raises:
        MixtureError: An entropy that is no finite number from 0 on, tokens of other domains, a temperature that isn't
            positive.

    >>> entropy_mixture({"code": 1.0, "web": 1.0 + 0.6931471805599453})
    Mixture({'code': 0.333333, 'web': 0.666667})
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise MixtureError(f"the temperature must be positive, got {temperature!r}")
    for name, value in entropies.items():
        if not (math.isfinite(value) and value > -1e-9):
            raise MixtureError(f"the entropy of domain {name!r} must be a finite number of nats, got {value!r}")
    weights = dict.fromkeys(entropies, 1.0) if available_tokens is None else dict(available_tokens)
    if weights.keys() != entropies.keys():
        missing = sorted(entropies.keys() ^ weights.keys())
        raise MixtureError(f"entropies and tokens must be of the same domains; in one only: {missing}")
    # The largest is taken out first: exp(800) is not a number.
    largest = max(entropies.values(), default=0.0)
    return Mixture.normalized({d: weights[d] * math.exp((h - largest) / temperature) for d, h in entropies.items()})
