"""The page of entropies: the mixtures that follow from them, the numbers, and how far they have converged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bimix_tracking.entropy.checks import warnings_of
from bimix_tracking.entropy.comparison import Comparison
from bimix_tracking.entropy.domain_entropies import Compared, Proxy, usual_estimator
from bimix_tracking.entropy.sample_error import Curve
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import MISSING, about, percent, tokens
from bimix_tracking.report import svg
from bimix_tracking.report.language import Language
from bimix_tracking.report.templates import Verbatim, fill
from bimix_tracking.report.texts import printable, shorten

NAMES = {
    "shannon": "Shannon (SE)",
    "joint": "joint (JE)",
    "conditional": "conditional (CE)",
    "von_neumann": "von Neumann (VNE)",
}
"""Proxies as a reader sees them."""
Errors = Mapping[Proxy, Mapping[str, float]]
SHADES = 6
_MOST_CURVES = 30


class Cell(NamedTuple):
    """A domain's entropy by one proxy, as it is printed."""

    entropy: str
    error: str
    doubling: str
    settled: bool
    other: str


class Row(NamedTuple):
    """A domain, as it is printed."""

    domain: str
    documents: str
    tokens: str
    cells: tuple[Cell, ...]
    shares: tuple[str, ...]
    share_errors: tuple[str, ...]


def render(one: Comparison) -> str:
    """Return the HTML page.

    Args:
        one: What all of it is of: the mixtures by proxy, as they are recommended for a pilot, and their entropies.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
    """
    found, mixtures = one.found, one.mixtures()
    errors = {proxy: one.proportion_errors(proxy) for proxy in mixtures}
    return fill(
        "entropies.html.j2",
        Language(),
        title="Entropy of the domains' text",
        answer=answer(mixtures),
        found=found,
        one=one,
        sampled=one.sampled("shannon"),
        names=[NAMES[proxy] for proxy in found.proxies],
        rows=[_row(one, mixtures, errors, domain) for domain in found.domains],
        warnings=[*warnings_of(one)],
        facts=_facts(one),
        shares=Verbatim(proportions(mixtures, errors)),
        panels=[Verbatim(convergence(one, proxy)) for proxy in found.proxies],
        legend=[(name, _shade(number, len(found.domains))) for number, name in enumerate(found.domains)][:_MOST_CURVES],
        shades=SHADES,
    )


def answer(mixtures: Mapping[Proxy, Mixture]) -> str:
    """Return the page's first sentence."""
    mixture = mixtures["conditional"]
    most = sorted(mixture, key=lambda name: -mixture[name])
    shown = ", ".join(f"{shorten(printable(name), 40)} {about(mixture[name])}" for name in most[:6])
    rest = f", and {len(most) - 6} more" if len(most) > 6 else ""
    return f"Mixture without training, by conditional entropy: {shown}{rest}"


def proportions(mixtures: Mapping[Proxy, Mixture], errors: Errors) -> str:
    """Return the figure of the mixtures: a row a domain and proxy, with two standard errors to either side."""
    wide, left, right, row, top, gap = 940.0, 210.0, 860.0, 18.0, 24.0, 10.0
    names = list(mixtures["conditional"])
    values = [share for mixture in mixtures.values() for share in mixture.values()]
    block = row * len(mixtures) + gap
    bottom = top + block * len(names)
    x = svg.linear([0.0, *values], left, right, most=8, inside=(0, 1), show=lambda v, _: f"{100 * v:.0f} %")
    parts = []
    for tick in x.ticks:
        parts += [svg.line(x.at(tick), top - 6, x.at(tick), bottom, "grid")]
        parts += [svg.label(x.at(tick), bottom + 14, x.show(tick), anchor="middle")]
    for number, name in enumerate(names):
        y = top + block * number
        parts.append(svg.label(left - 50, y + block / 2 - gap / 2 + 4, name, cls="name", anchor="end", most=18))
        for place, proxy in enumerate(mixtures):
            at, share, error = y + row * (place + 0.5), mixtures[proxy][name], errors[proxy][name]
            short = NAMES[proxy].rpartition("(")[2].rstrip(")")
            parts.append(svg.label(left - 8, at + 4, short, anchor="end"))
            parts.append(svg.line(x.at(0), at, x.at(share), at, "bar"))
            if not math.isnan(error):
                low, high = max(share - 2 * error, 0), min(share + 2 * error, x.high)
                parts.append(svg.line(x.at(low), at, x.at(high), at, "error"))
            parts.append(svg.label(right + 72, at + 4, percent(share), anchor="end"))
    parts.append(svg.label((left + right) / 2, bottom + 32, "proportion of the mixture", cls="unit", anchor="middle"))
    said = "; ".join(
        f"{NAMES[proxy]}: "
        + ", ".join(f"{shorten(printable(name), 40)} {percent(share)}" for name, share in mixture.items())
        for proxy, mixture in mixtures.items()
    )
    return svg.picture(wide, bottom + 42, f"Mixtures by entropy. {said}", parts)


