"""Where a fitted law may be used: which effects are unknown, which domains are held, where it extrapolates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from bimix_tracking.errors import RecommendationError
from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import few, joined, said
from bimix_tracking.mixture import SUM_TOLERANCE, Mixture
from bimix_tracking.recommendation.constraints import PINNED, Constraints
from bimix_tracking.recommendation.optimum import AT_BOUND, Problem
from bimix_tracking.recommendation.solvers.sqp import SimplexMinimum
from bimix_tracking.selection.diagnostics import outside_tried, outside_volumes
from bimix_tracking.selection.eligibility import not_evaluated, unfit

_EACH = 3
"""So many targets have a sentence of their own."""
_TRIED, _HELD = said("the proportions tried"), "held"


def counted(fit: LawFit, weight: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Return the weights without those of targets that the law doesn't predict, and a warning for each of them.

    Raises:
        RecommendationError: No target is left, or the law can't serve the question; names each and what to do.
    """
    why = unfit(fit.law, fit.targets, fit.domains, weight)
    if why:
        raise RecommendationError(
            said(
                "{law} cannot recommend a mixture: {why}. Use a law that sees all proportions (auto, additive or "
                "exponential), or log an evaluation of each domain",
                law=fit.law,
                why=why,
            )
        )
    bad = {t: f.outcome.remedy for t, f in fit.targets.items() if not f.outcome.usable and weight[t] > 0}
    kept = {name: 0.0 if name in bad else value for name, value in weight.items()}
    if not any(kept.values()):
        raise RecommendationError(undecided(bad))
    doubts = [
        said("target {target!r} is excluded from the objective, for it is not predicted: {why}", target=t, why=why)
        for t, why in bad.items()
    ]
    silent = [d for d in fit.domains if d not in fit.targets]
    if silent:
        doubts.append(not_evaluated(silent, len(fit.domains)))
    return kept, doubts


def undecided_by(weights: Mapping[str, float], unfit: Mapping[str, str]) -> list[str]:
    """Return which targets don't count, and which do although they can't decide: a sentence each, or one for many."""
    found = []
    named = [t for t in unfit if t in weights]
    for alike, counts in (([t for t in named if weights[t] > 0], True), ([t for t in named if not weights[t]], False)):
        if len(alike) > _EACH:
            many = {"count": len(alike), "targets": few(alike)}
            found.append(
                said("{count} targets count, though they can't decide: {targets}", **many)
                if counts
                else said("{count} targets have weight 0, for they can't decide: {targets}", **many)
            )
            continue
        for target in alike:
            why = {"target": target, "why": unfit[target]}
            found.append(
                said("target {target!r} counts, though it can't decide: {why}", **why)
                if counts
                else said("target {target!r} has weight 0, for it can't decide: {why}", **why)
            )
    return found


def undecided(remedies: Mapping[str, str]) -> str:
    """Return that nothing can be recommended, and what to do about each domain."""
    each = (said("{name!r}: {why}", name=domain, why=why) for domain, why in remedies.items())
    return said("no mixture can be recommended. {remedies}", remedies=joined(each, "; "))


class Hold(NamedTuple):
    """Between which proportions a domain is held, and why."""

    lower: float
    upper: float
    why: str
    remedy: str = ""
    """How to learn its effect, where that is unknown."""
    unclear: bool = False
    """Whether a fit has its effect, with an interval that holds 0."""


