"""What a report says of the decision: how sure it is, how free, what binds it, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bimix_tracking.decision import between
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.report.numbers import MISSING, about, listing, nats, percent, printable, tokens
from bimix_tracking.worth import Worth

_FREE = 0.01
"""A proportion that differs by less than a percentage point is the same to whoever runs it."""


@dataclass(frozen=True)
class LawChoice:
    """What one law of the ensemble would recommend."""

    law: str
    shares: tuple[str, ...]


def verdict(rec: Recommendation) -> str:
    """Return the first words of the answer where the gain is inside the noise; nothing where it isn't."""
    if not rec.inside_noise:
        return ""
    if rec.gain <= 0:
        return "Nothing to win over the reference, by the fitted law. "
    if rec.uncertainty is not None and rec.uncertainty.gain[0] > 0:
        return "The gain is inside the noise of a single run: one run of each mixture could not show it. "
    return "The gain is inside the noise: this sweep doesn't show that the recommended mixture beats the reference. "


def sureness(rec: Recommendation) -> str:
    """Return the gain's interval, the probability and what more runs could win, in words."""
    sure = rec.uncertainty
    if sure is None:
        return (
            "How sure this is can't be said: drawing whole runs again takes at least three runs whose refits succeed."
        )
    low, high = sure.gain
    return (
        f"{100 * sure.level:.0f} % interval of the gain: {nats(low)} to {nats(high)} nats. The probability that the "
        f"recommended mixture's expected loss is below the reference's is {_probability(sure.probability)}. What more "
        f"runs could still win is about {nats(sure.regret)} nats. (From {sure.replicates} refits to whole runs drawn "
        "again; that the law's form may be wrong isn't in it.)"
    )


def freedom(rec: Recommendation) -> str:
    """Return how free the choice is, in words; nothing where that wasn't measured."""
    if rec.near_optimal is None:
        return ""
    extents = {domain: between(rec.near_optimal.extent, domain) for domain in rec.mixture}
    widest = max(extents, key=lambda d: extents[d][1] - extents[d][0])
    low, high = extents[widest]
    if high - low < _FREE:
        return (
            f"The choice is tight: within {nats(rec.near_optimal.tolerance)} nats of the best (one run's standard "
            "deviation about the law) no proportion moves by a percentage point."
        )
    return (
        f"Within {nats(rec.near_optimal.tolerance)} nats of the best, one run's standard deviation about the law, each "
        f"proportion may lie anywhere in the column “nearly as good”: {printable(widest)}, the freest, from "
        f"{about(low)} to {about(high)}, if the others then make the best of it."
    )


def constrained(rec: Recommendation) -> Iterator[str]:
    """Return what the constraints are and what they cost, a line each; nothing where there are none."""
    for domain, why in rec.binding.items():
        yield printable(f"domain {domain!r} is {why} nats")
    if rec.prior is not None:
        yield (
            f"the mixture is kept near the prior ({listing(rec.prior, most=3)}) at {rec.prior_strength:g} nats of loss "
            "per nat of divergence"
        )
    if rec.binding or rec.prior is not None:
        yield (
            f"without constraints the law would take {listing(rec.unconstrained)}, and win {nats(rec.constraint_cost)} "
            "nats more"
        )


def savings(found: Worth) -> str:
    """Return what is saved at equal loss and how that compares with the pilot, in words."""
    whole = f"{tokens(found.tokens)} tokens"
    interval = "" if found.interval is None else f" ({100 * found.level:.0f} % interval {_range(found.interval)})"
    fewer = f"{percent(found.fraction)} fewer tokens{interval} than the reference at {whole}"
    said = [f"At equal loss the recommended mixture needs {fewer}: {_quantities(found)} saved."]
    if found.fraction <= 0:
        said = [f"At equal loss nothing is saved against the reference at {whole}{interval}."]
    pilot = found.pilot_gpu_hours
    if pilot is not None:
        price = found.money(pilot)
        spent = f"The pilot's {found.runs} runs took {pilot:,.4g} GPU-hours" + _for(price)
        net = found.net_gpu_hours
        if net is not None:
            said.append(f"{spent}; the net is {net:+,.4g} GPU-hours{_for(found.money(net))}.")
        elif math.isfinite(found.break_even_gpu_hours or math.inf):
            said.append(f"{spent}: it pays for itself if the run takes more than {found.break_even_gpu_hours:,.4g}.")
        else:
            said.append(f"{spent}, and nothing is saved to set against them.")
    return " ".join(said)


def law_choices(rec: Recommendation) -> Iterator[LawChoice]:
    """Return each law's own optimum, where the recommendation is of several laws."""
    for law, mixture in rec.by_law.items():
        yield LawChoice(law, tuple(percent(mixture[d]) for d in rec.mixture))


def interval(rec: Recommendation, domain: str) -> str:
    """Return the interval of a domain's proportion."""
    return _ends(rec.interval, domain) if rec.interval is not None else MISSING


def extent(rec: Recommendation, domain: str) -> str:
    """Return how far a domain's proportion can move at nearly the same loss."""
    return _ends(rec.near_optimal.extent, domain) if rec.near_optimal is not None else MISSING


def _ends(table: pd.DataFrame, domain: str) -> str:
    low, high = between(table, domain)
    return f"{100 * low:.1f}–{100 * high:.1f} %"


def _probability(value: float) -> str:
    return "above 99 %" if value > 0.99 else "below 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def _range(ends: tuple[float, float]) -> str:
    low, high = (f"{100 * v:.1f}" if v > -10 else "below −1000" for v in ends)
    return f"{low} to {high} %".replace("-", "−")


def _quantities(found: Worth) -> str:
    parts = [f"{tokens(found.tokens_saved)} tokens"]
    if found.steps_saved is not None:
        parts.append(f"{found.steps_saved:,.0f} steps")
    if found.gpu_hours_saved is not None:
        parts.append(f"{found.gpu_hours_saved:,.4g} GPU-hours{_for(found.money(found.gpu_hours_saved))}")
    return ", ".join(parts)


def _for(price: float | None) -> str:
    return "" if price is None else f" (price {price:,.0f})"