def convergence(one: Comparison, proxy: Proxy) -> str:
    """Return the panel of a proxy: its entropy against the size of the sample, a curve a domain."""
    wide, high, left, right, top, bottom = 320.0, 236.0, 52.0, 308.0, 34.0, 194.0
    curves: list[tuple[str, Curve]] = []
    for name in one.found.domains:
        curve = one.curve(proxy, name)
        if curve is not None:
            curves.append((name, curve))
    x = svg.logarithmic([size for _, curve in curves for size in curve.sizes], left, right, tokens)
    y = svg.linear([value for _, curve in curves for value in curve.values], bottom, top)
    unit = "passages" if proxy == "von_neumann" else "tokens"
    parts = [svg.label(left, 16, NAMES[proxy], cls="head"), *svg.frame(x, y, f"{unit}, log scale", "entropy, nats")]
    for number, (name, curve) in enumerate(curves[:_MOST_CURVES]):
        points = [(x.at(size), y.at(value)) for size, value in zip(curve.sizes, curve.values, strict=True)]
        shade = _shade(number, len(curves))
        parts.append(svg.polyline(points, f"curve {shade}"))
        tips = [
            f"{shorten(printable(name), 40)}: {value:.3f} nats at {tokens(size)} {unit}"
            for size, value in zip(curve.sizes, curve.values, strict=True)
        ]
        parts += [svg.circle(*at, 2.6, f"dot {shade}", tip) for at, tip in zip(points, tips, strict=True)]
    return svg.picture(wide, high, f"{NAMES[proxy]} entropy against {unit}, {len(curves)} domains", parts)


def _shade(number: int, count: int) -> str:
    """Return the class of a domain's colour: as far from the others' as there are shades."""
    return f"s{(number * (SHADES - 1)) // max(count - 1, 1) if count <= SHADES else number % SHADES}"


def _row(one: Comparison, mixtures: Mapping[Proxy, Mixture], errors: Errors, domain: str) -> Row:
    found, measured = one.found, one.found.domains[domain]
    compare: Compared = "all" if one.compare == "equal" else "equal"
    other = Comparison(found, compare, usual_estimator(compare))
    cells = []
    for proxy in found.proxies:
        curve = one.curve(proxy, domain)
        if curve is not None:
            doubling = MISSING if math.isnan(curve.drift) else f"{curve.drift:+.3f}".replace("-", "−")
            entropy, error = one.entropies(proxy)[domain], one.errors(proxy)[domain]
            shown = MISSING if math.isnan(error) else f"{error:.3f}"
            beside = f"{other.entropies(proxy)[domain]:.3f}"
            cells.append(Cell(f"{entropy:.3f}", shown, doubling, curve.converged, beside))
    of_shares = [errors[proxy][domain] for proxy in found.proxies]
    return Row(
        domain=printable(domain),
        documents=f"{measured.documents:,}",
        tokens=tokens(measured.tokens),
        cells=tuple(cells),
        shares=tuple(percent(mixtures[proxy][domain]) for proxy in found.proxies),
        share_errors=tuple(MISSING if math.isnan(error) else f"{100 * error:.2f}" for error in of_shares),
    )


def _facts(one: Comparison) -> list[tuple[str, str]]:
    found = one.found
    sequences = f"of {found.sequence_length} tokens" if found.sequence_length else "a document each"
    facts = [
        ("tokens are", found.tokenizer),
        ("sequences", f"{sequences}; pairs don't cross their ends"),
        ("compared by", f"{one.sample()} Samples are drawn at random, seed {found.seed}."),
    ]
    if found.embedder:
        facts.append(("embeddings are", found.embedder))
    everything = ", ".join(f"{printable(name)} {tokens(d.tokens)}" for name, d in found.domains.items())
    return [*facts, ("all tokens", everything)]
