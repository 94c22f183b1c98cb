"""What a recommendation is worth: the tokens, steps, GPU-hours and money it saves at equal loss, less the pilot's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bimix_tracking.decision import LEVEL
from bimix_tracking.errors import RecommendationError
from bimix_tracking.law_fit import LawFit
from bimix_tracking.laws.protocol import Array
from bimix_tracking.objective import WeightedLoss
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.resampling import Replicates

_REACH = math.log(1e3)
"""Savings are sought down to a thousandth of the tokens, and losses up to a thousand times as many."""
_HALVINGS = 40


@dataclass(frozen=True)
class Costs:
    """What training costs the team; None where it isn't said.

    Args:
        gpu_hours_per_run: Of one proxy run.
        target_gpu_hours: Of the run that will use the mixture.
        price_per_gpu_hour: In any currency.
        batch_tokens: Tokens of one step of the run that will use the mixture.
    """

    gpu_hours_per_run: float | None = None
    target_gpu_hours: float | None = None
    price_per_gpu_hour: float | None = None
    batch_tokens: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecommendationError(f"{name.replace('_', ' ')} must be a positive number, got {value!r}")


@dataclass(frozen=True)
class Worth:
    """What is saved at equal loss: (tokens of the reference − tokens of the recommended mixture) / the former.

    Args:
        fraction: The part of the tokens that is saved; below 0 the recommended mixture needs more.
        interval: Of the fraction, from the replicates; None without them.
        level: Of the interval.
        tokens: Of the run, s.
        runs: Proxy runs of the pilot.
        costs: What the team says training costs.
    """

    fraction: float
    interval: tuple[float, float] | None
    level: float
    tokens: float
    runs: int
    costs: Costs

    @property
    def tokens_saved(self) -> float:
        """Tokens saved."""
        return self.fraction * self.tokens

    @property
    def steps_saved(self) -> float | None:
        """Optimiser steps saved; None where a step's tokens aren't known."""
        return None if self.costs.batch_tokens is None else self.tokens_saved / self.costs.batch_tokens

    @property
    def gpu_hours_saved(self) -> float | None:
        """GPU-hours saved in the run; None where its GPU-hours aren't known."""
        return None if self.costs.target_gpu_hours is None else self.fraction * self.costs.target_gpu_hours

    @property
    def pilot_gpu_hours(self) -> float | None:
        """GPU-hours the proxy runs took; None where one's aren't known."""
        return None if self.costs.gpu_hours_per_run is None else self.runs * self.costs.gpu_hours_per_run

    @property
    def net_gpu_hours(self) -> float | None:
        """GPU-hours saved less those of the pilot."""
        saved, spent = self.gpu_hours_saved, self.pilot_gpu_hours
        return None if saved is None or spent is None else saved - spent

    @property
    def break_even_gpu_hours(self) -> float | None:
        """GPU-hours from which a run that uses the mixture pays for the pilot; infinite where nothing is saved."""
        spent = self.pilot_gpu_hours
        return None if spent is None else spent / self.fraction if self.fraction > 0 else math.inf

    def money(self, gpu_hours: float | None) -> float | None:
        """Return the price of GPU-hours; None where either isn't known."""
        price = self.costs.price_per_gpu_hour
        return None if gpu_hours is None or price is None else gpu_hours * price

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types; None where something isn't known or is without bound."""
        figures = {
            "fraction": self.fraction,
            "tokens_saved": self.tokens_saved,
            "steps_saved": self.steps_saved,
            "gpu_hours_saved": self.gpu_hours_saved,
            "pilot_gpu_hours": self.pilot_gpu_hours,
            "net_gpu_hours": self.net_gpu_hours,
            "break_even_gpu_hours": self.break_even_gpu_hours,
            "money_saved": self.money(self.gpu_hours_saved),
            "pilot_money": self.money(self.pilot_gpu_hours),
            "net_money": self.money(self.net_gpu_hours),
        }
        known = {n: v if v is not None and math.isfinite(v) else None for n, v in figures.items()}
        ends = None if self.interval is None else [v if math.isfinite(v) else None for v in self.interval]
        return {**known, "interval": ends, "level": self.level, "runs": self.runs, **vars(self.costs)}


def worth(
    fit: LawFit,
    rec: Recommendation,
    *,
    runs: int,
    replicates: Replicates | None = None,
    costs: Costs | None = None,
    level: float = LEVEL,
) -> Worth:
    """Return what the recommended mixture saves: the s' at which it has the loss that the reference has at s.

        F(recommended, s') = F(reference, s),    saved = 1 − s' / s,    F(r, s) = Σ_i w_i L_i(r, s)

    Args:
        fit: The fitted law.
        rec: From `recommend`.
        runs: Proxy runs of the pilot.
        replicates: From `bootstrap`: gives the interval.
        costs: GPU-hours and prices, as far as known.
        level: Of the interval.

    >>> from bimix_tracking.law_fit import DomainFit, Outcome
    >>> from bimix_tracking import Mixture, recommend
    >>> made = {"alpha": 0.5, "beta": 0.5, "B": 1e4, "C": 0.0}
    >>> one = DomainFit(made, Outcome.CONVERGED, 9, 3, 0.0, 1.0, (3, 3), (0.1, 0.9))
    >>> fit = LawFit("bimix", ("a", "b"), {"a": one, "b": one}, (1e6, 1e8), 1e7, 0.01, 1e-3, "", "")
    >>> rec = recommend(fit, 1e8, reference=Mixture({"a": 0.2, "b": 0.8}))
    >>> saved = worth(fit, rec, runs=8, costs=Costs(gpu_hours_per_run=2, target_gpu_hours=1000))
    >>> round(saved.fraction, 3), round(saved.net_gpu_hours)  # L = K (r_a^-½ + r_b^-½) s^-½: s'/s = (2.828 / 3.354)²
    (0.289, 273)
    """
    shares = np.stack([rec.mixture.array(fit.domains), rec.reference.array(fit.domains)])
    weights = {target: w for target, w in rec.weights.items() if target in fit.targets}
    fraction = float(_saved(WeightedLoss(fit, rec.tokens, weights), shares, rec.tokens, 1)[0])
    interval = None
    if replicates is not None:
        theta = replicates.theta
        told = WeightedLoss(fit, rec.tokens, weights, theta=theta).told
        kept = {name: values[told] for name, values in theta.items()}
        if told.sum() > 1:
            wider = max(replicates.wider(target) for target, w in weights.items() if w > 0)
            drawn = _saved(WeightedLoss(fit, rec.tokens, weights, theta=kept), shares, rec.tokens, int(told.sum()))
            # In log(s' / s), where it is nearly even about the fit.
            off = np.log1p(-drawn) - np.log1p(-fraction)
            low, high = np.quantile(off, [(1 - level) / 2, (1 + level) / 2]) * wider
            ends = -np.expm1(np.log1p(-fraction) + np.array([high, low]))
            interval = (float(ends[0]), float(ends[1]))
    return Worth(fraction, interval, level, rec.tokens, runs, costs or Costs())


def _saved(loss: WeightedLoss, shares: Array, tokens: float, versions: int) -> Array:
    """Return 1 − s' / s of each version: 1 − 1000 where a thousand times the tokens aren't enough."""
    which = np.arange(versions)
    ours, reference = (np.tile(row, (versions, 1)) for row in shares)
    goal = loss.value(reference, which, np.full(versions, tokens))
    low, high = np.full(versions, -_REACH), np.full(versions, _REACH)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = loss.value(ours, which, tokens * np.exp(middle)) <= goal
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.asarray(-np.expm1(high))
