"""A mixture: named proportions on the probability simplex, and the arithmetic of the simplex."""

from __future__ import annotations

import difflib
import itertools
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bimix_tracking.display.card import Card
from bimix_tracking.display.texts import listing
from bimix_tracking.errors import MixtureError, RecommendationError, RecommendationWarning, listed, shown
from bimix_tracking.files.yaml_json import Entries, load_yaml, read_text
from bimix_tracking.quantities import percent

SUM_TOLERANCE = 1e-6
_MAX_NAME = 250


def check_domains(domains: Iterable[str]) -> tuple[str, ...]:
    """Return the domain names as a tuple, or say which one cannot be a name.

    Any printable text is a name (`c++`, `web/en`, `ä`); it is escaped where it is shown or stored.

    Raises:
        MixtureError: No domain, a name that is no string, empty, padded, too long, unprintable or doubled.

    >>> check_domains(["c++", "web/en"])
    ('c++', 'web/en')
    """
    if isinstance(domains, str):
        raise MixtureError(f"domains must be a list of names, got the one string {shown(domains)}")
    names = tuple(domains)
    if not names:
        raise MixtureError("a mixture needs at least one domain, got none")
    for name in names:
        if not isinstance(name, str):
            raise MixtureError(f"domain names must be strings, got {shown(name)} ({type(name).__name__})")
        if len(name) > _MAX_NAME:
            raise MixtureError(f"domain name {name[:40]!r}… has {len(name)} characters, at most {_MAX_NAME}")
        if not name or name != name.strip() or not name.isprintable():
            raise MixtureError(f"domain name {shown(name)} is empty, padded with spaces, or not printable")
    if len(set(names)) < len(names):
        doubled = sorted(name for name, count in Counter(names).items() if count > 1)
        raise MixtureError(f"domain names must be unique, got twice: {listed(doubled)}")
    return names


class Mixture(Mapping[str, float]):
    """Named proportions r with r_i ≥ 0 and Σ r_i = 1 (arXiv 2405.14908, Eq. 1). Immutable and hashable.

    Args:
        proportions: One proportion a domain; they must sum to 1 within 1e-6 and are then rescaled to sum
            to 1 exactly. For weights of any sum use `Mixture.normalized`.

    Raises:
        MixtureError: A name, a proportion or the sum is wrong; the text says which.

    >>> m = Mixture({"code": 0.3, "web": 0.7})
    >>> m["code"], m.domains
    (0.3, ('code', 'web'))
    >>> Mixture({"code": 0.3, "web": 0.6})
    Traceback (most recent call last):
    bimix_tracking.errors.MixtureError: proportions sum to 0.9, not 1. Use Mixture.normalized(...) for
    weights of any sum
    """

    __slots__ = ("_proportions",)

    def __init__(self, proportions: Mapping[str, float]) -> None:
        names = check_domains(proportions)
        values = [_as_proportion(name, proportions[name]) for name in names]
        total = math.fsum(values)
        if abs(total - 1) > SUM_TOLERANCE:
            raise MixtureError(
                f"proportions sum to {total:.6g}, not 1. Use Mixture.normalized(...) for weights of any sum"
            )
        # Dividing by a sum that is 1 but for rounding would turn 0.3 into 0.30000000000000004.
        scale = 1.0 if abs(total - 1) < 1e-15 else total
        self._proportions = {name: value / scale for name, value in zip(names, values, strict=True)}

    @classmethod
    def normalized(cls, weights: Mapping[str, float]) -> Mixture:
        """Return the mixture in proportion to non-negative weights of any sum, such as token counts.

        >>> Mixture.normalized({"code": 1, "web": 3})
        Mixture({'code': 0.25, 'web': 0.75})
        """
        names = check_domains(weights)
        values = [_as_proportion(name, weights[name]) for name in names]
        total = math.fsum(values)
        if total <= 0:
            raise MixtureError("all weights are 0: there is no mixture in proportion to them")
        return cls({name: value / total for name, value in zip(names, values, strict=True)})

    @classmethod
    def uniform(cls, domains: Iterable[str]) -> Mixture:
        """Return the mixture with equal parts of every domain.

        >>> Mixture.uniform(["a", "b"])
        Mixture({'a': 0.5, 'b': 0.5})
        """
        return cls.normalized(dict.fromkeys(check_domains(domains), 1.0))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Mixture:
        """Read the `mixture` entry of a `mixture.yaml` as `analyze` writes it.

        Raises:
            MixtureError: No such file, no mapping `mixture: {domain: proportion}` in it, a name that appears twice, or
                proportions that are no mixture; the text names the file and the entry.
        """
        document = _document(path)
        try:
            return cls(document["mixture"].numbers())
        except MixtureError as error:
            raise MixtureError(f"{path}: {error}") from error

    @property
    def domains(self) -> tuple[str, ...]:
        """The domain names, in the order given."""
        return tuple(self._proportions)

    def array(self, domains: Sequence[str] | None = None) -> np.ndarray:
        """Return the proportions as float64, shape (domains,), in the order of `domains` or in its own.

        Raises:
            MixtureError: `domains` and the mixture's own domains are not the same set.

        >>> Mixture({"code": 0.25, "web": 0.75}).array(["web", "code"])
        array([0.75, 0.25])
        """
        order = self.domains if domains is None else tuple(domains)
        asked = set(order)
        if self._proportions.keys() != asked:
            missing = [name for name in order if name not in self._proportions]
            unknown = [name for name in self._proportions if name not in asked]
            parts = [f"lacks {listed(missing)}"] if missing else []
            parts += [f"has unknown {listed(unknown)}"] if unknown else []
            raise MixtureError(f"the mixture {' and '.join(parts)}; the domains are {listed(order, 20)}")
        return np.array([self._proportions[name] for name in order], dtype=np.float64)

    def __mul__(self, other: Mixture) -> Mixture:
        """Return the perturbation of the simplex: products, rescaled to sum to 1.

        With r = softmax(H) (Eq. 13) it adds entropies, so the mixtures of the proxies obey JE = SE · CE.

        >>> Mixture({"a": 0.5, "b": 0.5}) * Mixture({"a": 0.2, "b": 0.8})
        Mixture({'a': 0.2, 'b': 0.8})
        """
        products = self.array() * other.array(self.domains)
        return Mixture.normalized(dict(zip(self.domains, products.tolist(), strict=True)))

    def __pow__(self, exponent: float) -> Mixture:
        """Return the powering of the simplex: powers, rescaled to sum to 1; 0 < exponent < 1 flattens.

        >>> Mixture({"a": 0.2, "b": 0.8}) ** 0.5
        Mixture({'a': 0.333333, 'b': 0.666667})
        """
        if not (math.isfinite(exponent) and exponent >= 0):
            raise MixtureError(f"the exponent must be finite and not negative, got {exponent!r}")
        powers = self.array() ** exponent
        return Mixture.normalized(dict(zip(self.domains, powers.tolist(), strict=True)))

    def __getitem__(self, domain: str) -> float:
        return self._proportions[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._proportions)

    def __len__(self) -> int:
        return len(self._proportions)

    def __hash__(self) -> int:
        return hash(frozenset(self._proportions.items()))

    def __repr__(self) -> str:
        body = ", ".join(f"{name!r}: {value:.6g}" for name, value in self._proportions.items())
        return f"Mixture({{{body}}})"

    def _repr_html_(self) -> str:
        rows = [[name, percent(share)] for name, share in self._proportions.items()]
        card = Card(f"Mixture of {len(rows)} domains", listing(self), head=["domain", "proportion"], rows=rows)
        return card.html()


