"""What an anchor run at the target size is expected to buy: the error of a predicted loss there, before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bimix_tracking.data.weights import objective_weights, target_weights
from bimix_tracking.design.stopping import SUM
from bimix_tracking.fitting.held_out_errors import FormError
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import said
from bimix_tracking.quantities import parameters, percent


def expected_errors(
    fit: LawFit,
    weights: Mapping[str, float],
    *,
    model_size: float,
    anchors: int = 3,
    replicates: Replicates | None = None,
) -> pd.DataFrame:
    """Return the expected standard deviation of a predicted loss at the target size, relative to the loss.

        √(σ² + 1 / (1 / V + k / v)) / L

    σ² is the variance of the law's held-out errors without a run's noise, v that of a run about law and level, V what
    the level's is now: ∞ where no anchor is there, and k anchors have it at v / k. It is of a mixture like those of the
    sweep, without a run of its own. That mixtures do a little else to a larger model isn't in it, unless the sweep has
    two sizes.

    Args:
        fit: The fit, with its held-out errors.
        weights: Of the working losses in the sum.
        model_size: Of the target run.
        anchors: How many at most.
        replicates: Of the fit: with them the estimation of the law isn't taken for an error of the anchors.

    Returns:
        One row a number of anchors more than there are, from 0 on; one column a target of a weight and `weighted sum`.
        NaN where it is unknown: without held-out mixtures, and of a level that no run and no trend tells.
    """
    counted = {target: weight for target, weight in weights.items() if weight > 0 and target in fit.targets}
    columns = {target: {target: 1.0} for target in counted} | {SUM: counted}
    found = {name: _errors(fit, own, model_size, anchors, replicates) for name, own in columns.items()}
    return pd.DataFrame(found, index=pd.RangeIndex(anchors + 1, name="anchors"))


def _errors(
    fit: LawFit, weights: Mapping[str, float], size: float, anchors: int, replicates: Replicates | None
) -> list[float]:
    held_out = fit.held_out
    if held_out is None or not held_out.runs:
        return [math.nan] * (anchors + 1)
    weight = np.array([weights.get(target, 0.0) for target in fit.targets])
    losses = fit.losses(held_out.shares, held_out.tokens).to_numpy(float)
    use = weight > 0
    terms = np.nanmean(losses[:, use], axis=0) * weight[use]
    # With no replicates drawn nothing is taken off for estimation: each held-out error is one of the whole prediction.
    of_prediction = held_out.form(weights, np.zeros((2, len(held_out.runs))))
    of_run = of_prediction if replicates is None else replicates.form(weights)
    if of_prediction is None or of_run is None:
        return [math.nan] * (anchors + 1)
    names = [target for target, counts in zip(fit.targets, use, strict=True) if counts]
    now, one = _level(fit, dict(zip(names, terms.tolist(), strict=True)), size, of_run)
    total = float(terms.sum())
    known = 0.0 if math.isinf(now) else math.inf if now == 0 else 1 / now
    found = []
    for number in range(anchors + 1):
        precision = known + (number / one if one > 0 else math.inf if number else 0.0)
        level = math.nan if precision == 0 else 1 / precision
        found.append(math.sqrt(of_prediction.each + level) / total)
    return found


def _level(fit: LawFit, terms: Mapping[str, float], size: float, of_run: FormError) -> tuple[float, float]:
    """Return the level's variance as it is and that of one anchor, nats²; ∞ of a level that isn't known."""
    bridge = fit.bridge
    if bridge is None:
        return math.inf, of_run.of_proxy
    try:
        now = bridge.variance(size, terms, of_run.of_proxy)
    except ValueError:
        return math.inf, bridge.of_anchor(terms, of_run.of_proxy)
    return now, bridge.of_anchor(terms, of_run.of_proxy)


def anchor_worth(
    fit: LawFit,
    *,
    model_size: float,
    weights: Mapping[str, float] | None = None,
    replicates: Replicates | None = None,
    level: float = 0.9,
) -> str:
    """Return in a sentence what one anchor at the target size would bring, and three; empty where it is unknown.

    The half width of an interval of the weighted loss is Student's t of its level times `expected_errors`.

    Args:
        fit: The fit, with its held-out errors.
        model_size: Of the target run, parameters.
        weights: As in `recommend`.
        replicates: Of the fit.
        level: Of the interval.
    """
    given = target_weights(weights, fit.targets, fit.domains, fit.described, fit.links, unfit=fit.unfit)
    working = objective_weights(given, fit.links)
    errors = expected_errors(fit, working, model_size=model_size, replicates=replicates)[SUM]
    form = None if fit.held_out is None else fit.held_out.form(working, np.zeros((2, len(fit.held_out.runs))))
    if form is None or not np.isfinite(errors[1]):
        return ""
    times = float(student.ppf((1 + level) / 2, form.free))
    fields = {
        "size": parameters(model_size),
        "level": 100 * level,
        "one": percent(times * float(errors[1])),
        "three": percent(times * float(errors[3])),
    }
    if np.isfinite(errors[0]):
        return said(
            "One more anchor run at {size} parameters would narrow the {level:.0f} % interval of the weighted loss "
            "there from ±{now} to ±{one}, three to ±{three}. Plan them with bimix plan --anchor.",
            now=percent(times * float(errors[0])),
            **fields,
        )
    return said(
        "One anchor run at {size} parameters would bring the {level:.0f} % interval of the weighted loss there to "
        "±{one}, three to ±{three}. Plan them with bimix plan --anchor.",
        **fields,
    )
