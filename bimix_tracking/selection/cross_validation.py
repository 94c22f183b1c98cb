"""Cross-validation: a law's error on held-out mixtures, beside that of the mean of the other runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import spearmanr

from bimix_tracking.data.links import IDENTITY, Link
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.engine.grid import Grid
from bimix_tracking.fitting.ensemble import held_out_stack
from bimix_tracking.fitting.fit import fit_law
from bimix_tracking.fitting.folds import HeldOut, divide, held_out, twins
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.scale.applied import aligned_by
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import digits, percent, points, signed
from bimix_tracking.selection.baseline import mean_of_others

_MIN_RANKED = 4
LAST = 0.95
"""Runs are ranked against each other if their last checkpoint is at no less than this of the longest run's tokens."""


@dataclass(frozen=True, eq=False)  # arrays have no one truth
class Validation:
    """Every loss predicted by a fit that its mixture was held out of.

    Args:
        law: The law.
        folds: How many parts the mixtures were divided into; each was held out once.
        domains: The targets that anything was predicted of.
        runs: Names of the runs.
        tokens: Data volumes, shape (runs, volumes).
        observed: Working losses (nats per token of a loss), shape (domains, runs, volumes); NaN where none is held
            against a prediction.
        predicted: As the fit without the mixture has them, of that shape.
        baseline: The mean log loss of the other runs at that volume, as a loss: no law at all; of that shape.
        weights: Weight of each target domain in the sum that `rank_correlation` is about.
        mixtures: Number of each run's mixture: repeats and near-twins, which are held out together, have one number.
        links: Of targets that are no losses.
    """

    law: str
    folds: int
    domains: tuple[str, ...]
    runs: tuple[str, ...]
    tokens: Array
    observed: Array
    predicted: Array
    baseline: Array
    weights: Mapping[str, float]
    mixtures: Mapping[str, int]
    links: Mapping[str, Link] = field(default_factory=dict)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The same as a table: columns `run`, `tokens`, `domain`, `observed`, `predicted`, `baseline`."""
        domain, run, volume = np.nonzero(np.isfinite(self.observed))
        at = (domain, run, volume)
        return pd.DataFrame(
            {
                "run": np.array(self.runs, object)[run],
                "tokens": self.tokens[run, volume],
                "domain": np.array(self.domains, object)[domain],
                "observed": self.observed[at],
                "predicted": self.predicted[at],
                "baseline": self.baseline[at],
            }
        )

    @cached_property
    def error(self) -> dict[str, float]:
        """Mean |predicted − observed| / observed by target; of an accuracy or score mean |predicted − observed|."""
        return self._errors(self.predicted)

    @cached_property
    def baseline_error(self) -> dict[str, float]:
        """The same of the baseline."""
        return self._errors(self.baseline)

    @cached_property
    def mean_error(self) -> float:
        """Mean relative error of the working losses of all targets."""
        return self._mean(self.predicted)

    @cached_property
    def mean_baseline_error(self) -> float:
        """The same of the baseline."""
        return self._mean(self.baseline)

    @property
    def counted(self) -> Validation:
        """The same of the targets that have a weight; of all where none has."""
        return self.only([d for d in self.domains if self.weights.get(d, 0) > 0] or self.domains)

    def shown_error(self, target: str, *, baseline: bool = False) -> str:
        """Return a target's error as it is printed: of a loss in percent, of an accuracy in points.

        Args:
            target: One of `domains`; of another there is none.
            baseline: That of the baseline instead.
        """
        error = (self.baseline_error if baseline else self.error).get(target, np.nan)
        return _shown(error, self.links.get(target, IDENTITY).kind)

    def shown_mean_error(self, *, baseline: bool = False) -> str:
        """Return the mean error of all targets as it is printed: in points where all are accuracies, else in percent.

        Args:
            baseline: That of the baseline instead.
        """
        kinds = {self.links.get(target, IDENTITY).kind for target in self.domains}
        if kinds == {Kind.ACCURACY}:
            return _shown(float(np.mean(list((self.baseline_error if baseline else self.error).values()))), *kinds)
        return percent(self.mean_baseline_error if baseline else self.mean_error)

    def only(self, domains: Collection[str]) -> Validation:
        """Return the same of some of the domains."""
        kept = [i for i, domain in enumerate(self.domains) if domain in domains]
        names = tuple(self.domains[i] for i in kept)
        if names == self.domains:
            return self
        observed, predicted, baseline = (each[kept] for each in (self.observed, self.predicted, self.baseline))
        return replace(self, domains=names, observed=observed, predicted=predicted, baseline=baseline)

    @cached_property
    def by_mixture(self) -> pd.Series:
        """Relative error of each held-out mixture, every domain counting the same."""
        error = np.abs(self.predicted / self.observed - 1)
        number, code = np.unique([self.mixtures[run] for run in self.runs], return_inverse=True)
        of = np.eye(len(number))[code.reshape(-1)]
        count = np.isfinite(error).sum(-1) @ of
        mean = np.divide(np.nansum(error, -1) @ of, count, out=np.zeros(count.shape), where=count > 0)
        domains = (count > 0).sum(0)
        seen = domains > 0
        return pd.Series(mean.sum(0)[seen] / domains[seen], index=pd.Index(number[seen], name="mixture"))

    @cached_property
    def rank_correlation(self) -> float:
        """Spearman's correlation over runs: the weighted sum of losses at the last checkpoint, predicted and observed.

        It shows what R² along training hides: whether good mixtures rank above bad ones. NaN below four runs.
        """
        sums = self.last_sums()
        if len(sums) < _MIN_RANKED:
            return float("nan")
        return float(spearmanr(sums["observed"], sums["predicted"]).statistic)

    def sentences(self) -> str:
        """Return the held-out error, that of no law, and the rank correlation."""
        rank, ranked = self.rank_correlation, len(self.last_sums())
        error = said(
            "Held-out error {error} over {folds} folds; {baseline} with no law.",
            folds=self.folds,
            error=self.shown_mean_error(),
            baseline=self.shown_mean_error(baseline=True),
        )
        if np.isnan(rank):
            return joined([error, said("Too few runs for a rank correlation ({runs}).", runs=ranked)])
        return joined([error, said("Rank correlation {rank} over {runs} runs.", rank=signed(rank), runs=ranked)])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        rank = self.rank_correlation
        return {
            "law": self.law,
            "folds": self.folds,
            "what": "each mixture predicted by a fit without it; error: mean |predicted/observed - 1|, of targets that "
            "are no losses mean |predicted - observed|",
            "unit": {target: str(self.links[target].kind) for target in self.domains if target in self.links},
            "mean_error": self.mean_error,
            "mean_baseline_error": self.mean_baseline_error,
            "baseline": "mean log loss of the other runs at that token count",
            "rank_correlation": None if np.isnan(rank) else rank,
            "ranked_runs": len(self.last_sums()),
            "error": self.error,
            "baseline_error": self.baseline_error,
            "predictions": self.predictions.to_dict("records"),
        }

    def _errors(self, values: Array) -> dict[str, float]:
        found = {}
        for target, ours, theirs in zip(self.domains, values, self.observed, strict=True):
            link = self.links.get(target, IDENTITY)
            off = ours / theirs - 1 if link.identity else link.value(ours) - link.value(theirs)
            found[target] = float(np.nanmean(np.abs(off)))
        return found

    def _mean(self, values: Array) -> float:
        return float(np.mean(np.nanmean(np.abs(values / self.observed - 1), axis=(1, 2))))

    def last_sums(self) -> pd.DataFrame:
        """Return each run's weighted sum at its last checkpoint, columns observed and predicted; only whole runs."""
        counted = [i for i, domain in enumerate(self.domains) if self.weights.get(domain, 0) > 0]
        weight = np.array([self.weights[self.domains[i]] for i in counted])
        seen: npt.NDArray[np.bool_] = np.isfinite(self.observed[counted])
        present: npt.NDArray[np.bool_] = np.logical_or.reduce(seen)
        last = present.shape[1] - 1 - present[:, ::-1].argmax(1)
        each = np.arange(len(self.runs))
        # A run without one of the domains has a smaller sum for that alone.
        whole = seen[:, each, last].all(0) & present.any(1)
        tokens = self.tokens[each, last]
        whole &= tokens >= LAST * tokens[present.any(1)].max(initial=0.0)
        sums = {
            name: (weight @ values[counted][:, each, last])[whole]
            for name, values in (("observed", self.observed), ("predicted", self.predicted))
        }
        return pd.DataFrame(sums, index=pd.Index(np.array(self.runs, object)[whole], name="run"))


