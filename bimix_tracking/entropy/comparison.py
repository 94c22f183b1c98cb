"""Domains compared by one sample of each: the entropies, errors and mixtures that may stand beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, get_args

import numpy as np

from bimix_tracking.entropy.counter import entropy_mixture
from bimix_tracking.entropy.domain_entropies import PROXIES, Compared, Measured, Proxy
from bimix_tracking.entropy.estimators import ESTIMATORS
from bimix_tracking.entropy.sample_error import Curve
from bimix_tracking.errors import CorpusError, did_you_mean
from bimix_tracking.messages import joined, said
from bimix_tracking.mixture import Mixture


class HowMixed(TypedDict, total=False):
    """How entropies become proportions: the keyword arguments of `CorpusEntropies.mixture`."""

    compare: Compared
    estimator: str | None
    temperature: float
    available_tokens: Mapping[str, float] | None


@dataclass(frozen=True)
class Comparison:
    """What follows from corpora by one way of comparing them. From `CorpusEntropies.compared`.

    Args:
        found: What was measured.
        compare: `equal`: by samples of equally many tokens. `all`: by all tokens there are.
        estimator: Of the entropies of tokens.
        temperature: Of the mixtures.
        available_tokens: That weigh the domains of the mixtures.
    """

    found: Measured
    compare: Compared
    estimator: str
    temperature: float = 1.0
    available_tokens: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.compare not in get_args(Compared):
            raise CorpusError(f"domains are compared 'equal' or 'all', not {self.compare!r}")
        if self.estimator not in ESTIMATORS:
            raise CorpusError(f"no estimator {self.estimator!r}; {did_you_mean(self.estimator, ESTIMATORS)}")

    def sampled(self, proxy: Proxy) -> bool:
        """Whether a proxy's entropies are of samples, and not of all there is."""
        embedded = all(domain.all_von_neumann is not None for domain in self.found.domains.values())
        return self.compare == "equal" or (proxy == "von_neumann" and not embedded)

    def curve(self, proxy: Proxy, domain: str) -> Curve | None:
        """Return how an entropy moves with the size of the sample, by this estimator; None where there is none."""
        return self.found.domains[domain].curve(proxy, self.estimator)

    def entropies(self, proxy: Proxy) -> dict[str, float]:
        """Return the entropy of each domain, nats; 0 where an estimator corrects it to less.

        Raises:
            CorpusError: No such proxy; no embeddings.
        """
        if proxy not in self.found.proxies:
            more = ": texts were not embedded, or a domain has fewer than two passages" if proxy in PROXIES else ""
            raise CorpusError(f"no proxy {proxy!r}{more}; {did_you_mean(proxy, self.found.proxies)}")
        return {name: self._value(proxy, name) for name in self.found.domains}

    def errors(self, proxy: Proxy) -> dict[str, float]:
        """Return the standard error of each entropy, nats; NaN where it is unknown, as it is of all tokens."""
        curves = {name: self.curve(proxy, name) if self.sampled(proxy) else None for name in self.found.domains}
        return {name: math.nan if curve is None else curve.error for name, curve in curves.items()}

    def mixture(self, proxy: Proxy) -> Mixture:
        """Return the mixture that follows from the entropies.

        Raises:
            CorpusError: As in `entropies`.
            MixtureError: As in `entropy_mixture`.
        """
        return self._mixed(self.entropies(proxy))

    def mixtures(self) -> dict[Proxy, Mixture]:
        """Return the mixture by each proxy there is."""
        return {proxy: self.mixture(proxy) for proxy in self.found.proxies}

    def proportion_errors(self, proxy: Proxy, mixture: Mixture | None = None) -> dict[str, float]:
        """Return the standard error of each proportion, from those of the entropies; NaN where these aren't known.

        To first order, σ(r_i)² = r_i² / T² · [(1 − r_i)² σ_i² + Σ_j≠i r_j² σ_j²].

        Args:
            proxy: Of which entropies.
            mixture: If it is not that of the entropies.
        """
        share = (mixture or self.mixture(proxy)).array(tuple(self.found.domains))
        errors = np.array(list(self.errors(proxy).values())) / self.temperature
        spread = (share**2 * errors**2).sum() - share**2 * errors**2 + (1 - share) ** 2 * errors**2
        return dict(zip(self.found.domains, (share * np.sqrt(spread)).tolist(), strict=True))

    def halved(self, proxy: Proxy) -> Mixture | None:
        """Return the mixture by samples half as large; None where they cannot be halved.

        Its distance from `mixture` shows what more tokens may still change.
        """
        curves = [self.curve(proxy, name) for name in self.found.domains]
        halves = [curve.value - curve.drift for curve in curves if curve is not None]
        if not self.sampled(proxy) or any(math.isnan(value) for value in halves):
            return None
        return self._mixed(dict(zip(self.found.domains, halves, strict=True)))

    def sizes(self, proxy: Proxy) -> dict[str, int]:
        """Return how many tokens, or passages, of each domain the entropies are of."""
        by_passages, domains = proxy == "von_neumann", self.found.domains
        if self.sampled(proxy):
            return dict.fromkeys(domains, self.found.passages if by_passages else self.found.tokens)
        return {name: domain.passages if by_passages else domain.tokens for name, domain in domains.items()}

    def sample(self) -> str:
        """Say in a sentence what entropies and proportions are of."""
        if self.sampled("shannon"):
            counts = sorted({domain.sampled for domain in self.found.domains.values()})
            counted = f"{counts[0]:,}"
            if len(counts) > 1:
                counted = said("{low} to {high}", low=counted, high=f"{counts[-1]:,}")
            unit = said("{count} documents", count=counted)
            if self.found.sequence_length:
                length = self.found.sequence_length
                unit = said("{count} sequences of up to {length:,}", count=counted, length=length)
            parts = [
                said(
                    "a random sample of {tokens:,} tokens of each domain ({unit}), by {estimator}",
                    tokens=self.found.tokens,
                    unit=unit,
                    estimator=self.estimator,
                )
            ]
        else:
            parts = [said("all tokens of each domain, by {estimator}", estimator=self.estimator)]
        if "von_neumann" in self.found.proxies:
            some = said("all passages")
            if self.sampled("von_neumann"):
                some = said("{count:,} random passages", count=self.found.passages)
            parts.append(said("von Neumann entropies of {passages} of each", passages=some))
        if self.available_tokens:
            parts.append(said("proportions are weighed by tokens available"))
        if self.temperature != 1:
            parts.append(said("temperature {temperature:g}", temperature=self.temperature))
        return said("Entropies and proportions are of {sample}.", sample=joined(parts, "; "))

    def to_dict(self) -> dict[str, Any]:
        """Return how domains are compared, as JSON types."""
        return {
            "compare": self.compare,
            "estimator": self.estimator,
            "temperature": self.temperature,
            "available_tokens": None if self.available_tokens is None else dict(self.available_tokens),
        }

    def _value(self, proxy: Proxy, name: str) -> float:
        domain = self.found.domains[name]
        value: float | None
        if self.sampled(proxy):
            curve = self.curve(proxy, name)
            value = None if curve is None else curve.value
        else:
            value = domain.all_von_neumann if proxy == "von_neumann" else getattr(domain.exact[self.estimator], proxy)
        return math.nan if value is None else max(value, 0.0)

    def _mixed(self, entropies: Mapping[str, float]) -> Mixture:
        return entropy_mixture(
            {name: max(value, 0.0) for name, value in entropies.items()},
            temperature=self.temperature,
            available_tokens=self.available_tokens,
        )
