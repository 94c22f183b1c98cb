"""What a mixture's file is written from, what it says of itself, and what a format is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bimix_tracking.errors import MixtureError, did_you_mean, shown
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import tokens


@dataclass(frozen=True)
class Request:
    """What a format is written from: proportions above 0, unless a trainer takes 0 for what it is."""

    mixture: Mixture
    paths: Mapping[str, str]
    tokens: float | None
    provenance: str | None

    @property
    def used(self) -> dict[str, float]:
        """The domains with a proportion above 0."""
        return {domain: share for domain, share in self.mixture.items() if share > 0}

    def path(self, domain: str) -> str:
        """Return where a domain's data are; its name where that wasn't said."""
        return self.paths.get(domain, domain)

    def named(self) -> dict[str, float]:
        """Return all proportions, by the names that the trainer has for the domains."""
        return {self.path(domain): share for domain, share in self.mixture.items()}

    def refuse_references(self, reader: str) -> None:
        """Refuse a name that OmegaConf would resolve; a path that was given may be meant so."""
        for domain in self.used:
            if domain not in self.paths and "${" in domain:
                raise MixtureError(
                    f"{reader} resolves ${{…}} as a reference, so domain {domain!r} needs the path of its data: "
                    "give it with --path"
                )

    def said(self, *notes: str, places: bool = True, zeros: bool = False) -> list[str]:
        """Return the lines above a file: order, excluded domains, placeholders, tokens, provenance."""
        used = self.used
        order = list(self.mixture if zeros else used)
        lines = [f"domain order: {json.dumps(order, ensure_ascii=False)}"]
        excluded = [] if zeros else [domain for domain in self.mixture if domain not in used]
        if excluded:
            lines.append(f"excluded, with a proportion of 0: {json.dumps(excluded, ensure_ascii=False)}")
        if places and any(domain not in self.paths for domain in used):
            lines.append("a domain's name replaces the path of its data where no --path is given")
        lines += notes
        if self.tokens is not None:
            lines.append(f"for a run of {tokens(self.tokens)} tokens")
        if self.provenance:
            printable = "".join(c if c.isprintable() else " " for c in self.provenance)
            lines.append(f"from {' '.join(printable.split())}")
        return lines

    def commented(self, body: str, *notes: str, places: bool = True, zeros: bool = False) -> str:
        """Return a text with these lines above it as comments."""
        return "".join(f"# {line}\n" for line in self.said(*notes, places=places, zeros=zeros)) + body


@dataclass(frozen=True)
class Format:
    """One way to write a mixture.

    Args:
        file: What the file is called.
        about: What reads it, and where its schema is from.
        write: Returns its text; raises `MixtureError` where the trainer cannot have one of the names.
    """

    file: str
    about: str
    write: Callable[[Request], str]


def checked(mixture: Mixture, paths: Mapping[str, str] | None, tokens: float | None, provenance: str | None) -> Request:
    """Return the request, or say which path or number cannot be.

    Raises:
        MixtureError: A path of an unknown domain, or of two, or that is none; or tokens that are no positive number.
    """
    domains: dict[str, str] = {}
    for domain, path in (paths or {}).items():
        if domain not in mixture:
            raise MixtureError(f"a path of unknown domain {shown(domain)}; {did_you_mean(domain, mixture)}")
        if not path or path != path.strip() or not path.isprintable():
            raise MixtureError(f"the path {shown(path)} of domain {domain!r} is empty, padded, or not printable")
    for domain in mixture:
        path = (paths or {}).get(domain, domain)
        if path in domains:
            raise MixtureError(f"domains {domains[path]!r} and {domain!r} have the same path {path!r}")
        domains[path] = domain
    if tokens is not None and not (math.isfinite(tokens) and tokens > 0):
        raise MixtureError(f"the tokens of the run must be a positive number, got {tokens!r}")
    return Request(mixture, paths or {}, tokens, provenance)
