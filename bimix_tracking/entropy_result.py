"""What was measured of corpora: entropies by domain, the mixtures that follow, and what to doubt."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import numpy as np
import pandas as pd
import yaml

from bimix_tracking.convergence import Curve
from bimix_tracking.entropy import Entropies, entropy_mixture
from bimix_tracking.entropy_doubts import doubts
from bimix_tracking.errors import CorpusError
from bimix_tracking.estimators import ESTIMATORS
from bimix_tracking.mixture import Mixture
from bimix_tracking.spreadsheet import table_csv
from bimix_tracking.staging import staged
from bimix_tracking.write_back import versions

Proxy = Literal["shannon", "joint", "conditional", "von_neumann"]
Compared = Literal["equal", "all"]
PROXIES: tuple[Proxy, ...] = get_args(Proxy)
_FILES = ("entropy.json", "entropy.csv", "entropy.html", *(f"mixtures/{proxy}.yaml" for proxy in PROXIES))
ESTIMATOR = "grassberger"
"""The least biased on real text, of those that are offered: `tests/benchmarks/README.md`."""
PAPER_ESTIMATOR = "plug-in"


class HowMixed(TypedDict, total=False):
    """How entropies become proportions: the keyword arguments of `CorpusEntropies.mixture`."""

    compare: Compared
    estimator: str | None
    temperature: float
    available_tokens: Mapping[str, float] | None


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

    def entropies(self, proxy: Proxy, *, compare: Compared = "equal", estimator: str | None = None) -> dict[str, float]:
        """Return an entropy of each domain, nats.

        Args:
            proxy: `shannon`, `joint`, `conditional` or `von_neumann`.
            compare: `equal`: of equally many tokens of each domain. `all`: of all there are, as in the paper; domains
                with fewer tokens then come out too low by more.
            estimator: One of `bimix_tracking.estimators`; by default `grassberger` for equal tokens, the paper's
                `plug-in` for all. It doesn't matter for von Neumann entropy.

        Raises:
            CorpusError: No such proxy, estimator or comparison; no embeddings.
        """
        if proxy not in self.proxies:
            there = ", ".join(self.proxies)
            more = ": texts were not embedded, or a domain has fewer than two passages" if proxy in PROXIES else ""
            raise CorpusError(f"there is no proxy {proxy!r}{more}; there are {there}")
        if compare not in get_args(Compared):
            raise CorpusError(f"domains are compared 'equal' or 'all', not {compare!r}")
        used = estimator or (ESTIMATOR if compare == "equal" else PAPER_ESTIMATOR)
        if used not in ESTIMATORS:
            raise CorpusError(f"there is no estimator {used!r}; there are {', '.join(ESTIMATORS)}")
        return {name: _value(found, proxy, compare, used) for name, found in self.domains.items()}

    def mixture(
        self,
        proxy: Proxy,
        *,
        compare: Compared = "equal",
        estimator: str | None = None,
        temperature: float = 1.0,
        available_tokens: Mapping[str, float] | None = None,
    ) -> Mixture:
        """Return the mixture in proportion to exp(H): see `entropy_mixture` (arXiv 2405.14908v4, Eq. 13).

        Args:
            proxy: As in `entropies`.
            compare: As in `entropies`.
            estimator: As in `entropies`.
            temperature: Above 1 flattens the mixture.
            available_tokens: Weighs a domain's entropy by these.

        Raises:
            CorpusError: As in `entropies`.
            MixtureError: As in `entropy_mixture`.
        """
        found = self.entropies(proxy, compare=compare, estimator=estimator)
        return entropy_mixture(
            {name: max(value, 0.0) for name, value in found.items()},
            temperature=temperature,
            available_tokens=available_tokens,
        )

    def mixtures(self, **how: Unpack[HowMixed]) -> dict[Proxy, Mixture]:
        """Return the mixture by each proxy there is; arguments as in `mixture`."""
        return {proxy: self.mixture(proxy, **how) for proxy in self.proxies}

    def proportion_errors(
        self, proxy: Proxy, mixture: Mixture | None = None, *, temperature: float = 1.0
    ) -> dict[str, float]:
        """Return the standard error of each proportion, from those of the entropies at equal tokens; NaN if unknown.

        To first order, σ(r_i)² = r_i² / T² · [(1 − r_i)² σ_i² + Σ_j≠i r_j² σ_j²].

        Args:
            proxy: As in `entropies`.
            mixture: If not that at equal tokens.
            temperature: T, that the mixture has.
        """
        share = (mixture or self.mixture(proxy, temperature=temperature)).array(tuple(self.domains))
        errors = np.array([_error(found.curve(proxy)) for found in self.domains.values()]) / temperature
        spread = (share**2 * errors**2).sum() - share**2 * errors**2 + (1 - share) ** 2 * errors**2
        return dict(zip(self.domains, (share * np.sqrt(spread)).tolist(), strict=True))

    def halved(self, proxy: Proxy, *, temperature: float = 1.0) -> Mixture | None:
        """Return the mixture by half as many tokens; None where a sample cannot be halved.

        How far it is from `mixture` tells what more tokens may still do.
        """
        curves = {name: found.curve(proxy) for name, found in self.domains.items()}
        halves = {name: curve.value - curve.drift for name, curve in curves.items() if curve}
        if any(math.isnan(value) for value in halves.values()):
            return None
        return entropy_mixture({name: max(value, 0.0) for name, value in halves.items()}, temperature=temperature)

    def table(self) -> pd.DataFrame:
        """Return one row a domain and proxy: entropies in nats, errors, proportions."""
        rows = []
        for proxy in self.proxies:
            equal, paper = self.mixture(proxy), self.mixture(proxy, compare="all")
            errors = self.proportion_errors(proxy)
            everything = self.entropies(proxy, compare="all")
            for name, found in self.domains.items():
                curve = found.curve(proxy)
                if curve is not None:
                    rows.append(
                        {
                            "domain": name,
                            "proxy": proxy,
                            "entropy": curve.value,
                            "standard_error": curve.error,
                            "last_doubling": curve.drift,
                            "proportion": equal[name],
                            "proportion_error": errors[name],
                            "entropy_of_all": everything[name],
                            "proportion_by_all": paper[name],
                        }
                    )
        return pd.DataFrame(rows)

    def warnings(self) -> tuple[str, ...]:
        """Return what may make the numbers wrong, in sentences: overlaps, unreadable input, small samples."""
        return tuple(doubts(self))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON types."""
        return {
            "schema": 1,
            "units": "nats",
            "compared_tokens": self.tokens,
            "compared_passages": self.passages,
            "tokenizer": self.tokenizer,
            "embedder": self.embedder,
            "sequence_length": self.sequence_length,
            "seed": self.seed,
            "estimator": ESTIMATOR,
            "domains": {name: _plain(found) for name, found in self.domains.items()},
            "mixtures": {proxy: dict(self.mixture(proxy)) for proxy in self.proxies},
            "overlaps": [overlap._asdict() for overlap in self.overlaps],
            "warnings": list(self.warnings()),
            "versions": versions(),
        }

    def mixture_yaml(self, proxy: Proxy, **how: Unpack[HowMixed]) -> str:
        """Return a candidate for `bimix plan --candidate`: the mixture, where it is from, and how it was asked for.

        Args:
            proxy: As in `entropies`.
            how: As in `mixture`.
        """
        content = {
            "mixture": {name: float(share) for name, share in self.mixture(proxy, **how).items()},
            "from": {
                "entropy": proxy,
                "tokenizer": self.embedder if proxy == "von_neumann" else self.tokenizer,
                "tokens": self.passages if proxy == "von_neumann" else self.tokens,
                **{name: value for name, value in how.items() if value is not None},
            },
        }
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def files(self, **how: Unpack[HowMixed]) -> dict[str, str]:
        """Return what is written, by path: JSON, CSV, a page, a candidate mixture a proxy.

        Args:
            how: As in `mixture`: what the page and the candidates show. JSON and CSV hold both comparisons.

        Raises:
            MissingDependencyError: Jinja2 isn't installed.
        """
        from bimix_tracking.report.entropies import render  # noqa: PLC0415  # pages import what they are of

        return {
            "entropy.json": json.dumps(self.to_dict(), ensure_ascii=False, indent=1, allow_nan=False),
            "entropy.csv": table_csv(self.table()),
            "entropy.html": render(self, self.mixtures(**how), temperature=how.get("temperature", 1.0)),
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


def _value(found: DomainEntropies, proxy: Proxy, compare: Compared, estimator: str) -> float:
    if compare == "all" and proxy != "von_neumann":
        return float(getattr(found.exact[estimator], proxy))
    if compare == "all" and found.all_von_neumann is not None:
        return found.all_von_neumann
    curve = found.curve(proxy, estimator)
    return math.nan if curve is None else curve.value


def _error(curve: Curve | None) -> float:
    return math.nan if curve is None else curve.error


def _plain(found: DomainEntropies) -> dict[str, Any]:
    return {
        "files": found.files,
        "documents": found.documents,
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
