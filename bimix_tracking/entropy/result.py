"""`CorpusEntropies`: what was measured, the comparisons and mixtures that follow, and the files it leaves."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from bimix_tracking.entropy.checks import warnings_of
from bimix_tracking.entropy.comparison import Comparison, HowMixed
from bimix_tracking.entropy.domain_entropies import (
    PROXIES,
    Compared,
    DomainEntropies,
    Measured,
    Proxy,
    usual_estimator,
)
from bimix_tracking.entropy.page import render
from bimix_tracking.errors import CorpusError
from bimix_tracking.files.atomic_folder import staged
from bimix_tracking.files.spreadsheet import table_csv
from bimix_tracking.files.yaml_json import dump_yaml
from bimix_tracking.mixture import Mixture
from bimix_tracking.tracking.write_back import versions

_FILES = ("entropy.json", "entropy.csv", "entropy.html", *(f"mixtures/{proxy}.yaml" for proxy in PROXIES))


@dataclass(frozen=True)
class CorpusEntropies(Measured):
    """Entropies of domains, comparable: the same units, the same number of tokens. From `corpus_entropies`."""

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
        return Comparison(self, compare, estimator or usual_estimator(compare), temperature, available_tokens)

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
        return tuple(warnings_of(self.compared(**how)))

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

    def files(self, *, lang: str = "en", **how: Unpack[HowMixed]) -> dict[str, str]:
        """Return what is written, by path: JSON, CSV, a page, a candidate mixture a proxy.

        Args:
            lang: The page's language: `en`, `ja` or one that a package adds.
            how: As in `mixture`: what all of them show.

        Raises:
            MissingDependencyError: Jinja2 isn't installed.
        """
        return {
            "entropy.json": json.dumps(self.to_dict(**how), ensure_ascii=False, indent=1, allow_nan=False),
            "entropy.csv": table_csv(self.table(**how)),
            "entropy.html": render(self.compared(**how), lang),
            **{f"mixtures/{proxy}.yaml": self.mixture_yaml(proxy, **how) for proxy in self.proxies},
        }

    def save(self, folder: str | Path, *, lang: str = "en", **how: Unpack[HowMixed]) -> list[Path]:
        """Write `files` into a folder, which is made if it isn't there, in place of earlier ones; return their paths.

        Raises:
            CorpusError: It cannot be written.
            MissingDependencyError: Jinja2 isn't installed.
        """
        files = self.files(lang=lang, **how)
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
