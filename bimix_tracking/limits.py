"""Where a fitted law may be used: which effects it cannot tell, which domains it holds, where it extrapolates."""

from __future__ import annotations

from collections.abc import Mapping

from bimix_tracking.errors import RecommendationError
from bimix_tracking.law_fit import LawFit, Outcome
from bimix_tracking.mixture import Mixture
from bimix_tracking.wording import said


def refuse_unknown_effects(fit: LawFit, weight: Mapping[str, float]) -> None:
    """Raise unless the law tells the effect of every domain that counts.

    Raises:
        RecommendationError: Names the domains, and what to do about each.
    """
    bad = {d: "has no losses: log an evaluation of it" for d in fit.domains if d not in fit.targets}
    bad |= {d: f.outcome.remedy for d, f in fit.targets.items() if not f.outcome.usable}
    bad = {d: why for d, why in bad.items() if weight[d] > 0}
    if bad:
        raise RecommendationError(
            "no mixture can be recommended. " + "; ".join(f"domain {d!r}: {why}" for d, why in bad.items())
        )
    missing = [d for d in fit.domains if d not in fit.targets]
    if missing and fit.law == "bimix":
        raise RecommendationError(f"domains {missing} have no losses: log an evaluation of them")


def held(fit: LawFit, weight: Mapping[str, float]) -> dict[str, str]:
    """Return the domains that BiMix doesn't want more of, and why."""
    found = {}
    for domain in fit.domains:
        alpha = fit.targets[domain].parameters["alpha"]
        if weight[domain] == 0:
            found[domain] = said("has weight 0, so the objective gives it nothing")
        elif not alpha > 0:
            smallest = fit.targets[domain].shares[0]
            found[domain] = said(
                "has alpha = {alpha:.3g}, not above 0: its loss doesn't fall when its proportion grows. It is held at "
                "the smallest proportion tried, {smallest:.4g}",
                alpha=alpha,
                smallest=smallest,
            )
    return found


def outside(fit: LawFit, mixture: Mixture, tokens: float) -> list[str]:
    """Return where a mixture or data volume is outside what was observed, and doubtful fits, a sentence each."""
    found: list[str] = []
    low, high = fit.tokens
    if tokens > high * 1.001:
        found.append(
            said(
                "the target of {tokens:.4g} tokens is {times:.3g}× the largest volume observed ({high:.4g}): the "
                "curves are extrapolated",
                tokens=tokens,
                times=tokens / high,
                high=high,
            )
        )
    elif tokens < low * 0.999:
        found.append(
            said(
                "the target of {tokens:.4g} tokens is below the smallest volume observed ({low:.4g})",
                tokens=tokens,
                low=low,
            )
        )
    for domain in [d for d in fit.domains if d in fit.targets]:
        smallest, largest = fit.targets[domain].shares
        if not smallest * 0.999 <= mixture[domain] <= largest * 1.001:
            found.append(
                said(
                    "the recommended proportion of domain {domain!r}, {share:.4g}, is outside those tried "
                    "({smallest:.4g} to {largest:.4g})",
                    domain=domain,
                    share=mixture[domain],
                    smallest=smallest,
                    largest=largest,
                )
            )
    for outcome in Outcome:
        alike = [repr(domain) for domain, fitted in fit.targets.items() if fitted.outcome is outcome]
        if alike and outcome not in (Outcome.CONVERGED, Outcome.ALPHA_NOT_POSITIVE):
            told = {"domains": ", ".join(alike), "remedy": outcome.remedy}
            found.append(
                said("domains {domains}: {remedy}", **told)
                if len(alike) > 1
                else said("domain {domains}: {remedy}", **told)
            )
    return found
