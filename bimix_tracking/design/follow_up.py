"""Which mixtures to run next: those that make the choice of the mixture surest, given what was run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import centre, inside, into_box, rounded, scattered, usable
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


@dataclass(frozen=True)
class NextRuns(PlannedRuns):
    """The runs to make next. See `next_runs`; the writers are those of `PlannedRuns`.

    Args:
        error: Standard error of the decision before any of them, nats of weighted loss: of the difference between
            the recommended mixture and those that replicates of the fit would have recommended instead.
        expected: What it is expected to be once the run of the row and those above it are made: one row a run, columns
            `error` and `shrink`, the part of the first error that is then gone.
        recommended: What the fit recommends as it is.
    """

    error: float
    expected: pd.DataFrame
    recommended: Mixture

    def sentences(self) -> tuple[str, ...]:
        """Return in plain words what the runs are expected to bring."""
        last = self.expected.iloc[-1]
        text = (
            f"The recommended mixture's lead over its rivals is known to ±{self.error:.2g} nats; with these "
            f"{len(self)} runs that is expected to be ±{last['error']:.2g}, {100 * last['shrink']:.0f} % less."
        )
        if last["shrink"] < 0.1:
            return (text, "More runs of this size hardly help: what is left is noise, or the law's form.")
        return (text,)


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
    replicates: Replicates | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> NextRuns:
    """Return the mixtures whose runs are expected to make the decision surest.

    The bootstrap's replicates are draws of what the law may be. Those draws disagree on contrasts c_a = F(a) − F(r̂)
    between the mixture r̂ recommended now and the mixtures a that they themselves find best. By Gaussian conditioning
    on the loss y of a run at x, whose noise has variance σ²,

        Var(c | y) = Var(c) − Cov(c, y)² / (Var(y) + σ²),

    target by target, since a target's losses tell its own law only. Runs are taken one after another, each so that
    the mean variance of the contrasts falls most. (The expected regret itself has kinks that hundreds of replicates
    resolve badly; it falls with these variances.) Losses are those at the largest volume that was observed.

    Args:
        obs: The sweep.
        fit: Its fit, of any law.
        n: How many runs.
        tokens: Data volume of the run that will use the mixture.
        weights: How much a nat of each target counts, as in `recommend`.
        bounds: By domain, (lower, upper) or a pinned proportion.
        available_tokens: Distinct tokens a domain has.
        max_epochs: How often a token may be repeated.
        replicates: Of the fit; by default those of `bootstrap`.
        seed: Of the draws.
        progress: Is told how far the draws are.

    Raises:
        ObservationsError: Fewer than three runs, or too few replicates could be fitted.
        RecommendationError: Nothing can be recommended from the fit, or n is no positive number.
        ConstraintError: Constraints that are wrong, or that leave one mixture only.

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
    decided, pool = _mixtures(obs, fit, recommended.mixture, box, rng)
    problem = _Problem.of(fit, replicates, counted, decided, pool, recommended.volume)
    chosen, errors = problem.greedy(n)
    return NextRuns(
        names=tuple(f"next-{i + 1:0{max(2, len(str(n)))}d}" for i in range(n)),
        mixtures=tuple(rounded(fit.domains, pool[i], box) for i in chosen),
        seeds=tuple(chosen[:i].count(one) for i, one in enumerate(chosen)),
        error=errors[0],
        expected=pd.DataFrame(
            {"error": errors[1:], "shrink": [1 - after / errors[0] if errors[0] else 0.0 for after in errors[1:]]},
            index=[f"next-{i + 1:0{max(2, len(str(n)))}d}" for i in range(n)],
        ),
        recommended=recommended.mixture,
    )


def _mixtures(
    obs: Observations, fit: LawFit, best: Mixture, box: Constraints, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return mixtures to decide between, the recommended one first, and mixtures to run; each (n, domains)."""
    lower, upper = usable(box)
    run = obs.mixtures.drop_duplicates()[list(fit.domains)].to_numpy(float)
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

    def greedy(self, n: int) -> tuple[list[int], list[float]]:
        """Return the members of the pool to run, and the decision's standard error before and after each."""
        count = len(self.contrasts)
        chosen: list[int] = []
        errors = [self._error()]
        for _ in range(n):
            variance = np.einsum("tjj->tj", self.covariance)
            across = self.covariance[:, :count, count:]
            total = variance[:, None, count:] + self.noise[:, None, None]
            squared = across**2 / np.maximum(total * variance[:, :count, None], 1e-300)
            # Correlations over a few hundred replicates look larger than they are.
            squared = np.maximum(squared - (1 - squared) / (self.replicates - 2), 0)
            fall = np.einsum("c,tcj->j", self.contrasts, squared * variance[:, :count, None])
            one = int(fall.argmax())
            chosen.append(one)
            column = self.covariance[:, :, count + one]
            told = column[:, count + one] + self.noise
            self.covariance = self.covariance - column[:, :, None] * column[:, None, :] / told[:, None, None]
            errors.append(self._error())
        return chosen, errors

    def _error(self) -> float:
        count = len(self.contrasts)
        variance = np.maximum(np.einsum("tjj->tj", self.covariance)[:, :count], 0)
        return math.sqrt(float((variance @ self.contrasts).sum()))


def _noise(replicates: Replicates, targets: list[str], level: Array) -> Array:
    """Return the variance of a run's loss about the law, nats², of each target."""
    off = replicates.off[targets]
    known: Any = off.notna().sum()
    variance = (off**2).sum() / np.maximum(known - 2, 1)
    return np.asarray(np.maximum(variance.to_numpy(float), (_QUIET * level) ** 2))
