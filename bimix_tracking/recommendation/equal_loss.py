"""The tokens at which one mixture has another's loss, sought among the data volumes that were observed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import mixture_codes, volume_codes
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.laws.protocol import Array
from bimix_tracking.laws.volume import LOG_BETA
from bimix_tracking.recommendation.solvers.objective import WeightedLoss
from bimix_tracking.recommendation.uncertainty import Uncertainty

FARTHEST = 4.0
"""Times the largest volume observed up to which it is sought: at 25 times, two fit windows of one sweep said 17 and
79 % of savings."""
Span = tuple[float, float]
"""Lower and upper end; infinite where the search for it ended at its limit."""
_LATE_VOLUMES = 3
"""Fewer volumes in a window identify no law."""
_HALVINGS = 40
_AT_BOUND = 1e-6


@dataclass(frozen=True)
class EqualLoss:
    """The search for s' among the volumes observed.

    Args:
        shares: The recommended mixture and the reference, shape (2, domains).
        weights: Of the targets that count.
        smallest: Data volume from which all of them were observed.
        largest: And to which.
    """

    shares: Array
    weights: Mapping[str, float]
    smallest: float
    largest: float

    def saved(self, fit: LawFit, tokens: float) -> float:
        """Return 1 − s' / s; +∞ where s' is below all volumes observed, −∞ where it is above the search."""
        return _as_saved(float(self._log_ratio(fit, tokens, None, 1)[0]))

    def interval(
        self, fit: LawFit, replicates: Replicates, tokens: float, level: float, gain: Uncertainty | None = None
    ) -> Span | None:
        """Return the interval of the saved fraction; None where too few replicates could be fitted.

        It promises no more than the gain's: what the gain may owe to the law's form, and what it owes to the luck of
        the chosen, move the loss that is to be reached. So does the error of a model size's level, by what it differs
        between targets: √ Var Σ_i w_i ε_i (L_i(reference, s) − L_i(recommended, s')), for a common ε is 0 there.

        Args:
            fit: The fit.
            replicates: Of it.
            tokens: Of the reference.
            level: Of the interval.
            gain: The uncertainty of the gain.
        """
        known = WeightedLoss(fit, tokens, self.weights, theta=replicates.theta).known
        if known.sum() <= 1:
            return None
        kept = {name: values[known] for name, values in replicates.theta.items()}
        first, last = self._ends(tokens)

        def ratio(theta: Mapping[str, Array] | None, versions: int, easier: float = 0.0) -> Array:
            # A version at an end of the search is beyond it.
            return np.clip(self._log_ratio(fit, tokens, theta, versions, easier), first, last)

        # In log(s' / s), where it is almost symmetric about the fit.
        luck = 0.0 if gain is None else gain.optimism
        centre = float(ratio(None, 1, -luck)[0])
        below, above = replicates.sides(
            ratio(kept, int(known.sum())) - float(ratio(None, 1)[0]), self.weights, 0.0, level
        )
        form = (gain.form_error or 0.0) if gain is not None else 0.0
        form = replicates.times(self.weights, level) * math.hypot(form, self._level_error(fit, replicates, tokens))
        low = centre - math.hypot(float(below), centre - float(ratio(None, 1, form - luck)[0]))
        high = centre + math.hypot(float(above), float(ratio(None, 1, -form - luck)[0]) - centre)
        return (
            _as_saved(math.inf if high >= last else high),
            _as_saved(-math.inf if low <= first else low),
        )

    def _level_error(self, fit: LawFit, replicates: Replicates, tokens: float) -> float:
        """Return the standard deviation, nats, that the level's error has in the difference at equal loss."""
        log_ratio = float(self._log_ratio(fit, tokens, None, 1)[0])
        if fit.bridge is None or not math.isfinite(log_ratio):
            return 0.0
        ours, theirs = fit.losses(self.shares, [tokens * math.exp(log_ratio), tokens]).to_dict("records")
        terms = {str(target): weight * (theirs[target] - ours[target]) for target, weight in self.weights.items()}
        noise = {target: replicates.run_noise({target: 1.0}) / theirs[target] for target in terms}
        of_run = math.fsum((term * noise[target]) ** 2 for target, term in terms.items())
        return math.sqrt(fit.bridge.variance(fit.bridge.reference, terms, of_run))

    def _ends(self, tokens: float) -> tuple[float, float]:
        """Return between which log(s' / s) it is sought."""
        return math.log(self.smallest / tokens), math.log(FARTHEST * max(tokens, self.largest) / tokens)

    def _log_ratio(
        self, fit: LawFit, tokens: float, theta: Mapping[str, Array] | None, versions: int, easier: float = 0.0
    ) -> Array:
        """Return log(s' / s) of each version of a fit; infinite where s' is beyond an end of the search.

        `easier` is by how many nats the loss to be reached is above the reference's.
        """
        loss = WeightedLoss(fit, tokens, self.weights, theta=theta)
        which = np.arange(versions)
        ours, reference = (np.tile(row, (versions, 1)) for row in self.shares)
        goal = loss.value(reference, which, np.full(versions, tokens)) + easier

        def enough(log_ratio: Array) -> Array:
            return np.asarray(loss.value(ours, which, tokens * np.exp(log_ratio)) <= goal)

        low, high = (np.full(versions, end) for end in self._ends(tokens))
        below, above = enough(low), np.logical_not(enough(high))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            reached = enough(middle)
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return np.where(below, -np.inf, np.where(above, np.inf, high))


def _as_saved(log_ratio: float) -> float:
    """Return 1 − s' / s of log(s' / s); +∞ of −∞, for so few tokens were not observed."""
    return math.inf if log_ratio == -math.inf else -math.expm1(log_ratio) if math.isfinite(log_ratio) else -math.inf


def mixtures_at_two_volumes(obs: Observations, targets: Sequence[str]) -> bool:
    """Return whether some mixture has losses of each target at two data volumes, in one run or in several."""
    mixture = mixture_codes(obs.mixtures.to_numpy(float))
    run, target = obs.codes
    table = obs.losses.assign(mixture=mixture[run])
    for name in targets:
        volumes = table[target == obs.targets.index(name)].groupby("mixture")["tokens"].agg(["min", "max"])
        if not (volumes["max"] > SAME_VOLUME * volumes["min"]).any():
            return False
    return True


def beta_held(fit: LawFit, target: str) -> bool:
    """Return whether a law's exponent of the data volume is at a bound: then the data don't identify it."""
    beta = fit.targets[target].parameters.get("beta") if target in fit.targets else None
    if beta is None:
        return False
    low, high = (math.exp(end) for end in LOG_BETA)
    return not low * (1 + _AT_BOUND) < beta < high * (1 - _AT_BOUND)


def late_part(obs: Observations, largest: float) -> Observations | None:
    """Return the late evaluations: the last factor of four in tokens, or the later half; None if too few."""
    volumes = np.unique(obs.losses["tokens"].to_numpy(float))
    codes = volume_codes(np.log(volumes), SAME_VOLUME)
    groups = np.array([volumes[codes == code].min() for code in range(int(codes.max()) + 1)])
    for first in (largest / FARTHEST, groups[len(groups) // 2]):
        kept = groups >= first
        if _LATE_VOLUMES <= kept.sum() < len(groups):
            losses = obs.losses[obs.losses["tokens"] >= first].reset_index(drop=True)
            runs = set(losses["run"])
            mixtures = obs.mixtures[[run in runs for run in obs.mixtures.index]]
            return Observations(mixtures, losses, source=obs.source)
    return None
