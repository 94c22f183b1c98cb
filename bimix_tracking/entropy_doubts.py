"""What to doubt of entropies that were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bimix_tracking.convergence import MOST_DRIFT

if TYPE_CHECKING:
    from bimix_tracking.entropy_result import CorpusEntropies, Proxy

_MANY_COPIES = 0.1


def doubts(entropies: CorpusEntropies) -> Iterator[str]:
    """Yield what may make entropies wrong, in sentences: overlaps, unreadable input, small samples."""
    for one, other, share in entropies.overlaps:
        yield (
            f"domains {one!r} and {other!r} share documents: about {100 * share:.0f} % of those of the smaller one are "
            "in both. What is in two domains counts twice; take it out of one"
        )
    for name, found in entropies.domains.items():
        if found.unreadable:
            first = f", the first: {found.problems[0]}" if found.problems else ""
            yield f"domain {name!r}: {found.unreadable} documents could not be read and were left out{first}"
        if found.copies >= _MANY_COPIES:
            yield (
                f"domain {name!r}: about {100 * found.copies:.0f} % of its documents are copies of others in it, which "
                "lowers its conditional entropy; remove them first if training will not see them"
            )
    smallest = min(entropies.domains, key=lambda name: entropies.domains[name].tokens)
    if entropies.domains[smallest].tokens <= entropies.tokens:
        yield (
            f"domain {smallest!r} has {entropies.domains[smallest].tokens:,} tokens, so domains are compared by that "
            "many: with more of it, or without it, the others could be told better"
        )
    for proxy in entropies.proxies:
        yield from _unsettled(entropies, proxy)


def _unsettled(entropies: CorpusEntropies, proxy: Proxy) -> Iterator[str]:
    curves = {name: found.curve(proxy) for name, found in entropies.domains.items()}
    moving = {name: c for name, c in curves.items() if c and not c.converged and not math.isnan(c.drift)}
    unknown = [name for name, curve in curves.items() if curve and math.isnan(curve.drift)]
    called, unit = proxy.replace("von_neumann", "von Neumann"), "passages" if proxy == "von_neumann" else "tokens"
    if unknown:
        yield f"{called} entropy: {unknown[0]!r} has too few {unit} to tell whether it has converged"
    if not moving:
        return
    worst = max(moving, key=lambda name: abs(moving[name].drift))
    text = (
        f"{called} entropy has not converged in {len(moving)} of {len(curves)} domains: the last doubling of {unit} "
        f"moved that of {worst!r} by {moving[worst].drift:+.2f} nats (limit {MOST_DRIFT})"
    )
    before, now = entropies.halved(proxy), entropies.mixture(proxy)
    if before is not None:
        moved = {name: now[name] / before[name] - 1 for name in now}
        most = max(moved, key=lambda name: abs(moved[name]))
        text += f". It moved the proportion of {most!r} most, by {100 * moved[most]:+.0f} % of itself"
    yield text
