"""The mixture that minimises the weighted predicted losses within a team's constraints, beside a reference.

It is sought within the proportions that were tried, unless asked otherwise: what a law says beyond those is its
form's and not the data's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bimix_tracking import quantities
from bimix_tracking.data.weights import checked_weights, objective_weights
from bimix_tracking.errors import ConstraintError, MixtureError, RecommendationError
from bimix_tracking.fitting.alignment.asked_size import at_size, standing_in
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds, Constraints, constrain, proportional_reference
from bimix_tracking.recommendation.guarding import guarded, guards_of, largest_change
from bimix_tracking.recommendation.guards import Guard
from bimix_tracking.recommendation.near_optimal import near_optimal
from bimix_tracking.recommendation.optimum import Problem
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.smallest_change import smallest_change
from bimix_tracking.recommendation.solvers.guarded import GuardedMinimum
from bimix_tracking.recommendation.solvers.limits import Change
from bimix_tracking.recommendation.uncertainty import uncertainty
from bimix_tracking.recommendation.validity import (
    binding_at,
    counted,
    holds_of,
    outside,
    outside_volume,
    undecided_by,
    within,
)


def recommend(
    fit: LawFit,
    tokens: float,
    *,
    model_size: float | None = None,
    weights: Mapping[str, float] | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    prior: Mixture | None = None,
    prior_strength: float = 0.0,
    reference: Mixture | None = None,
    replicates: Replicates | None = None,
    tolerance: float | None = None,
    beyond_tried: bool = False,
    guardrails: Sequence[str | Guard] = (),
    guard_probability: float | None = None,
    max_change: float | None = None,
    change: Change = "tv",
    unfit: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Recommendation:
    """Return the mixture with the least weighted sum of predicted losses at a data volume, with its uncertainty.

    Args:
        fit: A fitted law.
        tokens: Data volume s of the run that will use the mixture, in the unit of the observations.
        model_size: Of the model that will use it, parameters; where its level is unknown, the figures are those of the
            fit's own size. None: that size.
        weights: How much a nat of each target counts; where not named, 1 for a domain with losses and 0 for a target
            that is no domain, or 1 where none is. A target whose loss isn't predicted is excluded, with a warning.
        bounds: By domain, (lower, upper) or a pinned proportion.
        available_tokens: Distinct tokens a domain has: its proportion is capped at available · max_epochs / tokens.
        max_epochs: How often a token may be repeated, for all or by domain.
        prior: A mixture to stay near.
        prior_strength: κ: so many nats of weighted loss per nat of Kullback–Leibler divergence from the prior.
        reference: The mixture to compare with; by default proportional to the available tokens, or equal parts.
        replicates: From `bootstrap`, but no linearised ones: give intervals, and the tolerance of the near-optimal set.
        tolerance: How much more weighted loss, nats, a mixture may have and still count as near-optimal; by default
            the residual standard deviation of a run.
        beyond_tried: Also search outside the proportions tried, where no run has checked the law.
        guardrails: How much worse than on the reference targets may get: `"code<=+0.5%"`, `"mmlu>=-0.5pp"`,
            `"all<=+1%"`, or `Guard`s.
        guard_probability: All guards hold together in so large a part of the replicates, with the law's form error:
            between 0 and 1; None: as predicted.
        max_change: How far from the reference the mixture may be.
        change: How that is measured: `tv`, total variation ½ Σ |r − reference|, the part of the tokens that are
            others; or `kl`, Σ r log(r / reference), nats.
        unfit: Targets that can't decide, with what each needs: without a given weight one doesn't count, and a guard
            on it is refused. None: those of the fit.
        progress: Called as (what, done, total).

    Raises:
        RecommendationError: No target whose effect is known, a law that can't serve the question, an unknown domain or
            negative weight, no token, or linearised replicates.
        ConstraintError: Constraints that are wrong or that no mixture meets, named with their numbers.

    >>> from bimix_tracking.fitting.domain_fit import DomainFit
    >>> from bimix_tracking.fitting.outcome import Outcome
    >>> def domain(alpha, floor):
    ...     parameters = {"alpha": alpha, "beta": 0.5, "B": 1e-9, "C": floor}
    ...     return DomainFit(parameters, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.1, 0.9))
    >>> targets = {"a": domain(0.1, 3.0), "b": domain(0.1, 1.0)}
    >>> fit = LawFit("bimix", ("a", "b"), targets, (1e6, 1e8), 1e7, 0.01, 1e-3, "", "")
    >>> rec = recommend(fit, tokens=1e8)  # equal α: r_a / r_b = 3 ** (1 / 1.1)
    >>> rec.mixture, round(rec.mixture["a"] / rec.mixture["b"] / 3 ** (1 / 1.1), 9)
    (Mixture({'a': 0.73081, 'b': 0.26919}), 1.0)
    >>> capped = recommend(fit, tokens=1e8, available_tokens={"a": 1.5e7}, max_epochs=4)
    >>> print(capped.mixture, capped.binding["a"])
    Mixture({'a': 0.6, 'b': 0.4}) at its upper limit, 0.6 (15M tokens × 4 epochs / 100M): 0.01 more would gain 0.0025
    """
    if not (math.isfinite(tokens) and tokens > 0):
        raise RecommendationError(f"the target must be a positive number of tokens, got {tokens!r}")
    if replicates is not None and replicates.method == "linearised":
        raise RecommendationError(
            "linearised replicates have no optimum of their own: use those of bootstrap(obs, fit)"
        )
    given = reference
    fit, replicates = at_size(fit, replicates, model_size)
    box, reference = allowed(
        fit.domains,
        tokens,
        bounds=bounds,
        available_tokens=available_tokens,
        max_epochs=max_epochs,
        prior=prior,
        prior_strength=prior_strength,
        reference=reference,
    )
    unfit = fit.unfit if unfit is None else unfit
    asked = checked_weights(weights, fit.targets, fit.domains, fit.described, fit.links, unfit=unfit, law=fit.law)
    own, doubts = counted(fit, asked)
    weight = objective_weights(own, fit.links)
    near = largest_change(reference.array(fit.domains), max_change, change)
    guards, left_out = guards_of(fit, guardrails, unfit, own)
    doubts += [*left_out, *undecided_by(own, unfit)]
    stands, instead = standing_in(fit, tokens, model_size)
    volume = fit.volume_for(stands, weight | {guard.target: 1.0 for guard in guards})
    of_volume = outside_volume(fit, volume)
    if instead is not None:
        of_volume.append(instead)
    if volume != stands:
        of_volume.append(
            said(
                "one token volume was observed: targets at {tokens} tokens are unknown, and all figures are those at "
                "{volume}. Evaluate at several points of training",
                volume=quantities.tokens(volume),
                tokens=quantities.tokens(tokens),
            )
        )
    holds = holds_of(fit, asked, reference)
    problem = within(fit, volume, weight, box, holds, doubts, beyond_tried=beyond_tried)
    problem = Problem(fit, volume, problem.weights, problem.box, prior, prior_strength, near=near)
    held = guarded(problem, guards, reference, replicates=replicates, probability=guard_probability)
    problem, found, agree = held.problem, held.found, held.agree
    if agree[0] < agree[1]:
        doubts.append(
            said(
                "{agree} of {all} searches ended at the best optimum: this law has other local optima",
                agree=agree[0],
                all=agree[1],
            )
        )
    shares = found.shares[0]
    mixture = _mixture(fit, shares)
    free_problem = within(fit, volume, weight, constrain(fit.domains), holds, [], beyond_tried=beyond_tried)
    free = _mixture(fit, free_problem.minimum([shares])[0].shares[0])
    losses = fit.losses([mixture, reference, free], volume).to_numpy(float)
    ours, theirs, freely = (dict(zip(fit.targets, row, strict=True)) for row in losses.tolist())
    predicted, on_reference = (
        dict(zip(fit.targets, row, strict=True)) for row in fit.in_own_units(losses[:2]).tolist()
    )
    # Losses without a weight may be unknown, and 0 · NaN is NaN.
    used = {d: w for d, w in weight.items() if w > 0}
    binding, edges = binding_at(problem, shares, found)
    sure = None if replicates is None else uncertainty(problem, replicates, mixture, reference, progress=progress)
    return Recommendation(
        mixture=mixture,
        tokens=float(tokens),
        volume=float(volume),
        model_size=model_size,
        level_size=fit.model_size,
        weights=own,
        predicted=predicted,
        reference=reference,
        reference_predicted=on_reference,
        described=fit.described,
        links=fit.links,
        gain=float(sum(w * (theirs[d] - ours[d]) for d, w in used.items())),
        kkt_residual=float(found.kkt_residual[0]),
        agree=agree,
        held=edges | {domain: hold.why for domain, hold in holds.items()},
        warnings=(
            *doubts,
            *(said("the reference breaks a constraint: {text}", text=text) for text in box.broken_by(reference)),
            *of_volume,
            *outside(fit, mixture, weight),
        ),
        of_volume=tuple(of_volume),
        constraints=box,
        binding=binding,
        unconstrained=free,
        constraint_cost=float(sum(w * (ours[d] - freely[d]) for d, w in used.items())),
        by_law=_by_law(problem),
        prior=prior,
        prior_strength=prior_strength,
        uncertainty=sure,
        near_optimal=near_optimal(problem, shares, replicates, tolerance, progress=progress),
        guards=held.results,
        guards_together=held.together,
        guard_probability=guard_probability,
        max_change=max_change,
        change=change,
        path=None
        if given is None and near is None
        else smallest_change(problem, reference, replicates, change=change, sure=sure, beyond=problem.near is near),
    )


def allowed(
    domains: Sequence[str],
    tokens: float,
    *,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    prior: Mixture | None = None,
    prior_strength: float = 0.0,
    reference: Mixture | None = None,
) -> tuple[Constraints, Mixture]:
    """Return which mixtures a question allows and its reference; takes no fit, so a wrong name is found before one.

    Args:
        domains: Those of the sweep.
        tokens: As in `recommend`, like all that follow.
        bounds: By domain.
        available_tokens: By domain.
        max_epochs: For all, or by domain.
        prior: A mixture of these domains.
        prior_strength: κ.
        reference: A mixture of these domains.

    Raises:
        ConstraintError: Constraints that are wrong or that no mixture meets.
        RecommendationError: A prior or a reference of other domains, or a prior without a strength.

    >>> allowed(["code", "web"], 1e9, bounds={"cod": 0.2})
    Traceback (most recent call last):
    bimix_tracking.errors.ConstraintError: bounds of unknown domain...
    """
    box = constrain(domains, tokens=tokens, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs)
    if reference is None:
        reference = proportional_reference(domains, available_tokens)
    _same_domains(reference, domains, "reference")
    return _with_prior(box, domains, prior, prior_strength), reference


def _by_law(problem: Problem) -> dict[str, Mixture]:
    """Return what each law of an ensemble would recommend: their spread is how much the law's form decides."""
    found = {}
    for name, member in problem.fit.members.items():
        weight = {t: w for t, w in problem.weights.items() if t in member.targets and member.targets[t].outcome.usable}
        if sum(weight.values()) < sum(problem.weights.values()):
            continue
        if problem.limits and not {one.target for one in problem.limits.each} <= set(member.targets):
            continue
        alone = replace(problem, fit=member, weights=weight)
        best = alone.minimum([])[0]
        if not isinstance(best, GuardedMinimum) or best.feasible[0]:
            found[name] = _mixture(member, best.shares[0])
    return found


