"""The mixture that minimises the weighted predicted losses: the optimum of the law, with its residual.

    minimise  Σ_i w_i L_i(r_i, s)   subject to  Σ_i r_i = 1, r_i ≥ 0           (arXiv 2405.14908v4, Eq. 15–16)

With K_i = B_i / s^β_i + C_i the gradient in r_i is −w_i α_i K_i r_i^(−α_i − 1). At the optimum it is −λ for every
domain, so r_i(λ) = (w_i α_i K_i / λ)^(1 / (1 + α_i)), and λ is the one number that makes them sum to 1. The problem
is convex for α_i, K_i > 0, so this is its only minimum.

That is BiMix. Laws that see all proportions are minimised from several starts, within the proportions that were
tried: what they say beyond those is their form's and not the data's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq

from bimix_tracking.errors import RecommendationError
from bimix_tracking.law_fit import LawFit, Outcome
from bimix_tracking.mixture import Mixture
from bimix_tracking.simplex import minimize_on_simplex

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recommendation:
    """The optimum of a fitted law, beside a reference mixture.

    Args:
        mixture: The recommended mixture.
        tokens: The data volume it was found for.
        weights: Weight of each target domain in the objective.
        predicted: Predicted loss of each target domain on `mixture`, nats per token.
        reference: What it is compared with.
        reference_predicted: Predicted losses on the reference.
        gain: Σ w (reference − recommended) of the predicted losses: what is won, nats. Its uncertainty is not in it.
        kkt_residual: Largest relative difference of a free domain's gradient from λ: 0 at the exact optimum.
        held: Domains that were not optimised, and why.
        warnings: Where the law is used outside what was observed.
    """

    mixture: Mixture
    tokens: float
    weights: Mapping[str, float]
    predicted: Mapping[str, float]
    reference: Mixture
    reference_predicted: Mapping[str, float]
    gain: float
    kkt_residual: float
    held: Mapping[str, str]
    warnings: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return proportions and predicted losses of both mixtures, one row a domain."""
        frame = pd.DataFrame({"recommended": dict(self.mixture), "reference": dict(self.reference)})
        losses = pd.DataFrame({"loss": dict(self.predicted), "reference_loss": dict(self.reference_predicted)})
        return frame.join(losses)


def recommend(
    fit: LawFit,
    tokens: float,
    *,
    weights: Mapping[str, float] | None = None,
    reference: Mixture | None = None,
) -> Recommendation:
    """Return the mixture with the least weighted sum of predicted losses at a data volume.

    Args:
        fit: A fitted law.
        tokens: Data volume s of the run that will use the mixture, in the unit of the observations.
        weights: How much a nat of each target counts; where not named, 1 for a domain and 0 for a target that is none.
        reference: The mixture to compare with; equal parts by default.

    Raises:
        RecommendationError: A domain whose effect is unknown, an unknown domain or negative weight, or no token.

    >>> from bimix_tracking.law_fit import DomainFit
    >>> def domain(alpha, floor):
    ...     parameters = {"alpha": alpha, "beta": 0.5, "B": 1e-9, "C": floor}
    ...     return DomainFit(parameters, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.1, 0.9))
    >>> targets = {"a": domain(0.1, 3.0), "b": domain(0.1, 1.0)}
    >>> fit = LawFit("bimix", ("a", "b"), targets, (1e6, 1e8), 1e7, 0.01, 1e-3, "", "")
    >>> rec = recommend(fit, tokens=1e8)  # equal α: r_a / r_b = 3 ** (1 / 1.1)
    >>> rec.mixture, round(rec.mixture["a"] / rec.mixture["b"] / 3 ** (1 / 1.1), 9)
    (Mixture({'a': 0.73081, 'b': 0.26919}), 1.0)
    """
    if not (math.isfinite(tokens) and tokens > 0):
        raise RecommendationError(f"the target must be a positive number of tokens, got {tokens!r}")
    reference = Mixture.uniform(fit.domains) if reference is None else reference
    reference.array(fit.domains)  # raises where the domains differ
    weight = _weights(fit, weights)
    _refuse_unknown_effects(fit, weight)
    said: list[str] = []
    if fit.law == "bimix":
        shares, kkt, held = _closed_form(fit, tokens, weight)
    else:
        shares, kkt, held = _searched(fit, tokens, weight, reference, said)
    mixture = Mixture.normalized(dict(zip(fit.domains, shares.tolist(), strict=True)))
    predicted = fit.predict([mixture, reference], tokens)
    ours, theirs = (dict(zip(fit.targets, row, strict=True)) for row in predicted.to_numpy(float).tolist())
    return Recommendation(
        mixture=mixture,
        tokens=float(tokens),
        weights=weight,
        predicted=ours,
        reference=reference,
        reference_predicted=theirs,
        # What nobody weighs may be unknown, and 0 · NaN is NaN.
        gain=float(sum(w * (theirs[d] - ours[d]) for d, w in weight.items() if w > 0)),
        kkt_residual=kkt,
        held=held,
        warnings=(*said, *_outside(fit, mixture, tokens)),
    )


