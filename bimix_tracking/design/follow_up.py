"""Which mixtures to run next: those that make the choice of the mixture surest, given what was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.design.fisher import Information
from bimix_tracking.design.next_search import Decision, exchanged
from bimix_tracking.design.pilot import LAWS, NOISE
from bimix_tracking.design.pool import Mixtures, choices
from bimix_tracking.design.practical_box import practical, widened
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import (
    SMALLEST_SHARE,
    centre,
    inside,
    into_box,
    rounded,
    scattered,
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
from bimix_tracking.recommendation.recommending import recommend

_POOL, _NEAR = 160, 120
_BEYOND = 1.5
"""How far beyond the proportions tried a run may go, as a factor."""


@dataclass(frozen=True, repr=False)
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
        """Return what the runs are expected to add."""
        last = self.expected.iloc[-1]
        text = (
            f"The recommended mixture's lead over its rivals has an error of ±{self.error:.2g} nats. These {len(self)} "
            f"runs are expected to reduce it to ±{last['error']:.2g}, {100 * last['shrink']:.0f} % less."
        )
        if last["shrink"] < 0.1:
            said = "More runs of this size hardly help: the rest is noise or model misspecification."
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

    target by target, since a target's losses inform its own law only. (The expected regret itself has kinks that
    hundreds of replicates resolve badly; it falls with these variances.) Losses are those at the largest volume
    observed. But a fit to few runs is overconfident, so runs that only settle what it doubts leave
    it wrong elsewhere: beside the decision, as in `plan_pilot`, counts the variance V_pred that plausible laws expect
    of predicted differences. The runs minimise, by exchange,

        0.9 log V_pred + 0.1 log Σ Var(c).

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
        progress: Called as (what, done, total).

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
            f"{len(obs.runs)} runs are too few to estimate their uncertainty: at least {MIN_RUNS} are needed. "
            "Plan a pilot (bimix plan DOMAIN…) instead"
        )
    recommended = recommend(
        fit, tokens, weights=weights, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs
    )
    box = constrain(fit.domains, tokens=tokens, bounds=bounds, available_tokens=available_tokens, max_epochs=max_epochs)
    rng = np.random.default_rng(seed)
    if replicates is None:
        replicates = bootstrap(obs, fit, seed=seed, progress=progress)
    working = objective_weights(recommended.weights, fit.links)
    counted = {t: w for t, w in working.items() if w > 0 and t in fit.targets}
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
    decision = Decision.of(fit, replicates, counted, decided, members, recommended.volume)
    chosen = exchanged(decision, expected, run, members, n, progress)
    errors = decision.errors(chosen)
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