def _with_prior(box: Constraints, domains: Sequence[str], prior: Mixture | None, strength: float) -> Constraints:
    if not (math.isfinite(strength) and strength >= 0):
        raise RecommendationError(f"the prior's strength must be finite and not negative, got {strength!r}")
    if prior is None:
        if strength:
            raise RecommendationError(f"a prior's strength of {strength:g} needs a prior mixture: give one")
        return box
    if not strength:
        raise RecommendationError("a prior mixture needs a strength, such as 0.1 nats")
    _same_domains(prior, domains, "prior")
    most = (prior.array(domains) > 0).astype(float)
    if (box.lower > most).any():
        bad = [d for d, low, high in zip(domains, box.lower, most, strict=True) if low > high]
        raise ConstraintError(
            f"domains {bad} have lower bounds above 0 and are not in the prior mixture: give them a small proportion "
            "there"
        )
    return box.narrowed(np.zeros(len(most)), most, said("the prior mixture has none of it"))


def _same_domains(mixture: Mixture, domains: Sequence[str], what: str) -> None:
    try:
        mixture.array(domains)
    except MixtureError as error:
        raise RecommendationError(f"the {what} mixture doesn't fit: {error}") from error


def _mixture(fit: LawFit, shares: Array) -> Mixture:
    return Mixture.normalized(dict(zip(fit.domains, shares.tolist(), strict=True)))
