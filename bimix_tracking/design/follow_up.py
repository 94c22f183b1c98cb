"""Which mixtures to run next: those that make the choice of the mixture surest, given what was run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.design.fisher import Information
from bimix_tracking.design.pilot import LAWS, NOISE
from bimix_tracking.design.pool import Mixtures, choices
from bimix_tracking.design.practical_box import practical, widened
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import (
    SMALLEST_SHARE,
    centre,
    distances,
    inside,
    into_box,
    rounded,
    scattered,
    separation,
    usable,
)
from bimix_tracking.errors import ObservationsError, RecommendationError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import MIN_RUNS, Replicates
from bimix_tracking.fitting.resampling import bootstrap
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.constraints import MAX_EPOCHS, Bounds, Constraints, constrain
from bimix_tracking.recommendation.recommendation import recommend

_FEWEST = 50
_POOL, _NEAR = 160, 120
_BEYOND = 1.5
"""How far beyond the proportions tried a run may go, as a factor."""
_QUIET = 1e-5
"""A run is off by at least this part of its loss: residuals of a noise-free sweep are 0, and no run is that sure."""
_PREDICTED = 0.75
"""How much log V_pred counts. On real sweeps (`tests/benchmarks/designs.py --only pool`, both sizes in view) the
decision alone helped the held-out error no more than random runs do, and predictions alone the choice no more; with as
much as this the first gains nearly all that it can, and the second something."""
_PASSES = 4


@dataclass(frozen=True)
class NextRuns(PlannedRuns):
    """The runs to make next. See `next_runs`; the writers are those of `PlannedRuns`.

    Args:
        error: Standard error of the decision before any of them, nats of weighted loss: of the difference between
            the recommended mixture and those that replicates of the fit would have recommended instead.
        expected: What it is expected to be once the run of the row and those above it are made: one row a run, columns
            `error` and `shrink`, the part of the first error that is then gone.
        recommended: What the fit recommends as it is.
        notes: What of a pool was excluded.
    """

    error: float
    expected: pd.DataFrame
    recommended: Mixture
    notes: tuple[str, ...] = ()

    def sentences(self) -> tuple[str, ...]:
        """Return in plain words what the runs are expected to bring."""
        last = self.expected.iloc[-1]
        text = (
            f"The recommended mixture's lead over its rivals is known to ±{self.error:.2g} nats; with these "
            f"{len(self)} runs that is expected to be ±{last['error']:.2g}, {100 * last['shrink']:.0f} % less."
        )
        if last["shrink"] < 0.1:
            said = "More runs of this size hardly help: what is left is noise, or the law's form."
            return (text, said, *self.notes)
        return (text, *self.notes)


def next_runs(
    obs: Observations,
    fit: LawFit,
    n: int,
    *,
    tokens: float,
    weights: Mapping[str, float] | None = None,
    bounds: Bounds | None = None,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float | Mapping[str, float] = MAX_EPOCHS,
    pool: Mixtures | None = None,
    laws: Sequence[str] = LAWS,
    noise: float = NOISE,
    replicates: Replicates | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> NextRuns:
    """Return the mixtures whose runs are expected to make the decision surest.

    The bootstrap's replicates are draws of what the law may be. Those draws disagree on contrasts c_a = F(a) − F(r̂)
    between the mixture r̂ recommended now and the mixtures a that they themselves find best. By Gaussian conditioning
    on the loss y of a run at x, whose noise has variance σ²,

        Var(c | y) = Var(c) − Cov(c, y)² / (Var(y) + σ²),

    target by target, since a target's losses tell its own law only. (The expected regret itself has kinks that hundreds
    of replicates resolve badly; it falls with these variances.) Losses are those at the largest volume that was
    observed. But a fit to few runs is sure of much that it shouldn't be, so runs that only settle what it doubts leave
    it wrong elsewhere: beside the decision, as in `plan_pilot`, counts the variance V_pred that plausible laws expect
    of predicted differences. The runs minimise, by exchange,

        ¾ log V_pred + ¼ log Σ Var(c).

    As in `plan_pilot`, none is a near-twin of another or of one that was made, and domains without bounds keep to
    between 2 and 70 %, or to what was tried where that is wider.

    Args:
        obs: The sweep.
        fit: Its fit, of any law.
        n: How many runs.
        tokens: Data volume of the run that will use the mixture.
        weights: How much a nat of each target counts, as in `recommend`.
        bounds: By domain, (lower, upper) or a pinned proportion.
        available_tokens: Distinct tokens a domain has.
        max_epochs: How often a token may be repeated.
        pool: Mixtures to choose among, as in `plan_pilot`. Those that were run are excluded, and counted in `notes`.
        laws: The laws that may turn out right.
        noise: Standard deviation of a run's log loss by chance.
        replicates: Of the fit; by default those of `bootstrap`.
        seed: Of the draws.
        progress: Is told how far the draws are.

    Raises:
        ObservationsError: Fewer than three runs, or too few replicates could be fitted.
        RecommendationError: Nothing can be recommended from the fit, or n is no positive number.
        ConstraintError: Constraints that are wrong, or that leave one mixture only; a pool of other domains, or with
            fewer mixtures than runs.

    >>> rng = np.random.default_rng(0)
    >>> rows = [{"a": a, "b": 1 - a, "tokens": 1e9, "la": a**-0.1 * 3 + 0.02 * rng.normal(), "lb": (1 - a)**-0.2 * 2}
    ...         for a in (0.4, 0.45, 0.5, 0.55, 0.6)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> from bimix_tracking import fit_law
    >>> found = next_runs(obs, fit_law(obs), 2, tokens=1e9)
    >>> found.names, bool(found.expected["error"].iloc[-1] < 0.7 * found.error)
    (('next-01', 'next-02'), True)
    """
    if n < 1:
        raise RecommendationError(f"the number of runs must be positive, got {n}")
    if len(obs.runs) < MIN_RUNS:
        raise ObservationsError(
            f"{len(obs.runs)} runs don't tell what they leave unsure: that takes at least {MIN_RUNS}. "
            "Plan a pilot (bimix plan DOMAIN…) instead"
        )
    recommended = recommend(
        fit, tokens, weights=weights, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs
    )
    box = constrain(fit.domains, tokens=tokens, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs)
    rng = np.random.default_rng(seed)
    if replicates is None:
        replicates = bootstrap(obs, fit, seed=seed, progress=progress)
    counted = {t: w for t, w in recommended.weights.items() if w > 0 and t in fit.targets}
    run = obs.mixtures.drop_duplicates()[list(fit.domains)].to_numpy(float)
    kept = practical(box, bounds or {})
    low, high = widened(box, kept, run)
    lower, upper = usable(replace(kept, lower=low, upper=high))
    decided, members = _mixtures(run, fit, recommended.mixture, (lower, upper), rng)
    notes: tuple[str, ...] = ()
    if pool is not None:
        given = choices(pool, box, n, run)
        members, notes = given.shares, given.notes
    around = np.concatenate([run, members])
    low, high = around.min(0), around.max(0)
    expected = Information(laws, np.minimum(np.maximum(low, SMALLEST_SHARE), high), high, noise=noise, rng=rng)
    problem = _Problem.of(fit, replicates, counted, decided, members, recommended.volume)
    chosen = _exchanged(problem, expected, run, members, n)
    errors = problem.errors(chosen)
    return NextRuns(
        names=tuple(f"next-{i + 1:0{max(2, len(str(n)))}d}" for i in range(n)),
        mixtures=tuple(_mixture(fit.domains, members[i], None if pool is not None else box) for i in chosen),
        seeds=(0,) * n,
        error=errors[0],
        expected=pd.DataFrame(
            {"error": errors[1:], "shrink": [1 - after / errors[0] if errors[0] else 0.0 for after in errors[1:]]},
            index=[f"next-{i + 1:0{max(2, len(str(n)))}d}" for i in range(n)],
        ),
        recommended=recommended.mixture,
        notes=notes,
    )


def _mixture(domains: tuple[str, ...], shares: Array, box: Constraints | None) -> Mixture:
    if box is None:
        return Mixture(dict(zip(domains, shares.tolist(), strict=True)))
    return rounded(domains, shares, box)


def _mixtures(
    run: Array, fit: LawFit, best: Mixture, box: tuple[Array, Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return mixtures to decide between, the recommended one first, and mixtures to run; each (n, domains)."""
    lower, upper = box
    at = into_box(np.maximum(best.array(fit.domains), 1e-6)[None], lower, upper)
    # The optimum is sought among proportions that were tried; a law knows nothing beyond.
    low, high = np.maximum(lower, run.min(0)), np.minimum(upper, run.max(0))
    if (low > high).any() or low.sum() > 1 or high.sum() < 1:
        low, high = lower, upper
    widths = np.array([0.1, 0.3, 0.6])[np.arange(_NEAR) % 3, None]
    near = inside(at * np.exp(widths * rng.standard_normal((_NEAR, len(lower)))), low, high, rng)
    decided = np.concatenate([at, near, into_box(np.maximum(run, 1e-6), low, high)])
    # A run is wanted near those there are: far off, the law that promises to learn from it needn't hold.
    lower = np.maximum(lower, np.minimum(run.min(0) / _BEYOND, upper))
    upper = np.minimum(upper, np.maximum(run.max(0) * _BEYOND, lower))
    spread = scattered(np.concatenate([at, centre(lower, upper)[None], decided]), _POOL, lower, upper, rng)
    # Half-way from the recommended mixture to a corner of the box, and beyond it, away from what was run.
    corners = into_box(np.where(np.eye(len(lower)) > 0, 1.0, 1e-6), lower, upper)
    beyond = at**1.5 / np.maximum(np.exp(np.log(np.maximum(run, 1e-6)).mean(0)), 1e-6) ** 0.5
    return decided, np.concatenate(
        [inside(np.concatenate([at, (at + corners) / 2, beyond]), lower, upper, rng), spread]
    )


@dataclass
class _Problem:
    """Covariances over the replicates, target by target, of contrasts and of what runs would tell.

    Args:
        contrasts: How often the replicates want each contrast's mixture, shape (contrasts,).
        covariance: Shape (targets, contrasts + pool, contrasts + pool).
        noise: σ² of a run's loss, shape (targets,).
        replicates: How many.
    """

    contrasts: Array
    covariance: Array
    noise: Array
    replicates: int

    @classmethod
    def of(
        cls,
        fit: LawFit,
        replicates: Replicates,
        weights: Mapping[str, float],
        decided: Array,
        pool: Array,
        tokens: float,
    ) -> _Problem:
        """Return the problem of a fit and its replicates."""
        at = [list(fit.targets).index(target) for target in weights]
        weight = np.array(list(weights.values()))
        there = replicates.losses(decided, tokens)[..., at] * weight
        runs = replicates.losses(pool, fit.tokens[1])[..., at]
        told = np.isfinite(there).all((1, 2)) & np.isfinite(runs).all((1, 2))
        if told.sum() < _FEWEST:
            raise ObservationsError(
                f"only {int(told.sum())} of {len(told)} replicates could be fitted: the runs are too few or too alike "
                "to say what they leave unsure. Plan a pilot (bimix plan DOMAIN…) instead"
            )
        there, runs = there[told], runs[told]
        often = np.bincount(there.sum(-1).argmin(1), minlength=len(decided)).astype(float)
        often[0] = 0
        # Where all want the recommended mixture, its lead over every other one is what can still be made surer.
        often = often if often.any() else np.r_[0.0, np.ones(len(decided) - 1)]
        rivals = np.flatnonzero(often)
        contrasts = there[:, rivals] - there[:, :1]
        both = np.concatenate([contrasts, runs], axis=1)
        both -= both.mean(0)
        wider = np.array([replicates.wider(target) for target in weights])
        covariance = np.einsum("bit,bjt->tij", both, both, optimize=True) / (len(both) - 1) * wider[:, None, None] ** 2
        return cls(
            contrasts=often[rivals] / often.sum(),
            covariance=covariance,
            noise=_noise(replicates, list(weights), runs.mean((0, 1))),
            replicates=len(both),
        )

    def given(self, chosen: Sequence[int]) -> Array:
        """Return the covariance once those members of the pool are run, shape as `covariance`."""
        if not len(chosen):
            return self.covariance
        at = len(self.contrasts) + np.asarray(chosen)
        across = self.covariance[:, :, at]
        told = across[:, at] + self.noise[:, None, None] * np.eye(len(at))
        return np.asarray(self.covariance - across @ np.linalg.solve(told, np.swapaxes(across, 1, 2)))

    def after(self, chosen: Sequence[int]) -> Array:
        """Return log Σ Var(c) with each member of the pool run beside the chosen ones, shape (pool,)."""
        count, covariance = len(self.contrasts), self.given(chosen)
        variance = np.einsum("tjj->tj", covariance)
        across = covariance[:, :count, count:]
        total = variance[:, None, count:] + self.noise[:, None, None]
        squared = across**2 / np.maximum(total * variance[:, :count, None], 1e-300)
        # Correlations over a few hundred replicates look larger than they are.
        squared = np.maximum(squared - (1 - squared) / (self.replicates - 2), 0)
        left = np.einsum("c,tcj->j", self.contrasts, (1 - squared) * variance[:, :count, None])
        return np.asarray(np.log(np.maximum(left, 1e-300)))

    def errors(self, chosen: Sequence[int]) -> list[float]:
        """Return the decision's standard error before and after each of the runs."""
        count, found = len(self.contrasts), []
        for made in range(len(chosen) + 1):
            variance = np.maximum(np.einsum("tjj->tj", self.given(chosen[:made]))[:, :count], 0)
            found.append(math.sqrt(float((variance @ self.contrasts).sum())))
        return found


def _exchanged(problem: _Problem, expected: Information, run: Array, pool: Array, n: int) -> list[int]:
    """Return the members of the pool to run: greedily, then each exchanged in turn until none helps."""
    rows = expected.jacobians(pool)
    apart = separation(run, pool, n)
    near = distances(pool, pool) < apart
    np.fill_diagonal(near, val=True)
    beside_run = distances(pool, run).min(1) < apart

    def best(rest: list[int]) -> tuple[int, Array]:
        value = _PREDICTED * expected.after(np.concatenate([run, pool[rest]]), rows)
        value = value + (1 - _PREDICTED) * problem.after(rest)
        allowed = np.where(beside_run | near[rest].any(0), np.inf, value)
        return int(allowed.argmin()), value

    chosen: list[int] = []
    for _ in range(n):
        chosen.append(best(chosen)[0])
    for _ in range(_PASSES):
        moved = False
        for place in range(n):
            one, value = best(chosen[:place] + chosen[place + 1 :])
            if value[one] < value[chosen[place]] - 1e-4:
                chosen[place], moved = one, True
        if not moved:
            break
    # What is run first is what the decision gains most by.
    ordered: list[int] = []
    while len(ordered) < n:
        after = problem.after(ordered)
        ordered.append(min((one for one in chosen if one not in ordered), key=lambda one: float(after[one])))
    return ordered


def _noise(replicates: Replicates, targets: list[str], level: Array) -> Array:
    """Return the variance of a run's loss about the law, nats², of each target."""
    off = replicates.off[targets]
    known: Any = off.notna().sum()
    variance = (off**2).sum() / np.maximum(known - 2, 1)
    return np.asarray(np.maximum(variance.to_numpy(float), (_QUIET * level) ** 2))
