"""What a report says of the decision: how sure it is, how free, what binds it, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bimix_tracking.decision import between
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.report.numbers import MISSING, about, listing, nats, percent, printable, tokens
from bimix_tracking.wording import joined, said
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
        return said("Nothing to win over the reference, by the fitted law.")
    if rec.uncertainty is not None and rec.uncertainty.gain[0] > 0:
        return said("The gain is inside the noise of a single run: one run of each mixture could not show it.")
    return said(
        "The gain is inside the noise: this sweep doesn't show that the recommended mixture beats the reference."
    )


def sureness(rec: Recommendation) -> str:
    """Return the gain's interval, the probability and what more runs could win, in words."""
    sure = rec.uncertainty
    if sure is None:
        return said(
            "How sure this is can't be said: that takes refits to whole runs drawn again, of at least three runs, and "
            "there are none."
        )
    low, high = sure.gain
    return said(
        "{level:.0f} % interval of the gain: {low} to {high} nats. The probability that the recommended mixture's "
        "expected loss is below the reference's is {probability}. What more runs could still win is about {regret} "
        "nats. (From {replicates} refits to whole runs drawn again; that the law's form may be wrong isn't in it.)",
        level=100 * sure.level,
        low=nats(low),
        high=nats(high),
        probability=probability(sure.probability),
        regret=nats(sure.regret),
        replicates=sure.replicates,
    )


def freedom(rec: Recommendation) -> str:
    """Return how free the choice is, in words; nothing where that wasn't measured."""
    if rec.near_optimal is None:
        return ""
    extents = {domain: between(rec.near_optimal.extent, domain) for domain in rec.mixture}
    widest = max(extents, key=lambda d: extents[d][1] - extents[d][0])
    low, high = extents[widest]
    if high - low < _FREE:
        return said(
            "The choice is tight: within {tolerance} nats of the best (one run's standard deviation about the law) no "
            "proportion moves by a percentage point.",
            tolerance=nats(rec.near_optimal.tolerance),
        )
    return said(
        "Within {tolerance} nats of the best, one run's standard deviation about the law, each proportion may lie "
        "anywhere in the column “nearly as good”: {domain}, the freest, from {low} to {high}, if the others then make "
        "the best of it.",
        tolerance=nats(rec.near_optimal.tolerance),
        domain=printable(widest),
        low=about(low),
        high=about(high),
    )


def constrained(rec: Recommendation) -> Iterator[str]:
    """Return what the constraints are and what they cost, a line each; nothing where there are none."""
    for domain, why in rec.binding.items():
        yield printable(said("domain {domain!r} is {why} nats", domain=domain, why=why))
    if rec.prior is not None:
        yield said(
            "the mixture is kept near the prior ({prior}) at {strength:g} nats of loss per nat of divergence",
            prior=listing(rec.prior, most=3),
            strength=rec.prior_strength,
        )
    if rec.binding or rec.prior is not None:
        yield said(
            "without constraints the law would take {mixture}, and win {cost} nats more",
            mixture=listing(rec.unconstrained),
            cost=nats(rec.constraint_cost),
        )


def savings(found: Worth) -> str:
    """Return what is saved at equal loss and how that compares with the pilot, in words."""
    interval = ""
    if found.interval is not None:
        level = 100 * found.level
        interval = said(" ({level:.0f} % interval {interval})", level=level, interval=percents(found.interval))
    told = {"tokens": tokens(found.tokens), "interval": interval}
    sentences: list[str] = [
        said(
            "At equal loss the recommended mixture needs {fraction} fewer tokens{interval} than the reference at "
            "{tokens} tokens: {saved} saved.",
            fraction=percent(found.fraction),
            saved=_quantities(found),
            **told,
        )
    ]
    if found.fraction <= 0:
        sentences = [said("At equal loss nothing is saved against the reference at {tokens} tokens{interval}.", **told)]
    pilot = found.pilot_gpu_hours
    if pilot is not None:
        spent = said(
            "The pilot's {runs} runs took {hours:,.4g} GPU-hours{price}",
            runs=found.runs,
            hours=pilot,
            price=_for(found.money(pilot)),
        )
        net = found.net_gpu_hours
        if net is not None:
            sentences.append(
                said(
                    "{spent}; the net is {net:+,.4g} GPU-hours{price}.",
                    spent=spent,
                    net=net,
                    price=_for(found.money(net)),
                )
            )
        elif math.isfinite(found.break_even_gpu_hours or math.inf):
            sentences.append(
                said(
                    "{spent}: it pays for itself if the run takes more than {hours:,.4g}.",
                    spent=spent,
                    hours=found.break_even_gpu_hours,
                )
            )
        else:
            sentences.append(said("{spent}, and nothing is saved to set against them.", spent=spent))
    return joined(sentences)


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


def probability(value: float) -> str:
    """Return a probability as it is said: a few hundred draws know none beyond 99 %."""
    return said("above 99 %") if value > 0.99 else said("below 1 %") if value < 0.01 else f"{100 * value:.0f} %"


def percents(ends: tuple[float, float]) -> str:
    """Return an interval of what is saved, in percent."""
    low, high = (f"{100 * v:.1f}".replace("-", "−") if v > -10 else said("below −1000") for v in ends)
    return said("{low} to {high} %", low=low, high=high)


def _quantities(found: Worth) -> str:
    parts: list[str] = [said("{tokens} tokens", tokens=tokens(found.tokens_saved))]
    if found.steps_saved is not None:
        parts.append(said("{steps:,.0f} steps", steps=found.steps_saved))
    if found.gpu_hours_saved is not None:
        price = _for(found.money(found.gpu_hours_saved))
        parts.append(said("{hours:,.4g} GPU-hours{price}", hours=found.gpu_hours_saved, price=price))
    return joined(parts, ", ")


def _for(price: float | None) -> str:
    return "" if price is None else said(" (price {price:,.0f})", price=price)