def cross_validate(
    obs: Observations,
    law: str = "bimix",
    *,
    folds: int = 8,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    fit: LawFit | None = None,
    predictions: HeldOut | None = None,
) -> Validation:
    """Hold mixtures out, fit the rest, and predict those held out.

    Runs of one mixture are held out together: a repeat in the fit would give its twin away.

    Args:
        obs: The sweep.
        law: Which law.
        folds: Into how many parts the mixtures are divided, at most one a mixture.
        seed: Of the division, where there are more mixtures than folds.
        weights: Weight of each target domain in the ranking; 1 where not named.
        fit: The law's fit to all of `obs`, if it is at hand.
        predictions: Its held-out predictions (`folds.held_out`), if they are at hand too.

    Raises:
        ObservationsError: Fewer than three mixtures, or none that can be held out.

    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3), "lb": (1 - a)**-0.2 * 2}
    ...         for a in (0.2, 0.4, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> found = cross_validate(obs)
    >>> found.folds, round(found.error["a"], 6), round(found.baseline_error["a"], 2), round(found.rank_correlation, 3)
    (4, 0.0, 0.05, 1.0)
    """
    fit = fit_law(obs, law) if fit is None else fit
    obs = aligned_by(obs, fit.bridge)
    if predictions is None:
        fold = divide(obs, folds, seed)
        if fit.members:
            return of_stack(obs, fit, {n: held_out(obs, member, fold) for n, member in fit.members.items()}, weights)
        predictions = held_out(obs, fit, fold)
    by_target = dict(zip(predictions.grid.targets, predictions.predicted, strict=True))
    return _validation(fit.law, obs, predictions.grid, by_target, predictions.fold, weights)


