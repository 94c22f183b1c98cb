"""What was measured of corpora: entropies by domain, the mixtures that follow, and what to doubt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import pandas as pd

from bimix_tracking.entropy.comparison import (
    ESTIMATOR,
    PAPER_ESTIMATOR,
    PROXIES,
    Compared,
    Comparison,
    HowMixed,
    Proxy,
)
from bimix_tracking.entropy.counter import Entropies
from bimix_tracking.entropy.sample_error import Curve
from bimix_tracking.entropy.warnings import doubts
from bimix_tracking.errors import CorpusError
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.files.spreadsheet import table_csv
from bimix_tracking.files.yaml_json import dump_yaml
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.write_back import versions

_FILES = ("entropy.json", "entropy.csv", "entropy.html", *(f"mixtures/{proxy}.yaml" for proxy in PROXIES))


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
        unreadable: How many documents were left out as unreadable.
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
class CorpusEntropies:
    """Entropies of domains, comparable: the same units, the same number of tokens. From `corpus_entropies`.

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

    def compared(
        self,
        *,
        compare: Compared = "equal",
        estimator: str | None = None,
        temperature: float = 1.0,
        available_tokens: Mapping[str, float] | None = None,
    ) -> Comparison:
        """Return all that follows from one sample of each domain; arguments as in `mixture`.

        Raises:
            CorpusError: No such comparison or estimator.
        """
        used = estimator or (ESTIMATOR if compare == "equal" else PAPER_ESTIMATOR)
        return Comparison(self, compare, used, temperature, available_tokens)

    def entropies(self, proxy: Proxy, *, compare: Compared = "equal", estimator: str | None = None) -> dict[str, float]:
        """Return an entropy of each domain, nats.

        Args:
            proxy: `shannon`, `joint`, `conditional` or `von_neumann`.
            compare: `equal`: of equally many tokens of each domain. `all`: of all there are, as in the paper; domains
                with fewer tokens then come out too low by more.
            estimator: One of `bimix_tracking.entropy.estimators`; by default `grassberger` for equal tokens, the
                paper's `plug-in` for all. It doesn't matter for von Neumann entropy.

        Raises:
            CorpusError: No such proxy, estimator or comparison; no embeddings.
        """
        return self.compared(compare=compare, estimator=estimator).entropies(proxy)

    def mixture(self, proxy: Proxy, **how: Unpack[HowMixed]) -> Mixture:
        """Return the mixture in proportion to exp(H): see `entropy_mixture` (arXiv 2405.14908v4, Eq. 13).

        Args:
            proxy: As in `entropies`.
            how: `compare` and `estimator` as in `entropies`; `temperature`, 1 by default: above it flattens the
                mixture; `available_tokens`: weighs a domain's entropy by these.

        Raises:
            CorpusError: As in `entropies`.
            MixtureError: As in `entropy_mixture`.
        """
        return self.compared(**how).mixture(proxy)

    def mixtures(self, **how: Unpack[HowMixed]) -> dict[Proxy, Mixture]:
        """Return the mixture by each proxy there is; arguments as in `mixture`."""
        return self.compared(**how).mixtures()

    def proportion_errors(
        self, proxy: Proxy, mixture: Mixture | None = None, **how: Unpack[HowMixed]
    ) -> dict[str, float]:
        """Return the standard error of each proportion: see `Comparison.proportion_errors`.

        Args:
            proxy: As in `entropies`.
            mixture: If it is not that of the entropies.
            how: As in `mixture`.
        """
        return self.compared(**how).proportion_errors(proxy, mixture)

    def halved(self, proxy: Proxy, **how: Unpack[HowMixed]) -> Mixture | None:
        """Return the mixture by samples half as large: see `Comparison.halved`; arguments as in `mixture`."""
        return self.compared(**how).halved(proxy)

    def table(self, **how: Unpack[HowMixed]) -> pd.DataFrame:
        """Return one row a domain and proxy: entropies in nats, errors, proportions.

        Args:
            how: As in `mixture`. Beside it stand entropies and proportions of all tokens, as in the paper.
        """
        one, paper = self.compared(**how), self.compared(compare="all")
        rows = []
        for proxy in self.proxies:
            entropies, errors, sizes = one.entropies(proxy), one.errors(proxy), one.sizes(proxy)
            mixture, proportion_errors = one.mixture(proxy), one.proportion_errors(proxy)
            everything, by_all = paper.entropies(proxy), paper.mixture(proxy)
            for name in self.domains:
                curve = one.curve(proxy, name)
                rows.append(
                    {
                        "domain": name,
                        "proxy": proxy,
                        "entropy": entropies[name],
                        "standard_error": errors[name],
                        "last_doubling": math.nan if curve is None else curve.drift,
                        "proportion": mixture[name],
                        "proportion_error": proportion_errors[name],
                        "sample_size": sizes[name],
                        "entropy_of_all": everything[name],
                        "proportion_by_all": by_all[name],
                    }
                )
        return pd.DataFrame(rows)

    def warnings(self, **how: Unpack[HowMixed]) -> tuple[str, ...]:
        """Return what may make the numbers wrong, in sentences: overlaps, unreadable input, small samples.

        Args:
            how: As in `mixture`.
        """
        return tuple(doubts(self.compared(**how)))

    def to_dict(self, **how: Unpack[HowMixed]) -> dict[str, Any]:
        """Return all of it as JSON types.

        Args:
            how: As in `mixture`: what `entropies` and `mixtures` are of, as `sample` says; `domains` holds all that
                was measured.
        """
        one = self.compared(**how)
        return {
            "schema": 1,
            "units": "nats",
            "sample": one.sample(),
            **one.to_dict(),
            "sizes": {proxy: one.sizes(proxy) for proxy in self.proxies},
            "entropies": {proxy: one.entropies(proxy) for proxy in self.proxies},
            "mixtures": {proxy: dict(mixture) for proxy, mixture in one.mixtures().items()},
            "compared_tokens": self.tokens if one.sampled("shannon") else None,
            "compared_passages": self.passages if one.sampled("von_neumann") else None,
            "tokenizer": self.tokenizer,
            "embedder": self.embedder,
            "sequence_length": self.sequence_length,
            "seed": self.seed,
            "domains": {name: _plain(found) for name, found in self.domains.items()},
            "overlaps": [overlap._asdict() for overlap in self.overlaps],
            "warnings": list(self.warnings(**how)),
            "versions": versions(),
        }

    def mixture_yaml(self, proxy: Proxy, **how: Unpack[HowMixed]) -> str:
        """Return a candidate for `bimix plan --candidate`: the mixture, where it is from, and how it was asked for.

        Args:
            proxy: As in `entropies`.
            how: As in `mixture`.
        """
        one = self.compared(**how)
        sizes = one.sizes(proxy)
        said = {name: value for name, value in one.to_dict().items() if value is not None}
        content = {
            "mixture": {name: float(share) for name, share in one.mixture(proxy).items()},
            "from": {
                "entropy": proxy,
                "tokenizer": self.embedder if proxy == "von_neumann" else self.tokenizer,
                "nats": one.entropies(proxy),
                "passages" if proxy == "von_neumann" else "tokens": max(sizes.values())
                if one.sampled(proxy)
                else sizes,
                **said,
            },
        }
        return dump_yaml(content)

    def files(self, **how: Unpack[HowMixed]) -> dict[str, str]:
        """Return what is written, by path: JSON, CSV, a page, a candidate mixture a proxy.

        Args:
            how: As in `mixture`: what all of them show.

        Raises:
            MissingDependencyError: Jinja2 isn't installed.
        """
        from bimix_tracking.entropy.page import render  # noqa: PLC0415  # pages import what they are of

        return {
            "entropy.json": json.dumps(self.to_dict(**how), ensure_ascii=False, indent=1, allow_nan=False),
            "entropy.csv": table_csv(self.table(**how)),
            "entropy.html": render(self.compared(**how)),
            **{f"mixtures/{proxy}.yaml": self.mixture_yaml(proxy, **how) for proxy in self.proxies},
        }

    def save(self, folder: str | Path, **how: Unpack[HowMixed]) -> list[Path]:
        """Write `files` into a folder, which is made if it isn't there, in place of earlier ones; return their paths.

        Raises:
            CorpusError: It cannot be written.
            MissingDependencyError: Jinja2 isn't installed.
        """
        files = self.files(**how)
        try:
            with staged(folder, _FILES) as new:
                (new / "mixtures").mkdir()
                for name, text in files.items():
                    (new / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise CorpusError(f"cannot write {error.filename or folder}: {error.strerror}") from error
        return [Path(folder) / name for name in files]


def _plain(found: DomainEntropies) -> dict[str, Any]:
    return {
        "files": found.files,
        "documents": found.documents,
        "sampled_sequences": found.sampled,
        "tokens": found.tokens,
        "text_bytes": found.text_bytes,
        "distinct_pairs": found.distinct_pairs,
        "all_tokens": {name: entropies._asdict() for name, entropies in found.exact.items()},
        "equal_tokens": {
            name: {proxy: curve.to_dict() for proxy, curve in curves.items()} for name, curves in found.curves.items()
        },
        "von_neumann": None if found.von_neumann is None else found.von_neumann.to_dict(),
        "all_von_neumann": found.all_von_neumann,
        "passages": found.passages,
        "blank_passages": found.blank_passages,
        "unreadable": found.unreadable,
        "problems": list(found.problems),
        "copies": found.copies,
    }
