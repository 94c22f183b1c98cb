"""How sure a recommendation is: intervals of its proportions, its gain and its losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.mixture import Mixture
from bimix_tracking.progress import Progress
from bimix_tracking.recommendation.optimum import Problem

LEVEL = 0.9
_FEWEST = 20


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class Uncertainty:
    """What the recommendation could have been, had other runs of the same kind been made.

    It is the uncertainty of the fitted law, from a run-level bootstrap; it excludes model misspecification and the
    noise of a single run.

    Args:
        level: Of the intervals.
        replicates: How many could be re-optimised.
        shares: Interval of each proportion of the optimum, one row a domain, columns low and high.
        gain: Interval of the gain of the recommended mixture over the reference, nats.
        probability: That the recommended mixture's expected weighted loss is below the reference's.
        regret: Expected regret, nats: the weighted loss above that of the true optimum, which more runs could win.
        predicted: Interval of each target's expected loss on the recommended mixture, columns low and high.
        reference_predicted: Likewise on the reference.
    """

    level: float
    replicates: int
    shares: pd.DataFrame
    gain: tuple[float, float]
    probability: float
    regret: float
    predicted: pd.DataFrame
    reference_predicted: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "level": self.level,
            "replicates": self.replicates,
            "interval": ends(self.shares),
            "gain": list(self.gain),
            "probability": self.probability,
            "regret": self.regret,
            "predicted": ends(self.predicted),
            "reference_predicted": ends(self.reference_predicted),
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
    """Return how sure the optimum of a problem is; None where too few replicates could be fitted.

    Each replicate's law is optimised again under the same constraints. Deviations from the fit are widened as
    `Replicates.interval` does.

    Args:
        problem: What was minimised.
        replicates: Of its fit.
        mixture: Its optimum.
        reference: What it is compared with.
        level: Of the intervals.
        progress: Is told how many replicates are optimised.
    """
    told = problem.loss(replicates.theta).told
    if told.sum() < _FEWEST:
        return None
    theta = {name: values[told] for name, values in replicates.theta.items()}
    fit = problem.fit
    at = mixture.array(fit.domains)
    found = problem.minima(theta, at, progress=progress)
    sides = np.array([(1 - level) / 2, (1 + level) / 2])
    wider = max(replicates.wider(target) for target, weight in problem.weights.items() if weight > 0)
    low, high = at + wider * np.quantile(found.shares - at, sides, axis=0)
    box = problem.box
    weight = np.array([problem.weights.get(target, 0.0) for target in fit.targets])
    counted = weight > 0
    three = np.stack([at, reference.array(fit.domains)])
    losses = replicates.losses(three, problem.tokens)[told][..., counted] @ weight[counted]
    centre = fit.losses(three, problem.tokens).to_numpy(float)[:, counted] @ weight[counted]
    gain = float(centre[1] - centre[0])
    gains = gain + wider * (losses[:, 1] - losses[:, 0] - gain)
    lower, upper = replicates.interval(three, problem.tokens, level)
    names = list(fit.targets)
    predicted, reference_predicted = (
        pd.DataFrame({"low": lower.iloc[row].to_numpy(), "high": upper.iloc[row].to_numpy()}, index=names)
        for row in (0, 1)
    )
    own = problem.loss(theta)
    which = np.arange(len(found.shares))
    ours = own.value(np.tile(at, (len(which), 1)), which, np.full(len(which), problem.tokens))
    best = own.value(found.shares, which, np.full(len(which), problem.tokens))
    return Uncertainty(
        level=level,
        replicates=int(told.sum()),
        shares=pd.DataFrame(
            {"low": np.clip(low, box.lower, box.upper), "high": np.clip(high, box.lower, box.upper)},
            index=list(fit.domains),
        ),
        gain=(float(np.quantile(gains, sides[0])), float(np.quantile(gains, sides[1]))),
        # Never 0 or 1: so few draws cannot say that.
        probability=float(((gains > 0).sum() + 0.5) / (len(gains) + 1)),
        regret=float(np.maximum(ours - best, 0).mean()),
        predicted=predicted,
        reference_predicted=reference_predicted,
    )


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
