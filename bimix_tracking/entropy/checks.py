"""Warnings of a table of entropies: domains that overlap, unreadable or repeated documents, samples too small."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bimix_tracking.entropy.comparison import Comparison
from bimix_tracking.entropy.domain_entropies import TERMS, Proxy, unit_of
from bimix_tracking.entropy.sample_error import MOST_DRIFT
from bimix_tracking.messages import said

_MANY_COPIES = 0.1
_LIKE = 1.1
"""Sizes that differ by less are taken for equal."""


def warnings_of(one: Comparison) -> Iterator[str]:
    """Yield what may make entropies wrong, in sentences: overlaps, unreadable input, small samples."""
    found = one.found
    for first, other, share in found.overlaps:
        yield said(
            "domains {first!r} and {other!r} share documents: about {share:.0f} % of those of the smaller one are in "
            "both. They count twice; remove them from one",
            first=first,
            other=other,
            share=100 * share,
        )
    for name, domain in found.domains.items():
        if domain.unreadable:
            fields = {"domain": name, "count": domain.unreadable}
            if domain.problems:
                yield said(
                    "domain {domain!r}: {count} unreadable documents were excluded, the first: {problem}",
                    problem=domain.problems[0],
                    **fields,
                )
            else:
                yield said("domain {domain!r}: {count} unreadable documents were excluded", **fields)
        if domain.copies >= _MANY_COPIES:
            yield said(
                "domain {domain!r}: about {share:.0f} % of its documents are copies, which lowers its conditional "
                "entropy. Remove them if training won't use them",
                domain=name,
                share=100 * domain.copies,
            )
    yield from _sizes(one)
    for proxy in found.proxies:
        yield from _unsettled(one, proxy)


def _sizes(one: Comparison) -> Iterator[str]:
    tokens = {name: domain.tokens for name, domain in one.found.domains.items()}
    smallest, largest = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])
    if not one.sampled("shannon"):
        if tokens[largest] > _LIKE * tokens[smallest]:
            yield said(
                "domains are compared by all their tokens, {fewest:,} of {smallest!r} and {most:,} of {largest!r}. "
                "Entropies are biased low, more so with fewer tokens: compare samples of equal size (compare: equal)",
                smallest=smallest,
                largest=largest,
                fewest=tokens[smallest],
                most=tokens[largest],
            )
    elif tokens[smallest] <= one.found.tokens:
        yield said(
            "domain {domain!r} has {count:,} tokens, so all domains are compared by samples of that size. More tokens "
            "of it would sharpen the comparison",
            domain=smallest,
            count=tokens[smallest],
        )


def _unsettled(one: Comparison, proxy: Proxy) -> Iterator[str]:
    curves = {name: one.curve(proxy, name) for name in one.found.domains}
    moving = {name: c for name, c in curves.items() if c and not c.converged and not math.isnan(c.drift)}
    unknown = [name for name, curve in curves.items() if curve and math.isnan(curve.drift)]
    fields: dict[str, object] = {"entropy": TERMS[proxy], "unit": unit_of(proxy)}
    if unknown:
        yield said(
            "{entropy}: {domain!r} has too few {unit} to judge convergence",
            domain=unknown[0],
            **fields,
        )
    if not moving:
        return
    worst = max(moving, key=lambda name: abs(moving[name].drift))
    fields |= {"count": len(moving), "all": len(curves), "domain": worst, "limit": MOST_DRIFT}
    fields["drift"] = f"{moving[worst].drift:+.2f}".replace("-", "−")
    size = one.found.passages if proxy == "von_neumann" else one.found.tokens
    if one.sampled(proxy):
        text = said(
            "{entropy} has not converged in {count} of {all} domains. The last doubling of {unit} moved that of "
            "{domain!r} by {drift} nats (limit {limit})",
            **fields,
        )
    else:
        text = said(
            "{entropy} has not converged in samples of {size:,} {unit}, in {count} of {all} domains. The last "
            "doubling of {unit} moved that of {domain!r} by {drift} nats (limit {limit})",
            size=size,
            **fields,
        )
    before, now = one.halved(proxy), one.mixture(proxy)
    if before is None:
        yield text
        return
    moved = {name: now[name] / before[name] - 1 for name in now}
    most = max(moved, key=lambda name: abs(moved[name]))
    yield said(
        "{text}. It changed the proportion of {domain!r} most, by {share} %",
        text=text,
        domain=most,
        share=f"{100 * moved[most]:+.0f}".replace("-", "−"),
    )
