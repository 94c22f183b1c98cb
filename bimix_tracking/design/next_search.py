"""The search for the next runs: what each would add to the decision, and to all mixtures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tracking.design.fisher import CHOOSING, EXCHANGING, Information
from bimix_tracking.design.space_filling import distances, separation
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.progress import Progress, reported

_FEWEST = 50
_QUIET = 1e-5
"""Least noise of a run, as a part of its loss: residuals of a noise-free sweep are 0, and no run is that exact."""
_PREDICTED = 0.9
"""How much log V_pred counts. Chosen with both sizes of SlimPajama in view (`tests/benchmarks/designs.py --only pool`):
by the decision alone the held-out error is about that of random runs, and with more than a tenth of it most of the gain
is lost on one of the two sizes."""
_PASSES = 4


@dataclass
class Decision:
    """Covariances over the replicates, target by target, of contrasts and of what runs would measure.

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
    ) -> Decision:
        """Return the problem of a fit and its replicates."""
        at = [list(fit.targets).index(target) for target in weights]
        weight = np.array(list(weights.values()))
        there = replicates.losses(decided, tokens)[..., at] * weight
        runs = replicates.losses(pool, fit.tokens[1])[..., at]
        fitted = np.isfinite(there).all((1, 2)) & np.isfinite(runs).all((1, 2))
        if fitted.sum() < _FEWEST:
            raise ObservationsError(
                f"only {int(fitted.sum())} of {len(fitted)} replicates could be fitted: the runs are too few or too "
                "alike. Plan a pilot (bimix plan DOMAIN…) instead"
            )
        there, runs = there[fitted], runs[fitted]
        often = np.bincount(there.sum(-1).argmin(1), minlength=len(decided)).astype(float)
        often[0] = 0
        # Where all choose the recommended mixture, its lead over every other one can still be estimated better.
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

    def given(self, chosen: Sequence[int]) -> tuple[Array, Array]:
        """Return what is left once those members of the pool are run.

        Returns:
            Variances, (targets, contrasts + pool), and covariances of contrasts with members, (targets, contrasts,
            pool).
        """
        count = len(self.contrasts)
        variance, across = np.einsum("tjj->tj", self.covariance), self.covariance[:, :count, count:]
        if not len(chosen):
            return variance, across
        at = count + np.asarray(chosen)
        with_runs = self.covariance[:, :, at]
        observed = with_runs[:, at] + self.noise[:, None, None] * np.eye(len(at))
        gain = np.linalg.solve(observed, np.swapaxes(with_runs, 1, 2))
        left = np.maximum(variance - np.einsum("tjk,tkj->tj", with_runs, gain), 0)
        return left, across - with_runs[:, :count] @ gain[:, :, count:]

    def after(self, chosen: Sequence[int]) -> Array:
        """Return log Σ Var(c) with each member of the pool run beside the chosen ones, shape (pool,)."""
        count = len(self.contrasts)
        variance, across = self.given(chosen)
        total = variance[:, None, count:] + self.noise[:, None, None]
        squared = across**2 / np.maximum(total * variance[:, :count, None], 1e-300)
        # Correlations over a few hundred replicates look larger than they are.
        squared = np.maximum(squared - (1 - squared) / (self.replicates - 2), 0)
        left = np.einsum("c,tcj->j", self.contrasts, (1 - squared) * variance[:, :count, None])
        return np.asarray(np.log(np.maximum(left, 1e-300)))

    def errors(self, chosen: Sequence[int]) -> list[float]:
        """Return the decision's standard error before and after each of the runs."""
        count = len(self.contrasts)
        left = [self.given(chosen[:made])[0][:, :count] for made in range(len(chosen) + 1)]
        return [math.sqrt(float((variance @ self.contrasts).sum())) for variance in left]


def exchanged(
    decision: Decision, expected: Information, run: Array, pool: Array, n: int, progress: Progress | None
) -> list[int]:
    """Return the members of the pool to run: greedily, then each exchanged in turn until none helps."""
    rows = expected.jacobians(pool)
    apart = separation(run, pool, n)
    near = distances(pool, pool) < apart
    np.fill_diagonal(near, val=True)
    beside_run = distances(pool, run).min(1) < apart

    def best(rest: list[int]) -> tuple[int, Array]:
        value = _PREDICTED * expected.after(np.concatenate([run, pool[rest]]), rows)
        value = value + (1 - _PREDICTED) * decision.after(rest)
        allowed = np.where(beside_run | near[rest].any(0), np.inf, value)
        return int(allowed.argmin()), value

    chosen: list[int] = []
    for _ in reported(progress, CHOOSING, range(n)):
        chosen.append(best(chosen)[0])
    for number in range(_PASSES):
        moved = False
        for place in reported(progress, f"{EXCHANGING}, pass {number + 1}", range(n)):
            one, value = best(chosen[:place] + chosen[place + 1 :])
            if value[one] < value[chosen[place]] - 1e-4:
                chosen[place], moved = one, True
        if not moved:
            break
    # What is run first is what the decision gains most by.
    ordered: list[int] = []
    while len(ordered) < n:
        after = decision.after(ordered)
        ordered.append(min((one for one in chosen if one not in ordered), key=lambda one: float(after[one])))
    return ordered


def _noise(replicates: Replicates, targets: list[str], level: Array) -> Array:
    """Return the variance of a run's loss about the law, nats², of each target."""
    residuals = replicates.residuals[targets]
    known: Any = residuals.notna().sum()
    variance = (residuals**2).sum() / np.maximum(known - 2, 1)
    return np.asarray(np.maximum(variance.to_numpy(float), (_QUIET * level) ** 2))
