"""The page of entropies: the mixtures that follow from them, the numbers, and how far they have converged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bimix_tracking.display import svg
from bimix_tracking.display.texts import listing, printable, shorten
from bimix_tracking.entropy.checks import warnings_of
from bimix_tracking.entropy.comparison import Comparison
from bimix_tracking.entropy.domain_entropies import TERMS, Compared, Proxy, unit_of, usual_estimator
from bimix_tracking.entropy.sample_error import Curve
from bimix_tracking.messages import joined, said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import MISSING, percent, tokens
from bimix_tracking.report.language import Language
from bimix_tracking.report.templates import Verbatim, fill

NAMES: Mapping[Proxy, str] = {
    "shannon": said("Shannon (SE)"),
    "joint": said("joint (JE)"),
    "conditional": said("conditional (CE)"),
    "von_neumann": said("von Neumann (VNE)"),
}
"""Proxies as a reader sees them."""
_SHORT: Mapping[Proxy, str] = {"shannon": "SE", "joint": "JE", "conditional": "CE", "von_neumann": "VNE"}
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


def render(one: Comparison, lang: str = "en") -> str:
    """Return the HTML page.

    Args:
        one: What all of it is of: the mixtures by proxy, as they are recommended for a pilot, and their entropies.
        lang: Its language: `en`, `ja` or one that a package adds.

    Raises:
        MissingDependencyError: Jinja2 isn't installed.
        ValueError: There is no such language.
    """
    found, mixtures, say = one.found, one.mixtures(), Language(lang)
    errors = {proxy: one.proportion_errors(proxy) for proxy in mixtures}
    return fill(
        "entropies.html.j2",
        say,
        answer=answer(mixtures),
        found=found,
        sample=one.sample(),
        sampled=one.sampled("shannon"),
        names=[NAMES[proxy] for proxy in found.proxies],
        rows=[_row(one, mixtures, errors, domain) for domain in found.domains],
        warnings=[*warnings_of(one)],
        facts=_facts(one),
        shares=Verbatim(proportions(mixtures, errors, say)),
        panels=[Verbatim(convergence(one, proxy, say)) for proxy in found.proxies],
        legend=[(name, _shade(number, len(found.domains))) for number, name in enumerate(found.domains)][:_MOST_CURVES],
        shades=SHADES,
    )


def answer(mixtures: Mapping[Proxy, Mixture]) -> str:
    """Return the page's first sentence."""
    return said("Mixture without training, by conditional entropy: {mixture}", mixture=listing(mixtures["conditional"]))


def proportions(mixtures: Mapping[Proxy, Mixture], errors: Errors, say: Language) -> str:
    """Return the figure of the mixtures: a row a domain and proxy, with two standard errors to either side."""
    wide, left, right, row, top, gap = 940.0, 210.0, 860.0, 18.0, 24.0, 10.0
    names = list(mixtures["conditional"])
    values = [share for mixture in mixtures.values() for share in mixture.values()]
    block = row * len(mixtures) + gap
    bottom = top + block * len(names)
    x = svg.linear([0.0, *values], left, right, most=8, inside=(0, 1), show=lambda v, _: say(f"{100 * v:.0f} %"))
    parts = []
    for tick in x.ticks:
        parts += [svg.line(x.at(tick), top - 6, x.at(tick), bottom, "grid")]
        parts += [svg.label(x.at(tick), bottom + 14, x.show(tick), anchor="middle")]
    for number, name in enumerate(names):
        y = top + block * number
        parts.append(svg.label(left - 50, y + block / 2 - gap / 2 + 4, name, cls="name", anchor="end", most=18))
        for place, proxy in enumerate(mixtures):
            at, share, error = y + row * (place + 0.5), mixtures[proxy][name], errors[proxy][name]
            parts.append(svg.label(left - 8, at + 4, _SHORT[proxy], anchor="end"))
            parts.append(svg.line(x.at(0), at, x.at(share), at, "bar"))
            if not math.isnan(error):
                low, high = max(share - 2 * error, 0), min(share + 2 * error, x.high)
                parts.append(svg.line(x.at(low), at, x.at(high), at, "error"))
            parts.append(svg.label(right + 72, at + 4, say(percent(share)), anchor="end"))
    unit = say(said("proportion of the mixture"))
    parts.append(svg.label((left + right) / 2, bottom + 32, unit, cls="unit", anchor="middle"))
    by_entropy = [
        said("{entropy}: {mixture}", entropy=TERMS[proxy], mixture=listing(mixture))
        for proxy, mixture in mixtures.items()
    ]
    title = said("Mixtures by entropy. {mixtures}", mixtures=joined(by_entropy, "; "))
    return svg.picture(wide, bottom + 42, say(title), parts)


def convergence(one: Comparison, proxy: Proxy, say: Language) -> str:
    """Return the panel of a proxy: its entropy against the size of the sample, a curve a domain."""
    wide, high, left, right, top, bottom = 320.0, 236.0, 52.0, 308.0, 34.0, 194.0
    curves: list[tuple[str, Curve]] = []
    for name in one.found.domains:
        curve = one.curve(proxy, name)
        if curve is not None:
            curves.append((name, curve))
    sizes = [size for _, curve in curves for size in curve.sizes]
    x = svg.logarithmic(sizes, left, right, lambda size: say(tokens(size)))
    y = svg.linear([value for _, curve in curves for value in curve.values], bottom, top)
    unit = unit_of(proxy)
    titles = say(said("{unit}, log scale", unit=unit)), say(said("entropy, nats"))
    parts = [svg.label(left, 16, say(NAMES[proxy]), cls="head"), *svg.frame(x, y, *titles)]
    for number, (name, curve) in enumerate(curves[:_MOST_CURVES]):
        points = [(x.at(size), y.at(value)) for size, value in zip(curve.sizes, curve.values, strict=True)]
        shade = _shade(number, len(curves))
        parts.append(svg.polyline(points, f"curve {shade}"))
        for at, size, value in zip(points, curve.sizes, curve.values, strict=True):
            tip = said(
                "{domain}: {entropy} nats at {size} {unit}",
                domain=shorten(printable(name), 40),
                entropy=f"{value:.3f}",
                size=tokens(size),
                unit=unit,
            )
            parts.append(svg.circle(*at, 2.6, f"dot {shade}", say(tip)))
    title = said("{entropy} against {unit}, {count} domains", entropy=TERMS[proxy], unit=unit, count=len(curves))
    return svg.picture(wide, high, say(title), parts)


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
    sequences = said("a document each; pairs don't cross their ends")
    if found.sequence_length:
        sequences = said("of {length} tokens; pairs don't cross their ends", length=found.sequence_length)
    drawn = said("Samples are drawn at random, seed {seed}.", seed=found.seed)
    facts = [
        (said("tokenizer"), found.tokenizer),
        (said("sequences"), sequences),
        (said("compared by"), joined([one.sample(), drawn])),
    ]
    if found.embedder:
        facts.append((said("embedder"), found.embedder))
    everything = [
        said("{domain} {tokens}", domain=printable(name), tokens=tokens(domain.tokens))
        for name, domain in found.domains.items()
    ]
    return [*facts, (said("all tokens"), joined(everything, ", "))]
