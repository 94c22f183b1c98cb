"""What a report says of the decision: how certain it is, how free, and what binds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bimix_tracking.display.texts import listing, printable
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, digits, percent
from bimix_tracking.recommendation.guards import GuardResult
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import between

_FREE = 0.01
"""A proportion that differs by less than a percentage point is the same to whoever runs it."""


@dataclass(frozen=True)
class LawChoice:
    """What one law of the ensemble would recommend."""

    law: str
    shares: tuple[str, ...]


def span_in_unit(rec: Recommendation, ends: tuple[float, float]) -> dict[str, str]:
    """Return the two ends of an interval of it as `low` and `high`, the unit of points once."""
    low, high = (rec.number(end) for end in ends)
    return {"low": low.removesuffix(" pp"), "high": high}


def guards_by_target(rec: Recommendation) -> dict[str, GuardResult]:
    """Return the guard of each target that has one; of several the one that leaves the least."""
    found: dict[str, GuardResult] = {}
    for one in rec.guards:
        known = found.get(one.target)
        rising = rec.target(one.target).rising
        if known is None or (one.limit > known.limit) == rising:
            found[one.target] = one
    return found


def sureness(rec: Recommendation) -> str:
    """Return the gain's interval and the probability, and what they rest on, in words."""
    sure = rec.uncertainty
    if sure is None:
        return said("No replicates, so no interval: that takes at least three runs.")
    found = said(
        "{level:.0f} % interval of the gain {low} to {high}; probability of a gain {probability}",
        level=100 * sure.level,
        low=span_in_unit(rec, sure.gain)["low"],
        high=rec.amount(sure.gain[1]),
        probability=probability(sure.probability),
    )
    rest = (said("{name} {value}", name=name, value=value) for name, value in certainty(rec))
    return said("{facts}.", facts=joined([found, *rest], "; "))


def certainty(rec: Recommendation) -> Iterator[tuple[str, str]]:
    """Return what the interval and the probability rest on: names and values."""
    sure = rec.uncertainty
    if sure is None:
        return
    yield said("expected regret"), rec.amount(sure.regret)
    yield said("run-level bootstrap"), said("{replicates} replicates", replicates=sure.replicates)
    if sure.form_error is None:
        yield said("model misspecification"), said("excluded")
    else:
        yield said("model misspecification"), said("included, ±{form}", form=rec.amount(sure.form_error))
    if sure.optimism >= (5e-4 if str(rec.unit) == "accuracy" else 5e-5):  # not 0 as it is printed
        yield said("optimism subtracted"), rec.amount(sure.optimism)


def freedom(rec: Recommendation) -> str:
    """Return how free the choice is, in words; nothing where that wasn't measured."""
    if rec.near_optimal is None:
        return ""
    extents = (between(rec.near_optimal.extent, domain) for domain in rec.mixture)
    if all(high - low < _FREE for low, high in extents):
        return said(
            "No proportion can move by a percentage point within {tolerance} of the optimum, the residual "
            "standard deviation of a run.",
            tolerance=rec.amount(rec.near_optimal.tolerance),
        )
    return said(
        "Near-optimal: within {tolerance} of the optimum, the residual standard deviation of a run.",
        tolerance=rec.amount(rec.near_optimal.tolerance),
    )


def constrained(rec: Recommendation) -> Iterator[str]:
    """Return what the constraints are and what they cost, a line each; nothing where there are none."""
    for domain, why in rec.binding.items():
        if str(rec.unit) == "nats per token":
            yield printable(said("domain {domain!r} is {why} nats", domain=domain, why=why))
        else:
            yield printable(said("domain {domain!r} is {why}", domain=domain, why=why))
    if rec.prior is not None:
        yield said(
            "the mixture is kept near the prior ({prior}) at {strength} of the objective per nat of divergence",
            prior=listing(rec.prior, most=3),
            strength=digits(rec.prior_strength),
        )
    if rec.binding or rec.prior is not None:
        yield said(
            "without constraints: {mixture}, and {cost} more gain",
            mixture=listing(rec.unconstrained),
            cost=rec.amount(rec.constraint_cost),
        )


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