@dataclass(frozen=True)
class Advice:
    """What an analysis says of the mixture that it recommends.

    Args:
        verdict: `act`, `inside_noise`, `unchecked` or `unusable`; empty in a file that says none.
        why: The verdict in one sentence.
        warnings: What to know before acting.
    """

    verdict: str = ""
    why: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_yaml(cls, path: str | Path) -> Advice:
        """Read the entries `verdict`, `why` and `warnings` beside the mixture in a `mixture.yaml`.

        Raises:
            MixtureError: As `Mixture.from_yaml`.
        """
        document = _document(path)
        found = document.get("warnings")
        texts = tuple(map(str, found)) if isinstance(found, list) else ()
        return cls(str(document.get("verdict") or ""), str(document.get("why") or ""), texts)

    def heed(self, where: str, *, accept_warnings: bool = False) -> None:
        """Warn of what speaks against the mixture, and refuse it where the verdict does.

        Args:
            where: What it was read from, for the text.
            accept_warnings: Take a mixture that is unusable by its analysis.

        Raises:
            RecommendationError: The mixture is unusable, and that wasn't accepted.
        """
        if self.verdict == "unusable" and not accept_warnings:
            raise RecommendationError(f"{where}: {self.why} To use it all the same, pass accept_warnings=True")
        if self.warnings or self.verdict not in ("", "act"):
            text = " ".join((self.why, *self.warnings))
            warnings.warn(f"{where}: {text}", RecommendationWarning, stacklevel=3)


def _document(path: str | Path) -> Entries:
    try:
        document = load_yaml(read_text(Path(path)))
    except OSError as error:
        raise MixtureError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise MixtureError(f"{path} holds no mapping 'mixture: {{domain: proportion}}': {error}") from error
    if not isinstance(document, Entries) or not isinstance(document.get("mixture"), Entries):
        near = difflib.get_close_matches("mixture", _first_names(document), n=1)
        hint = f". Is {near[0]!r} meant to be 'mixture'?" if near and near[0] != "mixture" else ""
        raise MixtureError(f"{path} holds no mapping 'mixture: {{domain: proportion}}'{hint}")
    return document


def _first_names(document: object, most: int = 100) -> list[str]:
    return [name[:_MAX_NAME] for name in itertools.islice(document, most)] if isinstance(document, Entries) else []


def _as_proportion(name: str, value: object) -> float:
    try:
        # YAML reads `yes` as true, which float() would take for 1.
        number = float(str(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]  # float() judges it
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise MixtureError(f"the proportion of domain {name!r} is not a number: {shown(value)}") from None
    if not math.isfinite(number) or number < 0:
        raise MixtureError(f"the proportion of domain {name!r} must be finite and not negative, got {number}")
    return number
