"""Anchor runs: which mixtures to run at the target size, how long, and what they are expected to buy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bimix_tracking.data.model_sizes import MEANT, checked_size
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights, target_weights
from bimix_tracking.design.anchor_worth import expected_errors
from bimix_tracking.design.anchored import FARTHEST, RECOMMENDED, REFERENCE, anchor_mixtures
from bimix_tracking.design.run_files import PlannedRuns, RunScale
from bimix_tracking.design.stopping import PARTS, SUM, Stopping, stopping
from bimix_tracking.errors import ConstraintError, ObservationsError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about, count, flops, parameters, percent
from bimix_tracking.quantities import tokens as tokens_of
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.investment.flops import training_flops

_MOST = 3
"""Of so many anchors it is said what each is expected to buy."""
_WIDER = 1.25
"""An anchor is stopped where its error grows to no more than this."""
_LEAST_ALONE = 0.5
"""A sweep of one size underrates what stopping earlier costs: at 20 % of SlimPajama's schedule by a factor of three."""


@dataclass(frozen=True, repr=False)
class AnchorPlan(PlannedRuns):
    """The anchor runs. See `plan_anchors`; the writers are those of `PlannedRuns`.

    Args:
        roles: Why each is run: `recommended`, `reference`, or `sweep`: one far from both.
        model_size: Of the target run, parameters.
        tokens: Of the target run, and of the anchors' schedule.
        part: Which part of the schedule they are trained for.
        errors: Expected standard deviation of a predicted loss at the target size, relative: one row a number of whole
            anchors from 0 on, one column a target and `weighted sum`. NaN: unknown.
        stopping: What stopping early adds; None where the sweep's curves don't have it.
        costs: As far as known.
        notes: What to know before they are run.
    """

    roles: tuple[str, ...]
    model_size: float
    tokens: float
    part: float
    errors: pd.DataFrame
    stopping: Stopping | None
    costs: Costs = field(default_factory=Costs)
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> float:
        """Of one anchor, 6 N D."""
        return training_flops(self.model_size, self.part * self.tokens)

    @property
    def gpu_hours(self) -> float | None:
        """Of one anchor: its part of the target run's; None where those aren't known."""
        whole = self.costs.target_gpu_hours
        return None if whole is None else self.part * whole

    def error(self, anchors: int, part: float | None = None, target: str = SUM) -> float:
        """Return the expected error with so many anchors, relative: a standard deviation.

            √(σ² + σ_c²),    σ of whole anchors, σ_c of stopping at a part of the schedule

        The second is common to all anchors: a larger model's curve differs from the law's in each of them alike.

        Args:
            anchors: How many, from 0.
            part: Of the schedule; that of the plan where not given.
            target: A target or `weighted sum`.
        """
        at = self.part if part is None else part
        early = 0.0 if at >= 1 or not anchors else math.nan if self.stopping is None else self.stopping.at(at, target)
        return math.hypot(self.errors[target].tolist()[anchors], early)

    def table(self) -> pd.DataFrame:
        """Return what each number of anchors costs and buys.

        One row a number of anchors; columns `flops`, `tokens`, `gpu_hours` (NaN: unknown) and `error`, that of the
        weighted sum.
        """
        hours = math.nan if self.gpu_hours is None else self.gpu_hours
        rows = [
            {
                "flops": number * self.flops,
                "tokens": number * self.part * self.tokens,
                "gpu_hours": number * hours,
                "error": self.error(number),
            }
            for number in self.errors.index.tolist()
        ]
        return pd.DataFrame(rows, index=self.errors.index)

    def lengths(self) -> pd.DataFrame:
        """Return what stopping early costs and buys, with as many anchors as are planned.

        One row a part of the schedule; columns `flops` and `tokens` of one anchor, `adds` (the error by stopping) and
        `error` of the weighted sum.
        """
        parts = [*PARTS, 1.0] if self.stopping is not None else [1.0]
        rows = [
            {
                "flops": training_flops(self.model_size, part * self.tokens),
                "tokens": part * self.tokens,
                "adds": 0.0 if self.stopping is None else self.stopping.at(part),
                "error": self.error(min(len(self), _MOST), part),
            }
            for part in parts
        ]
        return pd.DataFrame(rows, index=pd.Index(parts, name="part"))

    def sentences(self) -> tuple[str, ...]:
        """Return what is run, for how long, and what it is expected to buy."""
        return (self._which(), *self._buys(), *self._how_long(), *self.notes)

    def _which(self) -> str:
        named = {
            RECOMMENDED: "the recommended mixture",
            REFERENCE: "the reference",
            FARTHEST: "a mixture of the sweep far from the others",
        }
        which = ", ".join(f"{name} is {named[role]}" for name, role in zip(self.names, self.roles, strict=True))
        hours = "" if self.gpu_hours is None else f", {count(self.gpu_hours)} GPU-hours"
        return (
            f"{which}. Each takes {tokens_of(self.part * self.tokens)} tokens at {parameters(self.model_size)} "
            f"parameters: {flops(self.flops)} FLOPs (6 N D){hours}."
        )

    def _buys(self) -> list[str]:
        numbers = [number for number in self.errors.index.tolist() if number]
        if not math.isfinite(self.error(1, 1.0)):
            return ["What an anchor buys is unknown: no mixture could be held out of the sweep."]
        whole = not math.isfinite(self.error(1))
        known = [(number, self.error(number, 1.0 if whole else None)) for number in numbers]
        before = self.error(0)
        now = f"The losses at {parameters(self.model_size)} parameters are unknown without an anchor."
        if math.isfinite(before):
            now = f"The weighted loss predicted there has a standard deviation of {percent(before)} as it is."
        more = " more" if math.isfinite(before) else ""
        each = ", ".join(f"{percent(error)} with {_named(number)}{more}" for number, error in known)
        of = "a prediction, with whole anchors" if whole else "a prediction"
        return [f"{now} Expected standard deviation of {of}: {each}."]

    def _how_long(self) -> list[str]:
        length = tokens_of(self.tokens)
        found = [f"Their learning-rate schedule must be the target run's, {length} tokens, also where they stop early."]
        if RECOMMENDED in self.roles and self.part < 1:
            found.append("If the recommended mixture is chosen, its anchor can be resumed as the target run.")
        if self.stopping is None:
            return [*found, "What stopping early adds is unknown: fewer than three runs have curves to their end."]
        if math.isnan(self.stopping.at(self.part)):
            found.append(f"What stopping at {about(self.part)} adds is unknown: too few evaluations come before it.")
        adds = {part: self.stopping.at(part) for part in PARTS}
        each = ", ".join(f"{percent(e)} at {about(part)}" for part, e in adds.items() if math.isfinite(e))
        of = f"{self.stopping.runs} runs of the sweep"
        if each:
            found.append(f"Stopping early adds an error at the end, measured on the curves of {of}: {each}.")
        if each and not self.stopping.across:
            found.append(
                "They are of one model size, so how a larger model's curve differs isn't in it: it is that or more."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what is planned and what it is expected to buy, as JSON types."""
        rows = {
            each: [
                {key: at} | {str(name): _finite(value) for name, value in row.items()}
                for at, row in frame.to_dict("index").items()
            ]
            for each, key, frame in (("by_number", "anchors", self.table()), ("by_length", "part", self.lengths()))
        }
        by_target = {str(t): [_finite(e) for e in self.errors[t].tolist()] for t in self.errors if t != SUM}
        return {
            "model_size": self.model_size,
            "schedule_tokens": self.tokens,
            "part": self.part,
            "flops": self.flops,
            "gpu_hours": self.gpu_hours,
            "roles": list(self.roles),
            "expected": rows,
            "expected_by_target": by_target,
        }


def plan_anchors(
    obs: Observations,
    fit: LawFit,
    *,
    model_size: float,
    tokens: float,
    recommended: Mixture,
    reference: Mixture,
    anchors: int = 2,
    part: float | None = None,
    weights: Mapping[str, float] | None = None,
    replicates: Replicates | None = None,
    costs: Costs | None = None,
) -> AnchorPlan:
    """Return the runs at the target size that tell the level of its losses, and what each is expected to buy.

    The first is the recommended mixture, whose run can become the target run; the second the reference; each further
    one the mixture of the sweep that leaves all others nearest to an anchor, for the errors of two mixtures differ by
    the more the farther apart they are (`FormError.apart`):

        argmin_a Σ_r min_{b ∈ anchors ∪ {a}} ½ Σ_i |r_i − b_i|

    A reference far outside the sweep comes last: what is measured there hardly holds elsewhere. For the errors see
    `bimix_tracking.design.anchor_worth.expected_errors`, for stopping early `bimix_tracking.design.stopping`.

    Args:
        obs: The sweep, as it was read.
        fit: Its fit.
        model_size: Of the target run, parameters.
        tokens: Of the target run.
        recommended: What the sweep recommends.
        reference: The present mixture.
        anchors: How many.
        part: Which part of the schedule an anchor is trained for. None: the smallest of those measured that widens the
            error of the weighted sum by at most a quarter, by curves of one size no less than a half; else all of it.
        weights: How much a nat of each target counts, as in `recommend`.
        replicates: Of the fit: they tell its error of estimation apart from that of a run.
        costs: GPU-hours, as far as known.

    Raises:
        ConstraintError: No positive number of anchors or tokens, or a part that isn't one.
        ObservationsError: A size that is none or smaller than the proxies', or one that the law was fitted to.
        MixtureError: A mixture of other domains.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> rows = [{"a": a, "b": 1 - a, "tokens": 1e9 * s, "la": (a**-0.1 * (3 + s**-0.5)) * np.exp(0.01 * rng.normal()),
    ...          "lb": (1 - a)**-0.2 * (2 + s**-0.5)} for a in (0.2, 0.35, 0.5, 0.65, 0.8) for s in (0.3, 0.5, 0.7, 1)]
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la", "b": "lb"},
    ...                              tokens="tokens", model_size=1e8)
    >>> from bimix_tracking import select_law
    >>> plan = plan_anchors(obs, select_law(obs).fit, model_size=1e9, tokens=2e10,
    ...                     recommended=Mixture({"a": 0.4, "b": 0.6}), reference=Mixture({"a": 0.5, "b": 0.5}))
    >>> plan.roles, bool(plan.error(2) < plan.error(1))
    (('recommended', 'reference'), True)
    """
    size = _checked(obs, fit, model_size)
    if anchors < 1:
        raise ConstraintError(f"the number of anchors must be positive, got {anchors}")
    if not (math.isfinite(tokens) and tokens > 0):
        raise ConstraintError(f"the tokens of the target run must be a positive number, got {tokens!r}")
    if part is not None and not 0 < part <= 1:
        raise ConstraintError(f"an anchor is trained for a part of its schedule between 0 and 1, got {part!r}")
    chosen, notes = anchor_mixtures(obs, fit, recommended, reference, anchors)
    working = objective_weights(
        target_weights(weights, fit.targets, fit.domains, fit.described, fit.links, unfit=fit.unfit), fit.links
    )
    counted = {target: weight for target, weight in working.items() if weight > 0 and target in fit.targets}
    errors = expected_errors(fit, counted, model_size=size, anchors=max(_MOST, anchors), replicates=replicates)
    stops = stopping(obs, fit, counted)
    width = max(2, len(str(anchors)))
    plan = AnchorPlan(
        names=tuple(f"anchor-{number + 1:0{width}d}" for number in range(len(chosen))),
        mixtures=tuple(mixture for _, mixture in chosen),
        seeds=(0,) * len(chosen),
        roles=tuple(role for role, _ in chosen),
        model_size=size,
        tokens=tokens,
        part=1.0,
        errors=errors,
        stopping=stops,
        costs=costs or Costs(),
        notes=tuple(notes + _unsized(obs)),
    )
    at = _part(plan) if part is None else part
    scale = RunScale(size, tokens, at * tokens)
    return _with(plan, at, (scale,) * len(chosen))


def _with(plan: AnchorPlan, part: float, scales: tuple[RunScale, ...]) -> AnchorPlan:
    return AnchorPlan(**vars(plan) | {"part": part, "scales": scales})


def _part(plan: AnchorPlan) -> float:
    """Return the smallest part of the schedule that widens the error by little."""
    number = min(len(plan), _MOST)
    most = _WIDER * plan.error(number)
    least = 0.0 if plan.stopping is not None and plan.stopping.across else _LEAST_ALONE
    return next((part for part in PARTS if part >= least and plan.error(number, part) <= most), 1.0)


def _checked(obs: Observations, fit: LawFit, size: float) -> float:
    try:
        checked = checked_size(size)
    except ValueError as error:
        raise ObservationsError(str(error)) from None
    known = obs.model_sizes
    if known and checked * MEANT < known[0]:
        listing = ", ".join(map(parameters, known))
        raise ObservationsError(
            f"the target size of {parameters(checked)} parameters is smaller than the proxies' ({listing}): an anchor "
            "is a run at the size of the target run. Give that one"
        )
    bridge = fit.bridge
    exact = [] if bridge is None else [one.size for one in bridge.sizes if one.exact]
    if any(max(one / checked, checked / one) <= MEANT for one in exact):
        raise ObservationsError(
            f"the law is fitted to the runs of {parameters(checked)} parameters, so an anchor there adds no level. "
            "Give the size of the target run, or plan more runs of the sweep (bimix plan --after)"
        )
    return checked


def _unsized(obs: Observations) -> list[str]:
    if obs.sizes:
        return []
    remedy = "Log it, or give it in a column model_size."
    return [f"The runs' model size is unknown, and without it they can't be pooled with an anchor. {remedy}"]


def _named(number: int) -> str:
    return {1: "one anchor", 2: "two", 3: "three"}.get(number, str(number))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
