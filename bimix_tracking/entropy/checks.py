"""Warnings of a table of entropies: domains that overlap, unreadable or repeated documents, samples too small."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bimix_tracking.entropy.comparison import Comparison
from bimix_tracking.entropy.domain_entropies import Proxy
from bimix_tracking.entropy.sample_error import MOST_DRIFT

_MANY_COPIES = 0.1
_LIKE = 1.1
"""Sizes that differ by less are taken for equal."""


def warnings_of(one: Comparison) -> Iterator[str]:
    """Yield what may make entropies wrong, in sentences: overlaps, unreadable input, small samples."""
    found = one.found
    for first, other, share in found.overlaps:
        yield (
            f"domains {first!r} and {other!r} share documents: about {100 * share:.0f} % of those of the smaller one "
            "are in both. What is in two domains counts twice; take it out of one"
        )
    for name, domain in found.domains.items():
        if domain.unreadable:
            example = f", the first: {domain.problems[0]}" if domain.problems else ""
            yield f"domain {name!r}: {domain.unreadable} documents could not be read and were left out{example}"
        if domain.copies >= _MANY_COPIES:
            yield (
                f"domain {name!r}: about {100 * domain.copies:.0f} % of its documents are copies of others in it, "
                "which lowers its conditional entropy; remove them first if training will not see them"
            )
    yield from _sizes(one)
    for proxy in found.proxies:
        yield from _unsettled(one, proxy)


def _sizes(one: Comparison) -> Iterator[str]:
    tokens = {name: domain.tokens for name, domain in one.found.domains.items()}
    smallest, largest = min(tokens, key=lambda name: tokens[name]), max(tokens, key=lambda name: tokens[name])
    if not one.sampled("shannon"):
        if tokens[largest] > _LIKE * tokens[smallest]:
            yield (
                f"domains are compared by all their tokens, {tokens[smallest]:,} of {smallest!r} and "
                f"{tokens[largest]:,} of {largest!r}: an entropy comes out too low, and of fewer tokens by more. "
                "Samples of equal size can be compared (compare: equal)"
            )
    elif tokens[smallest] <= one.found.tokens:
        yield (
            f"domain {smallest!r} has {tokens[smallest]:,} tokens, so domains are compared by that "
            "many: with more of it, or without it, the others could be told better"
        )


def _unsettled(one: Comparison, proxy: Proxy) -> Iterator[str]:
    curves = {name: one.curve(proxy, name) for name in one.found.domains}
    moving = {name: c for name, c in curves.items() if c and not c.converged and not math.isnan(c.drift)}
    unknown = [name for name, curve in curves.items() if curve and math.isnan(curve.drift)]
    called, unit = proxy.replace("von_neumann", "von Neumann"), "passages" if proxy == "von_neumann" else "tokens"
    if unknown:
        yield f"{called} entropy: {unknown[0]!r} has too few {unit} to tell whether it has converged"
    if not moving:
        return
    worst = max(moving, key=lambda name: abs(moving[name].drift))
    size = one.found.passages if proxy == "von_neumann" else one.found.tokens
    where = "" if one.sampled(proxy) else f" in samples of {size:,} {unit}"
    text = (
        f"{called} entropy has not converged{where} in {len(moving)} of {len(curves)} domains: the last doubling of "
        f"{unit} moved that of {worst!r} by {moving[worst].drift:+.2f} nats (limit {MOST_DRIFT})"
    )
    before, now = one.halved(proxy), one.mixture(proxy)
    if before is not None:
        moved = {name: now[name] / before[name] - 1 for name in now}
        most = max(moved, key=lambda name: abs(moved[name]))
        text += f". It moved the proportion of {most!r} most, by {100 * moved[most]:+.0f} % of itself"
    yield text
