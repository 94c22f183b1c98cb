"""What a report says of the decision: how sure it is, how free, what binds it, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, about, nats, percent, tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.savings import Worth
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.report.texts import listing, printable

_FREE = 0.01
"""A proportion that differs by less than a percentage point is the same to whoever runs it."""


@dataclass(frozen=True)
class LawChoice:
    """What one law of the ensemble would recommend."""

    law: str
    shares: tuple[str, ...]


def sureness(rec: Recommendation) -> str:
    """Return the gain's interval, the probability and the expected regret, in words."""
    sure = rec.uncertainty
    if sure is None:
        return said(
            "How sure this is can't be said: that takes refits to whole runs drawn again, of at least three runs, and "
            "there are none."
        )
    low, high = sure.gain
    found = said(
        "{level:.0f} % interval of the gain: {low} to {high} nats. The probability that the recommended mixture's "
        "expected loss is below the reference's is {probability}. What more runs could still win is about {regret} "
        "nats.",
        level=100 * sure.level,
        low=nats(low),
        high=nats(high),
        probability=probability(sure.probability),
        regret=nats(sure.regret),
    )
    luck = said(
        "{optimism} nats of the predicted gain are taken off for the luck of the chosen.", optimism=nats(sure.optimism)
    )
    if sure.form_error is None:
        source = said(
            "(From {replicates} replicates of a run-level bootstrap; this excludes model misspecification.)",
            replicates=sure.replicates,
        )
    else:
        source = said(
            "(From {replicates} replicates of a run-level bootstrap and the errors on held-out mixtures, by which the "
            "law's form may be off by ±{form} nats in this difference.)",
            replicates=sure.replicates,
            form=nats(sure.form_error),
        )
    return joined([found, luck if sure.optimism >= 5e-5 else "", source])


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
    """Return what is saved at equal loss, how far that is shown, and how it compares with the pilot, in words."""
    if found.fraction is None:
        parts = [said("What is saved in tokens, hours or money is unknown: {why}.", why=found.unknown)]
    else:
        parts = [_headline(found), _doubt(found), _at_target(found), _quantities(found)]
    return joined([*parts, _against_pilot(found)])


def saved_figure(found: Worth) -> tuple[str, str]:
    """Return the saving as a key figure, and what to know of it."""
    if found.fraction is None:
        return said("unknown"), found.unknown
    at = said(
        "of the {tokens} that the reference takes: {range}, over replicates and laws",
        tokens=tokens(found.tokens),
        range=span_of(found),
    )
    return percent(found.fraction) if found.demonstrated else said("not demonstrated"), at


def span_of(found: Worth) -> str:
    """Return the range of what is saved."""
    return percents(found.span or (math.nan, math.nan))


def _headline(found: Worth) -> str:
    at = tokens(found.tokens)
    if found.beyond:
        at = said("{tokens} tokens, the largest volume observed", tokens=at)
    else:
        at = said("{tokens} tokens", tokens=at)
    if found.fraction is None or found.fraction <= 0:
        return said("At equal loss nothing is saved against the reference at {at}{range}.", at=at, range=_range(found))
    return said(
        "At equal loss the recommended mixture needs {fraction} fewer tokens than the reference at {at}{range}.",
        fraction=percent(found.fraction),
        at=at,
        range=_range(found),
    )


def _range(found: Worth) -> str:
    laws = list(found.by_law.values())
    alone = laws == [found.fraction]
    by_law = "" if alone or not laws else percents((min(laws), max(laws)))
    told = {"level": 100 * found.level, "laws": by_law}
    if found.interval is None:
        return said(" (by law: {laws})", **told) if by_law else ""
    told["interval"] = percents(found.interval)
    if by_law:
        return said(" ({level:.0f} % interval {interval}; by law: {laws})", **told)
    return said(" ({level:.0f} % interval {interval}; by this law alone)", **told)


def _doubt(found: Worth) -> str:
    if found.demonstrated or found.fraction is None or found.fraction <= 0:
        return ""
    if found.interval is None:
        return said("Without replicates it has no interval: a saving is not demonstrated.")
    return said("That is inside the noise: a saving is not demonstrated.")


def _at_target(found: Worth) -> str:
    if not found.beyond:
        return ""
    told = {"tokens": tokens(found.target), "why": found.unknown_at_target}
    if found.at_target is None:
        return said("For the run of {tokens} tokens a saving is unknown: {why}.", **told)
    return said(
        "For the run of {tokens} tokens it is {range}, over the laws and their fits to all evaluations and to the late "
        "ones.",
        range=percents(found.at_target),
        **told,
    )


def _quantities(found: Worth) -> str:
    costs = found.costs
    if found.tokens_saved is None:
        if costs.target_gpu_hours is None:
            return ""
        if found.beyond and found.at_target is None:
            return said("GPU-hours and cost saved in that run: unknown.")
        return said("GPU-hours and cost saved: not demonstrated.")
    parts: list[str] = [said("{tokens} tokens", tokens=_numbers(found.tokens_saved, tokens))]
    if found.steps_saved is not None:
        parts.append(said("{steps} steps", steps=_numbers(found.steps_saved, "{:,.0f}".format)))
    hours = found.gpu_hours_saved
    if hours is not None:
        parts.append(said("{hours} GPU-hours{cost}", hours=_numbers(hours), cost=_for(found.money(hours))))
    return said(
        "In the run of {tokens} tokens that is {quantities}.",
        tokens=tokens(found.target),
        quantities=joined(parts, ", "),
    )


def _against_pilot(found: Worth) -> str:
    pilot = found.pilot_gpu_hours
    if pilot is None:
        return ""
    spent = said(
        "The pilot's {runs} runs took {hours:,.4g} GPU-hours{cost}",
        runs=found.runs,
        hours=pilot,
        cost=_for(found.money((pilot, pilot))),
    )
    net, even = found.net_gpu_hours, found.break_even_gpu_hours
    if net is not None:
        return said(
            "{spent}; the net is {net} GPU-hours{cost}.",
            spent=spent,
            net=_numbers(net, "{:+,.4g}".format),
            cost=_for(found.money(net)),
        )
    if even is not None:
        return said(
            "{spent}: it pays for itself if the run takes more than {hours}.", spent=spent, hours=_numbers(even)
        )
    return said("{spent}; no saving is shown to set against them.", spent=spent)


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
    """Return a range of what is saved, in percent; an end that the search didn't reach is open."""
    low, high = ends
    if low == high and math.isfinite(low):
        return f"{100 * low:.1f} %".replace("-", "−")
    if math.isinf(low) and math.isinf(high):
        return said("not told") if low == high else said("without bounds")
    told = {"low": f"{100 * low:.1f}".replace("-", "−"), "high": f"{100 * high:.1f}".replace("-", "−")}
    if math.isinf(high):
        return said("{low} % or more", **told)
    if math.isinf(low):
        return said("{high} % or less", **told)
    return said("{low} to {high} %", **told)


def _numbers(ends: tuple[float, float], shown: Callable[[float], str] = "{:,.4g}".format) -> str:
    low, high = (shown(end).replace("-", "−") for end in ends)
    if math.isinf(ends[1]):
        return said("{low} or more", low=low)
    return low if low == high else said("{low} to {high}", low=low, high=high)


def _for(cost: tuple[float, float] | None) -> str:
    return "" if cost is None else said(" (cost {cost})", cost=_numbers(cost, "{:,.0f}".format))