def of_stack(
    obs: Observations, fit: LawFit, predictions: Mapping[str, HeldOut], weights: Mapping[str, float] | None
) -> Validation:
    """Validate an ensemble from its laws' held-out predictions; a fold's weights are found on the other folds."""
    grid, predicted = held_out_stack(fit, predictions)
    fold = next(iter(predictions.values())).fold
    return _validation(fit.law, obs, grid, predicted, fold, weights)


def _validation(
    law: str,
    obs: Observations,
    grid: Grid,
    predicted: Mapping[str, Array],
    fold: Index,
    weights: Mapping[str, float] | None,
) -> Validation:
    targets = [target for target in grid.targets if target in predicted]
    place = [grid.targets.index(target) for target in targets]
    log_loss = np.stack([predicted[target] for target in targets]) if targets else np.empty((0, *grid.weight.shape[1:]))
    held = (grid.weight[place] > 0) & np.isfinite(log_loss)
    if not held.any():
        raise ObservationsError(
            "without any one of its mixtures, no proportion's effect is identifiable. Add runs with other mixtures"
        )
    # Where nothing is predicted of a target, no run could be ranked by a sum that has it.
    known = np.flatnonzero(held.any((1, 2)))
    domains = tuple(targets[i] for i in known)
    baseline = mean_of_others(grid, fold)

    def losses(values: Array) -> Array:
        return np.exp(np.where(held, values, np.nan)[known])

    return Validation(
        law=law,
        folds=int(fold.max()) + 1,
        domains=domains,
        runs=obs.runs,
        tokens=np.exp(np.broadcast_to(grid.log_u, grid.weight.shape[1:])) * grid.scale,
        observed=losses(grid.log_loss[place]),
        predicted=losses(log_loss),
        baseline=losses(baseline[place]),
        weights={domain: float((weights or {}).get(domain, 1.0)) for domain in domains},
        mixtures=dict(zip(obs.runs, twins(obs)[1].tolist(), strict=True)),
        links={target: link for target, link in obs.links.items() if not link.identity},
    )


def _shown(error: float, kind: Kind) -> str:
    if kind is Kind.ACCURACY:
        return points(error).removeprefix("+")
    return digits(error) if kind is Kind.SCORE else percent(error)