def _closed_form(fit: LawFit, tokens: float, by_target: Mapping[str, float]) -> tuple[Array, float, dict[str, str]]:
    """Return BiMix's optimum, its residual, and the domains that were held."""
    alpha = np.array([fit.targets[d].parameters["alpha"] for d in fit.domains])
    level = np.array([_level(fit, d, tokens) for d in fit.domains])
    weight = np.array([by_target[d] for d in fit.domains])
    held = _held(fit, alpha, weight)
    fixed = np.array([fit.targets[d].shares[0] if d in held else 0.0 for d in fit.domains])
    # A domain nobody weighs is worth nothing to the objective, and not even its smallest share.
    fixed[weight == 0] = 0.0
    free = np.array([d not in held for d in fit.domains])
    if not free.any():
        raise RecommendationError(
            "no domain's loss falls with its proportion, so the law prefers no mixture: "
            + "; ".join(f"{d!r} {why}" for d, why in held.items())
        )
    left = 1 - float(fixed.sum())
    if not left > 0:
        raise RecommendationError(
            f"domains are held at {fixed.sum():.4g} in all, which leaves nothing for the others. "
            "Add runs with smaller proportions of them: " + "; ".join(f"{d!r} {why}" for d, why in held.items())
        )
    shares = fixed.copy()
    shares[free], kkt = _one_scalar(weight[free], alpha[free], level[free], left)
    return shares, kkt, held


def _searched(
    fit: LawFit, tokens: float, weight: Mapping[str, float], reference: Mixture, said: list[str]
) -> tuple[Array, float, dict[str, str]]:
    """Return the optimum of a law that sees all proportions, its residual, and the domains at the edge."""
    counted = np.array([weight[target] for target in fit.targets])
    use = counted > 0

    def objective(shares: Array) -> tuple[float, Array]:
        losses = fit.predict(shares[None], tokens).to_numpy(float)[0]
        return float(counted[use] @ losses[use]), counted[use] @ fit.gradient(shares[None], tokens)[0][use]

    tried = [fit.targets[d].shares if d in fit.targets else (0.0, 1.0) for d in fit.domains]
    lower, upper = (np.array(side) for side in zip(*tried, strict=True))
    even = np.full(len(fit.domains), 1 / len(fit.domains))
    leaning = [np.where(np.arange(len(even)) == i, 0.5, 0.5 / max(len(even) - 1, 1)) for i in range(min(len(even), 6))]
    found = minimize_on_simplex(objective, lower, upper, [even, reference.array(fit.domains), *leaning])
    if found.agree[0] < found.agree[1]:
        said.append(
            f"{found.agree[0]} of {found.agree[1]} searches for the optimum ended at the best one: this law has others"
        )
    held = {}
    for domain, share, low, high in zip(fit.domains, found.shares, lower, upper, strict=True):
        edge = "smallest" if share <= low + 1e-6 else "largest" if share >= high - 1e-6 else None
        if edge and high - low > 1e-6:
            held[domain] = (
                f"is at the {edge} proportion tried, {share:.4g}: the law would go further, the data don't say that it "
                "may. Add a run with a proportion beyond it"
            )
    return found.shares, found.kkt_residual, held