def holds_of(fit: LawFit, weight: Mapping[str, float], reference: Mixture) -> dict[str, Hold]:
    """Return the domains that a law of own proportions only holds: those without an effect, or with an unknown one.

    An effect is unknown if its 90 % interval holds 0 (Student's t with n − 2 degrees of freedom for n runs, by the
    fit's standard error): its domain stays near the reference, for its sign may be chance. Without standard errors the
    effect counts as it is.

    Args:
        fit: Its fit; of another law nothing is held.
        weight: As it was asked for: also of targets excluded from the objective.
        reference: Where a domain of unknown effect is held, within the proportions tried.
    """
    found: dict[str, Hold] = {}
    if not _own_only(fit):
        return found
    law = find_law(fit.law)
    effect = next(name for name, place in law.traits.watched.items() if place == law.traits.effect)
    for domain in fit.domains:
        fitted = fit.targets[domain]
        smallest, largest = fitted.shares
        value = fitted.parameters[effect]
        nearest = min(max(reference[domain], smallest), largest)
        if weight[domain] == 0 and domain not in fit.unfit:
            found[domain] = Hold(0.0, 1.0, said("has weight 0, so the objective gives it the least it may have"))
        elif not fitted.outcome.usable or weight[domain] == 0:
            why = said(
                "has an unknown effect: held at {share:.4g}, the proportion tried nearest to the reference",
                share=nearest,
            )
            remedy = fit.unfit[domain] if fitted.outcome.usable else fitted.outcome.remedy
            found[domain] = Hold(nearest, nearest, why, remedy)
        elif _holds_zero(value, half := _half_width(fitted, effect)):
            interval = {"name": effect, "value": value, "low": value - half, "high": value + half}
            why = said(
                "has {name} = {value:.3g} (90 % interval {low:.3g} to {high:.3g}): an effect that may be 0. It is "
                "held at {share:.4g}, the proportion tried nearest to the reference",
                **interval,
                share=nearest,
            )
            remedy = said(
                "{name} = {value:.3g} (90 % interval {low:.3g} to {high:.3g}): its effect may be 0. Add runs with a "
                "smaller and a larger proportion of it",
                **interval,
            )
            found[domain] = Hold(nearest, nearest, why, remedy, unclear=True)
        elif not value > 0:
            why = said(
                "has {name} = {value:.3g}: its loss doesn't fall as its proportion grows. It is held at the smallest "
                "proportion tried, {smallest:.4g}",
                name=effect,
                value=value,
                smallest=smallest,
            )
            found[domain] = Hold(smallest, 1.0, why)
    return found


def _half_width(fitted: DomainFit, name: str) -> float:
    """Return half the interval of a parameter between runs; NaN where none is known."""
    return student(fitted.runs - 2) * fitted.standard_errors.get(name, math.nan)


def student(freedom: int) -> float:
    """Return how many standard errors reach to either end of a 90 % interval; NaN without a degree of freedom.

    >>> [round(student(n), 2) for n in (0, 1, 4, 30)]
    [nan, 6.31, 2.13, 1.7]
    """
    return float(stdtrit(freedom, 0.95)) if freedom > 0 else math.nan


def _holds_zero(value: float, half: float) -> bool:
    return abs(value) <= half  # not of NaN


def _own_only(fit: LawFit) -> bool:
    return not fit.members and find_law(fit.law).traits.own_only


def within(
    fit: LawFit,
    tokens: float,
    weight: Mapping[str, float],
    box: Constraints,
    holds: Mapping[str, Hold],
    doubts: list[str],
    *,
    beyond_tried: bool = False,
) -> Problem:
    """Return what to minimise: within the proportions tried, with the domains held that `holds_of` names.

    Args:
        fit: The fit.
        tokens: Data volume.
        weight: Of the targets in the objective.
        box: The team's constraints.
        holds: As `holds_of` says.
        doubts: Warnings are added to it.
        beyond_tried: Also outside the proportions tried.

    Raises:
        RecommendationError: Too few domains whose effect is known, or nothing left for them.
    """
    of_targets = {target: w for target, w in weight.items() if target in fit.targets}
    if not _own_only(fit):
        return Problem(fit, tokens, of_targets, box if beyond_tried else _inside_tried(fit, box, doubts))
    unknown = {domain: hold.remedy for domain, hold in holds.items() if hold.remedy}
    unclear = {domain: hold.remedy for domain, hold in holds.items() if hold.unclear}
    choice = len(fit.domains) - len(unknown)
    if unknown and choice + len(unclear) < 2:  # what is left is no choice
        raise RecommendationError(undecided(unknown))
    named = joined((said("{name!r} {why}", name=domain, why=hold.why) for domain, hold in holds.items()), "; ")
    if len(holds) == len(fit.domains) and not unclear:
        raise RecommendationError(
            said("no domain's loss falls with its proportion, so the law prefers no mixture: {domains}", domains=named)
        )
    free = Hold(0.0, 1.0, "")
    lower, upper, *_ = (np.array(side) for side in zip(*(holds.get(d, free) for d in fit.domains), strict=True))
    staying = bool(unclear) and choice < 2
    if lower.sum() >= 1 and not staying:
        raise RecommendationError(
            said(
                "the domains held take {share:.4g} and leave nothing for the others. Add runs with smaller proportions "
                "of them: {domains}",
                share=float(lower.sum()),
                domains=named,
            )
        )
    held = box.narrowed(lower, upper, _HELD)
    if not _has_a_mixture(held):
        raise RecommendationError(
            said(
                "no mixture meets the constraints with domains of unknown effect held: {domains}. Loosen a bound, give "
                "a reference within the proportions tried, or add runs with smaller and larger proportions of them",
                domains=named,
            )
        )
    if staying:
        doubts.append(
            said(
                "fewer than two domains have a known effect, so the mixture stays at the reference: {remedies}",
                remedies=joined((said("{name!r}: {why}", name=name, why=why) for name, why in unclear.items()), "; "),
            )
        )
    return Problem(fit, tokens, of_targets, held if beyond_tried else _inside_tried(fit, held, doubts))


