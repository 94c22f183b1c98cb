"""What was measured of corpora, by domain: sizes, entropies and their curves, and documents that domains share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from bimix_tracking.entropy.counter import Entropies
from bimix_tracking.entropy.sample_error import Curve
from bimix_tracking.messages import said

Proxy = Literal["shannon", "joint", "conditional", "von_neumann"]
Compared = Literal["equal", "all"]
PROXIES: tuple[Proxy, ...] = get_args(Proxy)
ESTIMATOR = "grassberger"
"""The least biased on real text, of those that are offered: `tests/benchmarks/README.md`."""
PAPER_ESTIMATOR = "plug-in"
TERMS: Mapping[Proxy, str] = {
    "shannon": said("Shannon entropy"),
    "joint": said("joint entropy"),
    "conditional": said("conditional entropy"),
    "von_neumann": said("von Neumann entropy"),
}
"""Proxies as a sentence has them."""


def unit_of(proxy: Proxy) -> str:
    """Return what a sample of an entropy is counted in."""
    return said("passages") if proxy == "von_neumann" else said("tokens")


def usual_estimator(compare: Compared) -> str:
    """Return the estimator that is used unless one is named: of samples the least biased, of everything the paper's."""
    return ESTIMATOR if compare == "equal" else PAPER_ESTIMATOR


class Overlap(NamedTuple):
    """Two domains that hold the same documents: about which part of the smaller one."""

    one: str
    other: str
    share: float


@dataclass(frozen=True)
class DomainEntropies:
    """What was measured of a domain.

    Args:
        files: How many files were read.
        documents: How many documents were in them.
        tokens: How many tokens, all of which were counted.
        text_bytes: Bytes of text, 0 where token ids were read.
        distinct_pairs: How many distinct pairs of neighbouring tokens there are.
        exact: By estimator, SE, JE and CE of all tokens; `plug-in` is the paper's.
        curves: By estimator and proxy, the entropy of the sample in which domains are compared.
        von_neumann: That of the sample of passages; None without embeddings.
        all_von_neumann: That of all passages, where all were embedded.
        passages: How many passages the text has.
        blank_passages: In how many the embedder found nothing.
        unreadable: How many unreadable documents were excluded.
        problems: The first of them: where, and what is wrong.
        copies: About which part of the documents are copies of others in the domain.
        sampled: How many sequences the sample of tokens has.
    """

    files: int
    documents: int
    tokens: int
    text_bytes: int
    distinct_pairs: int
    exact: Mapping[str, Entropies]
    curves: Mapping[str, Mapping[str, Curve]]
    von_neumann: Curve | None
    all_von_neumann: float | None
    passages: int
    blank_passages: int
    unreadable: int
    problems: tuple[str, ...]
    copies: float
    sampled: int = 0

    def curve(self, proxy: Proxy, estimator: str = ESTIMATOR) -> Curve | None:
        """Return a proxy's curve against the size of the sample; None where there is none."""
        return self.von_neumann if proxy == "von_neumann" else self.curves[estimator][proxy]


@dataclass(frozen=True)
class Measured:
    """What entropies of domains are compared from.

    Args:
        domains: By name.
        tokens: Of the sample of each domain that the comparison is of.
        passages: Of the sample of each domain that von Neumann entropies are of; 0 without.
        tokenizer: What the tokens are.
        embedder: What the embeddings are of; None without.
        sequence_length: Tokens of a sequence, 0 where documents are sequences.
        seed: Of the samples.
        overlaps: Domains that share documents.
    """

    domains: Mapping[str, DomainEntropies]
    tokens: int
    passages: int
    tokenizer: str
    embedder: str | None
    sequence_length: int
    seed: int
    overlaps: tuple[Overlap, ...]

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """The proxies that every domain has."""
        von_neumann = all(found.von_neumann is not None for found in self.domains.values())
        return PROXIES if von_neumann else PROXIES[:3]
