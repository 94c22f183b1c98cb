"""Cross-validation: how far off a law is on held-out mixtures, beside what one would say without it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.ensemble import held_out_stack
from bimix_tracking.fitting.fit import fit_law
from bimix_tracking.fitting.folds import HeldOut, divide, held_out
from bimix_tracking.fitting.grid import Grid, mixture_codes
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.messages import joined, said

_MIN_RANKED = 4
_BASELINE_GRID = 256
_LAST = 0.95
"""Runs are ranked against each other if their last checkpoint is at no less than this of the longest run's tokens."""


@dataclass(frozen=True)
class Validation:
    """Every loss predicted by a fit that its mixture was held out of.

    Args:
        law: The law.
        folds: How many parts the mixtures were divided into; each was held out once.
        predictions: Columns `run`, `tokens`, `domain`, `observed`, `predicted`, `baseline`; losses in nats per token.
            The baseline is the mean log loss of the other runs at that token count: no law at all.
        weights: Weight of each target domain in the sum that `rank_correlation` is about.
        mixtures: Number of each run's mixture: repeats have one number.
    """

    law: str
    folds: int
    predictions: pd.DataFrame
    weights: Mapping[str, float]
    mixtures: Mapping[str, int]

    @cached_property
    def error(self) -> dict[str, float]:
        """Mean |predicted − observed| / observed by domain."""
        return self._errors("predicted")

    @cached_property
    def baseline_error(self) -> dict[str, float]:
        """The same of the baseline."""
        return self._errors("baseline")

    @property
    def mean_error(self) -> float:
        """Mean relative error over all domains."""
        return float(np.mean(list(self.error.values())))

    @property
    def mean_baseline_error(self) -> float:
        """The same of the baseline."""
        return float(np.mean(list(self.baseline_error.values())))

    def only(self, domains: Collection[str]) -> Validation:
        """Return the same of some of the domains."""
        return replace(self, predictions=self.predictions[self.predictions["domain"].isin(list(domains))])

    @cached_property
    def by_mixture(self) -> pd.Series:
        """Relative error of each held-out mixture, every domain counting the same."""
        off = (self.predictions["predicted"] / self.predictions["observed"] - 1).abs()
        mixture = self.predictions["run"].map(dict(self.mixtures)).rename("mixture")
        by_domain = off.groupby([mixture, self.predictions["domain"]]).mean()
        return by_domain.groupby(level=0).mean()

    @cached_property
    def rank_correlation(self) -> float:
        """Spearman's correlation over runs: the weighted sum of losses at the last checkpoint, predicted and observed.

        It asks what R² along training hides: are good mixtures told from bad ones? NaN below four runs.
        """
        sums = self.last_sums()
        if len(sums) < _MIN_RANKED:
            return float("nan")
        return float(spearmanr(sums["observed"], sums["predicted"]).statistic)

    def sentences(self) -> str:
        """Return in plain words how far the law can be trusted on held-out mixtures."""
        rank, ranked = self.rank_correlation, len(self.last_sums())
        off = said(
            "On mixtures it has not seen ({folds} folds), the law is off by {error:.2f} % on average; the mean of the "
            "other runs, with no law at all, by {baseline:.2f} %.",
            folds=self.folds,
            error=100 * self.mean_error,
            baseline=100 * self.mean_baseline_error,
        )
        useless = said("The law tells nothing about the mixture here: don't act on its recommendation.")
        ranking = said(
            "Of {runs} runs it ranks the summed final losses with a correlation of {rank:.2f} (1: the right order; 0: "
            "chance).",
            runs=ranked,
            rank=rank,
        )
        if np.isnan(rank):
            ranking = said(
                "Too few runs can be ranked ({runs}) to say whether it tells good mixtures from bad ones.", runs=ranked
            )
        return joined([off, useless if self.mean_error >= self.mean_baseline_error else "", ranking])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        rank = self.rank_correlation
        return {
            "law": self.law,
            "folds": self.folds,
            "what": "each mixture predicted by a fit that hasn't seen it; error: mean |predicted/observed - 1|",
            "mean_error": self.mean_error,
            "mean_baseline_error": self.mean_baseline_error,
            "baseline": "mean log loss of the other runs at that token count",
            "rank_correlation": None if np.isnan(rank) else rank,
            "ranked_runs": len(self.last_sums()),
            "error": self.error,
            "baseline_error": self.baseline_error,
            "predictions": self.predictions.to_dict("records"),
        }

    def _errors(self, column: str) -> dict[str, float]:
        off = (self.predictions[column] / self.predictions["observed"] - 1).abs()
        return {str(d): float(v) for d, v in off.groupby(self.predictions["domain"], sort=False).mean().items()}

    def last_sums(self) -> pd.DataFrame:
        """Return each run's weighted sum at its last checkpoint, columns observed and predicted; only whole runs."""
        counted = {domain: weight for domain, weight in self.weights.items() if weight > 0}
        table = self.predictions[self.predictions["domain"].isin(list(counted))]
        last = table[table["tokens"] == table.groupby("run")["tokens"].transform("max")]
        last = last[last["tokens"] >= _LAST * last["tokens"].max()]
        factor = last["domain"].map(counted)
        sums = last[["observed", "predicted"]].mul(factor, axis=0).groupby(last["run"]).sum()
        # A run without one of the domains has a smaller sum for that alone.
        whole = last.groupby("run")["domain"].nunique() == len(counted)
        kept: pd.DataFrame = sums[whole.reindex(sums.index)]
        return kept


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
    parts = []
    for i, target in enumerate(grid.targets):
        counts = grid.at(grid.weight[i]) > 0
        run, log_u, log_loss = grid.run[counts], grid.at_u[counts], grid.at(grid.log_loss[i])[counts]
        if target in predicted and len(run):
            parts.append(
                pd.DataFrame(
                    {
                        "run": np.array(obs.runs)[run],
                        "tokens": np.exp(log_u) * grid.scale,
                        "domain": target,
                        "observed": np.exp(log_loss),
                        "predicted": np.exp(grid.at(predicted[target])[counts]),
                        "baseline": np.exp(_baseline(run, log_u, log_loss, fold)),
                    }
                )
            )
    table = pd.concat(parts, ignore_index=True).dropna()
    if table.empty:
        raise ObservationsError("without any one of its mixtures, the sweep cannot tell the effect of a proportion")
    # Where nothing is predicted of a target, no run could be ranked by a sum that has it.
    counted = {
        target: float((weights or {}).get(target, 1.0)) for target in predicted if target in set(table["domain"])
    }
    mixture = dict(zip(obs.runs, mixture_codes(obs.mixtures.to_numpy(float)).tolist(), strict=True))
    return Validation(law, int(fold.max()) + 1, table, counted, mixture)


def _baseline(run: Index, log_u: Array, log_loss: Array, fold: Index) -> Array:
    """Return at each point the mean log loss, at its data volume, of the runs of other folds."""
    volumes = np.unique(log_u)
    if len(volumes) > _BASELINE_GRID:  # each run has checkpoints of its own
        volumes = np.linspace(volumes[0], volumes[-1], _BASELINE_GRID)
    order = np.lexsort((log_u, run))
    present, first = np.unique(run[order], return_index=True)
    parts = zip(np.split(log_u[order], first[1:]), np.split(log_loss[order], first[1:]), strict=True)
    curves = np.stack([np.interp(volumes, at, values) for at, values in parts])
    of = np.eye(int(fold.max()) + 1)[fold[present]]
    others = (curves.sum(0) - of.T @ curves) / np.maximum(len(present) - of.sum(0), 1)[:, None]
    result = np.empty(len(run))
    for one in range(len(others)):
        mine = fold[run] == one
        result[mine] = np.interp(log_u[mine], volumes, others[one])
    return result
