"""Uncertainty of a recommendation: intervals of its proportions, its gain and its losses; expected regret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.optimum import Problem

LEVEL = 0.9
_FEWEST = 20


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class Uncertainty:
    """How much the recommendation varies over sweeps of the same kind.

    From a run-level bootstrap, and from the fit's held-out errors where it has them (`LawFit.held_out`): then the
    intervals of losses and of the gain, its probability and the expected regret include model misspecification. Those
    of the proportions exclude it, and none includes the noise of a single run.

    Args:
        level: Of the intervals.
        replicates: How many could be re-optimised.
        shares: Interval of each proportion of the optimum, one row a domain, columns low and high.
        gain: Interval of the gain of the recommended mixture over the reference, in the objective's unit (nats of
            losses); about the gain less `optimism`.
        probability: That the recommended mixture's expected weighted loss is below the reference's.
        regret: Expected regret, nats: the weighted loss above that of the true optimum.
        predicted: Interval of each target's expected loss on the recommended mixture, columns low and high.
        reference_predicted: Likewise on the reference.
        optimism: Selection bias of the gain, nats: the mixture was chosen by the law that predicts it.
        form_error: Standard deviation of the gain by model misspecification, nats; None where it is excluded.
        change: Interval of each target's change, recommended − reference in its own unit, columns low and high.
    """

    level: float
    replicates: int
    shares: pd.DataFrame
    gain: tuple[float, float]
    probability: float
    regret: float
    predicted: pd.DataFrame
    reference_predicted: pd.DataFrame
    optimism: float = 0.0
    form_error: float | None = None
    change: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"low": [], "high": []}))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "level": self.level,
            "replicates": self.replicates,
            "interval": ends(self.shares),
            "gain": list(self.gain),
            "probability": self.probability,
            "optimism": self.optimism,
            "form_error": self.form_error,
            "includes_misspecification": self.form_error is not None,
            "regret": self.regret,
            "predicted": ends(self.predicted),
            "reference_predicted": ends(self.reference_predicted),
            "change": ends(self.change),
        }


def uncertainty(
    problem: Problem,
    replicates: Replicates,
    mixture: Mixture,
    reference: Mixture,
    level: float = LEVEL,
    *,
    progress: Progress | None = None,
) -> Uncertainty | None:
    """Return the uncertainty of a problem's optimum; None where too few replicates could be fitted.

    Each replicate's law F_b is optimised again under the same constraints. By the fit F̂ its optimum r_b is worse than
    r̂ by as much as r̂ is likely to be worse than the true one, and the chosen mixture's gain is overstated by as much:

        Ĝ_c = Ĝ − median_b [F̂(r_b) − F̂(r̂)],    Ĝ = F̂(reference) − F̂(r̂)

    Its interval has the quantiles of the replicates' gain over the same two mixtures, and the form error of their
    difference, as `Replicates.change`. (The pivot that repeats the choice, F_b(reference) − F_b(r_b) against F̂ of the
    same, takes off twice as much as is lost: replicates of few runs are wilder than the sweep.)

    Args:
        problem: What was minimised.
        replicates: Of its fit.
        mixture: Its optimum.
        reference: What it is compared with.
        level: Of the intervals.
        progress: Called as (what, done, total).
    """
    known = problem.loss(replicates.theta).known
    if known.sum() < _FEWEST:
        return None
    theta = {name: values[known] for name, values in replicates.theta.items()}
    fit, weights = problem.fit, problem.weights
    at = mixture.array(fit.domains)
    found = problem.minima(theta, at, progress=progress)
    box = problem.box
    weight = np.array([weights.get(target, 0.0) for target in fit.targets])
    counted = weight > 0
    two = np.stack([at, reference.array(fit.domains)])
    losses = replicates.losses(two, problem.tokens)[known][..., counted] @ weight[counted]
    by_fit = fit.losses(np.concatenate([two, found.shares]), problem.tokens).to_numpy(float)
    by_fit = by_fit[:, counted] @ weight[counted]
    gain = float(by_fit[1] - by_fit[0])
    worse = by_fit[2:] - by_fit[0]
    optimism = max(float(np.median(worse)), 0.0)
    form = replicates.form(weights)
    others = np.concatenate([two[1:], found.shares])
    apart = np.zeros(len(others)) if form is None else form.between(at, others)
    below, above = (
        float(side) for side in replicates.sides(losses[:, 1] - losses[:, 0] - gain, weights, apart[0], level)
    )
    lower, upper = replicates.interval(two, problem.tokens, level)
    names = list(fit.targets)
    predicted, reference_predicted = (
        pd.DataFrame({"low": lower.iloc[row].to_numpy(), "high": upper.iloc[row].to_numpy()}, index=names)
        for row in (0, 1)
    )
    sides = np.array([(1 - level) / 2, (1 + level) / 2])
    wider = max(replicates.wider(target) for target, weight in weights.items() if weight > 0)
    low, high = at + wider * np.quantile(found.shares - at, sides, axis=0)
    return Uncertainty(
        level=level,
        replicates=int(known.sum()),
        shares=pd.DataFrame(
            {"low": np.clip(low, box.lower, box.upper), "high": np.clip(high, box.lower, box.upper)},
            index=list(fit.domains),
        ),
        gain=(gain - optimism + below, max(gain - optimism + above, gain)),
        probability=_positive(gain - optimism, (below, above), replicates.free(weights), level, len(losses)),
        regret=float(np.median(_won(np.maximum(worse, 0), np.sqrt(apart[1:])))),
        predicted=predicted,
        reference_predicted=reference_predicted,
        optimism=optimism,
        form_error=None if form is None else float(np.sqrt(apart[0])),
        change=pd.concat(replicates.change(mixture, reference, problem.tokens, level), axis=1, keys=("low", "high")),
    )


def _positive(centre: float, sides: tuple[float, float], free: int, level: float, draws: int) -> float:
    """Return the probability that a gain is above 0, by Student's t on the side of its interval that 0 is on."""
    side = -sides[0] if centre > 0 else sides[1]
    most = 1 - 0.5 / (draws + 1)  # never 0 or 1: so few draws cannot say that
    if not side > 0:
        return most if centre > 0 else 0.5 if centre == 0 else 1 - most
    scale = side / float(student.ppf((1 + level) / 2, free))
    return float(np.clip(student.cdf(centre / scale, free), 1 - most, most))


def _won(regret: Array, spread: Array) -> Array:
    """Return E max(0, X) of X ~ N(regret, spread²): what the better mixture would gain, were it known."""
    ratio = np.minimum(regret / np.maximum(spread, 1e-300), 40.0)  # from there on nothing is left of the density
    return np.asarray(regret * norm.cdf(ratio) + spread * norm.pdf(ratio))


def ends(table: pd.DataFrame) -> dict[str, list[float | None]]:
    """Return the two columns of a table of intervals by row, as JSON types."""
    return {str(name): list(finite({"low": low, "high": high}).values()) for name, low, high in table.itertuples()}


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers as JSON has them: None for what is none."""
    return {name: float(v) if np.isfinite(v) else None for name, v in values.items()}


def between(table: pd.DataFrame, name: str) -> tuple[float, float]:
    """Return the two ends in a row of a table of intervals."""
    low, high = table.loc[[name]].to_numpy(float)[0].tolist()
    return low, high