def _inside_tried(fit: LawFit, box: Constraints, doubts: list[str]) -> Constraints:
    """Return the part of the constraints that was tried; all of them, with a warning, where no mixture is in it."""
    lower, upper = (np.array(side) for side in zip(*map(fit.tried, fit.domains), strict=True))
    inside = box.narrowed(lower, upper, _TRIED)
    if _has_a_mixture(inside):
        return inside
    doubts.append(
        said(
            "no mixture within the proportions tried meets the constraints: the law is extrapolated beyond them. Add "
            "runs that meet the constraints"
        )
    )
    return box


def _has_a_mixture(box: Constraints) -> bool:
    return bool(box.lower.sum() <= 1 + SUM_TOLERANCE and box.upper.sum() >= 1 - SUM_TOLERANCE)


def binding_at(
    problem: Problem, shares: Array, found: SimplexMinimum | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return what holds a domain at a limit that was set, with its shadow price, and what at the edge of the tried.

    Arguments are those of `Problem.multipliers`, beside the problem.
    """
    box = problem.box
    binding, edges = {}, {}
    for domain, share, low, high, marginal in zip(
        box.domains, shares, box.lower, box.upper, 0.01 * problem.multipliers(shares, found), strict=True
    ):
        more = said("0.01 more would gain {gain:.2g}", gain=abs(marginal))
        if not marginal > 0:
            more = said("0.01 less would gain {gain:.2g}", gain=abs(marginal))
        for side, edge, why, gains in (
            ("least", low, box.lower_from, marginal < 0),
            ("most", high, box.upper_from, marginal > 0),
        ):
            if abs(share - edge) > AT_BOUND or domain not in why:
                continue
            if why[domain] == _TRIED:
                which = said("smallest") if side == "least" else said("largest")
                edges[domain] = said(
                    "is at the {which} proportion tried, {share:.4g}; the law would go further. Add a run beyond it",
                    which=which,
                    share=share,
                )
            elif why[domain] != _HELD and (gains or why[domain] == PINNED):
                at = {"edge": edge, "why": why[domain], "more": more}
                binding[domain] = said("at its upper limit, {edge:.4g} ({why}): {more}", **at)
                if side == "least":
                    binding[domain] = said("at its lower limit, {edge:.4g} ({why}): {more}", **at)
    return binding, edges


def outside_volume(fit: LawFit, tokens: float) -> list[str]:
    """Return whether a data volume is outside those observed, in a sentence; nothing where it isn't."""
    beyond = outside_volumes(tokens, fit.tokens)
    return [beyond] if beyond else []


def outside(fit: LawFit, mixture: Mixture, weight: Mapping[str, float]) -> list[str]:
    """Return where a mixture is outside those tried, and doubtful fits, a sentence each.

    Args:
        fit: The fit.
        mixture: The one recommended.
        weight: Of the targets in the objective; excluded ones have a warning of their own.
    """
    found: list[str] = []
    for domain in fit.domains:
        smallest, largest = fit.tried(domain)
        if not smallest * 0.999 <= mixture[domain] <= largest * 1.001:
            found.append(outside_tried(domain, mixture[domain], (smallest, largest)))
    for outcome in Outcome:
        alike = [
            target
            for target, fitted in fit.targets.items()
            if fitted.outcome is outcome and (outcome.usable or weight[target] > 0)
        ]
        if alike and outcome not in (Outcome.CONVERGED, Outcome.ALPHA_NOT_POSITIVE):
            errors = ", ".join(f"{100 * fit.targets[target].error:.2f}" for target in alike[:5])
            stopped = said("{remedy}. Fit error: {errors} %", remedy=outcome.remedy, errors=errors)
            found.append(_said_of(fit, alike, stopped if outcome is Outcome.NOT_CONVERGED else outcome.remedy))
    return found


def _said_of(fit: LawFit, targets: list[str], remedy: str) -> str:
    """Return a remedy with what it is for: domains, or targets where one of them is no domain."""
    named, several = {"named": few(targets), "remedy": remedy}, len(targets) > 1
    if len(targets) == len(fit.targets) > 1 and not set(targets) <= set(fit.domains):
        return said("all targets: {remedy}", remedy=remedy)
    if set(targets) <= set(fit.domains):
        return said("domains {named}: {remedy}", **named) if several else said("domain {named}: {remedy}", **named)
    return said("targets {named}: {remedy}", **named) if several else said("target {named}: {remedy}", **named)
