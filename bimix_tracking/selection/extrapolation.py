"""Extrapolation in tokens: the last losses predicted from the first, beside the last loss carried forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.aligning import align
from bimix_tracking.fitting.fit import fit_with
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import USUAL
from bimix_tracking.fitting.scale.applied import aligned_by
from bimix_tracking.fitting.single_law import fit_single
from bimix_tracking.messages import said
from bimix_tracking.quantities import percent
from bimix_tracking.quantities import tokens as tokens_text

_MIN_VOLUMES = 3


@dataclass(frozen=True)
class Extrapolation:
    """The last losses of the runs, predicted by a law fitted to the first part of their tokens.

    Args:
        law: The law.
        until: Tokens up to which losses were fitted.
        at: Median volume of what it predicted.
        error: Mean |predicted − observed| / observed by domain.
        carried_error: The same of each run's last fitted loss carried forward: no law.
    """

    law: str
    until: float
    at: float
    error: Mapping[str, float]
    carried_error: Mapping[str, float]

    @property
    def mean_error(self) -> float:
        """Mean over all domains."""
        return float(np.mean(list(self.error.values())))

    @property
    def mean_carried_error(self) -> float:
        """Mean over all domains."""
        return float(np.mean(list(self.carried_error.values())))

    def sentences(self) -> str:
        """Return the error beyond the fitted tokens, beside that of the last loss carried forward."""
        return said(
            "Fitted up to {until} tokens, the law predicts losses at {at} with an error of {error}; the last loss "
            "carried forward, {carried}.",
            until=tokens_text(self.until),
            at=tokens_text(self.at),
            error=percent(self.mean_error),
            carried=percent(self.mean_carried_error),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {**vars(self), "mean_error": self.mean_error, "mean_carried_error": self.mean_carried_error}


def extrapolate(
    obs: Observations, law: str = "bimix", *, fraction: float = 0.6, fit: LawFit | None = None
) -> Extrapolation:
    """Fit the losses at up to a part of the tokens, and predict the last loss of each run.

    Args:
        obs: The sweep.
        law: Which law.
        fraction: Of the largest number of tokens, what is fitted.
        fit: A fit whose law and options are used. The laws of an ensemble are fitted again, and keep their weights:
            these are about mixtures, and were found on whole runs.

    Raises:
        ObservationsError: Fewer than three volumes before, or none after.

    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3), "lb": (1 - a)**-0.2 * 2}
    ...         for a in (0.2, 0.4, 0.5, 0.7) for s in (1e3, 2e3, 4e3, 8e3, 1.6e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> found = extrapolate(obs)
    >>> found.until, round(found.error["a"], 6), round(found.carried_error["a"], 3)
    (8000.0, 0.0, 0.079)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    obs = align(obs).observations if fit is None else aligned_by(obs, fit.bridge)
    losses, tokens = obs.losses, obs.losses["tokens"]
    early = losses[tokens <= fraction * tokens.max()]
    if early["tokens"].nunique() < _MIN_VOLUMES:
        raise ObservationsError(
            f"{early['tokens'].nunique()} token counts up to {fraction:g} of the largest; "
            f"at least {_MIN_VOLUMES} are needed: evaluate more often"
        )
    runs = set(early["run"])
    kept = obs.mixtures[[run in runs for run in obs.mixtures.index]]
    seen = _fitted(replace(obs, mixtures=kept, losses=early.reset_index(drop=True), notes=()), law, fit)
    point = ["run", "domain"]
    last = losses[losses["run"].isin(runs) & (tokens == losses.groupby(point)["tokens"].transform("max"))]
    last = last[(last["tokens"] > fraction * tokens.max()) & last["domain"].isin(list(seen.targets))]
    carried = early.sort_values("tokens").groupby(point)["loss"].last().rename("carried")
    table = last.join(carried, on=point, how="inner")
    where = table["domain"].map({target: i for i, target in enumerate(seen.targets)}).to_numpy(int)
    at = table.groupby(["run", "tokens"], sort=False)
    first = table[["run", "tokens"]].drop_duplicates()
    predicted = seen.losses(obs.mixtures.reindex(first["run"]).to_numpy(float), first["tokens"].to_numpy(float))
    table = table.assign(predicted=predicted.to_numpy(float)[at.ngroup().to_numpy(), where]).dropna(
        subset=["predicted"]
    )
    if table.empty:
        raise ObservationsError("no run has losses both before and after: nothing to extrapolate")

    def errors(column: str) -> dict[str, float]:
        error = (table[column] / table["loss"] - 1).abs().groupby(table["domain"], sort=False).mean()
        return {str(domain): float(value) for domain, value in error.items()}

    middle = float(table["tokens"].median())
    return Extrapolation(seen.law, float(early["tokens"].max()), middle, errors("predicted"), errors("carried"))


def _fitted(obs: Observations, law: str, fit: LawFit | None) -> LawFit:
    if fit is None or not fit.members:
        return fit_with(obs, law, USUAL) if fit is None else fit_single(obs, fit.law, fit.options)
    used = {name for fitted in fit.targets.values() for name, weight in fitted.parameters.items() if weight > 0}
    members = {name: fit_single(obs, name, one.options) for name, one in fit.members.items() if name in used}
    # A target that was measured only at the end has no losses here.
    targets = {
        target: fitted
        for target, fitted in fit.targets.items()
        if all(target in members[name].targets for name, weight in fitted.parameters.items() if weight > 0)
    }
    # A level is of the checkpoints fitted: beyond them only its fading is left.
    return replace(fit, members=members, levels={}, targets=targets)