def _one_scalar(weight: Array, alpha: Array, level: Array, total: float) -> tuple[Array, float]:
    """Solve Σ_i (w_i α_i K_i / λ)^(1 / (1 + α_i)) = total for log λ; return the shares and the KKT residual.

    Each term falls in λ, so the sum does: the root is unique, and it lies between the λ at which one domain alone,
    or each of n domains a total / n, would fill the total.
    """
    pull = np.log(weight * alpha * level)
    power = 1 / (1 + alpha)

    def excess(log_lambda: float) -> float:
        return float(np.exp((pull - log_lambda) * power).sum() - total)

    low = float((pull - math.log(total) / power).max()) - 1e-9
    high = float((pull - math.log(total / len(pull)) / power).max()) + 1e-9
    log_lambda = float(brentq(excess, low, high, xtol=1e-15, rtol=1e-15, maxiter=200))
    shares = np.exp((pull - log_lambda) * power)
    shares *= total / shares.sum()
    log_gradient = pull - (1 + alpha) * np.log(shares)
    return shares, float(np.abs(np.expm1(log_gradient - log_lambda)).max())


def _level(fit: LawFit, domain: str, tokens: float) -> float:
    """Return K_i = B / s^β + C: the predicted loss at r_i = 1."""
    p = fit.targets[domain].parameters
    return float(p["B"] * tokens ** -p["beta"] + p["C"])


def target_weights(
    given: Mapping[str, float] | None, targets: Collection[str], domains: Collection[str]
) -> dict[str, float]:
    """Return the weight of each target: 1 for a domain that isn't named, 0 for a target outside the mixtures."""
    return {name: float((given or {}).get(name, 1.0 if name in domains else 0.0)) for name in targets}


def _weights(fit: LawFit, weights: Mapping[str, float] | None) -> dict[str, float]:
    given = dict(weights or {})
    names = list(dict.fromkeys([*fit.domains, *fit.targets]))
    unknown = [name for name in given if name not in names]
    if unknown:
        raise RecommendationError(f"weights for unknown {unknown}; the domains are {names}")
    for name, value in given.items():
        if not (math.isfinite(value) and value >= 0):
            raise RecommendationError(f"the weight of domain {name!r} must be finite and not negative, got {value}")
    result = target_weights(given, names, fit.domains)
    if not any(result.values()):
        raise RecommendationError("all weights are 0: every mixture is equally good")
    return result


def _refuse_unknown_effects(fit: LawFit, weight: Mapping[str, float]) -> None:
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


def _held(fit: LawFit, alpha: Array, weight: Array) -> dict[str, str]:
    held = {}
    for domain, exponent, importance in zip(fit.domains, alpha, weight, strict=True):
        if importance == 0:
            held[domain] = "has weight 0, so the objective gives it nothing"
        elif not exponent > 0:
            smallest = fit.targets[domain].shares[0]
            held[domain] = (
                f"has alpha = {exponent:.3g}, not above 0: its loss doesn't fall when its proportion grows. "
                f"It is held at the smallest proportion tried, {smallest:.4g}"
            )
    return held


def _outside(fit: LawFit, mixture: Mixture, tokens: float) -> list[str]:
    said = []
    low, high = fit.tokens
    if tokens > high * 1.001:
        said.append(
            f"the target of {tokens:.4g} tokens is {tokens / high:.3g}× the largest volume observed ({high:.4g}): "
            "the curves are extrapolated"
        )
    elif tokens < low * 0.999:
        said.append(f"the target of {tokens:.4g} tokens is below the smallest volume observed ({low:.4g})")
    for domain in [d for d in fit.domains if d in fit.targets]:
        smallest, largest = fit.targets[domain].shares
        if not smallest * 0.999 <= mixture[domain] <= largest * 1.001:
            said.append(
                f"the recommended proportion of domain {domain!r}, {mixture[domain]:.4g}, is outside those tried "
                f"({smallest:.4g} to {largest:.4g})"
            )
    for outcome in Outcome:
        alike = [repr(domain) for domain, fitted in fit.targets.items() if fitted.outcome is outcome]
        if alike and outcome not in (Outcome.CONVERGED, Outcome.ALPHA_NOT_POSITIVE):
            said.append(f"domain{'s' if len(alike) > 1 else ''} {', '.join(alike)}: {outcome.remedy}")
    return said
