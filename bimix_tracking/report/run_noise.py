"""What repeated runs say about chance: how far two runs of the same mixture are apart in what is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.messages import joined, said
from bimix_tracking.mixture import SUM_TOLERANCE
from bimix_tracking.quantities import count, nats

_SAME_TOKENS = 1e-3
"""Token counts this close, relatively, are the same count: the loss moves far less between them than by chance."""


def _in_nats(difference: float) -> str:
    return said("{value} nats", value=nats(difference))


@dataclass(frozen=True)
class Noise:
    """The largest difference between two runs of one mixture.

    Args:
        repeated: How many pairs of runs have the same mixture.
        compared: How many of those were evaluated at one token count.
        difference: The largest |Σ w L − Σ w L′| of these, each at its last shared token count; NaN if none.
        tokens: At which token count that is.
        runs: Of which two runs.
    """

    repeated: int
    compared: int
    difference: float
    tokens: float
    runs: tuple[str, str]

    def sentences(self, gain: float, shown: Callable[[float], str] = _in_nats) -> str:
        """Return what the repeats say about a predicted gain, in plain words.

        Args:
            gain: The predicted gain in the same weighted sum.
            shown: How a difference of that sum is printed; as nats, unless told.
        """
        if not self.repeated:
            return said("Seed noise is unknown: no mixture was run twice.")
        if not self.compared:
            return said("Seed noise is unknown: repeated runs share no token count with all weighted targets.")
        difference = said(
            "Repeated runs differ by up to {difference} (pairs: {pairs}).",
            difference=shown(self.difference),
            pairs=self.compared,
        )
        if self.difference == 0:
            verdict = said("No difference at all: were they trained with the same seed?")
        elif gain <= self.difference:
            verdict = said("The predicted gain is smaller than that.")
        else:
            verdict = said("The predicted gain is {times}× as large.", times=count(gain / self.difference))
        return joined([difference, verdict])


def measure(obs: Observations, weights: Mapping[str, float]) -> Noise:
    """Return how far runs of the same mixture are apart in the weighted sum of their losses.

    Args:
        obs: The sweep.
        weights: Weight of each target in the sum, as in the recommendation.
    """
    weights = objective_weights(weights, obs.links)
    pairs = _repeats(obs)
    sums = _weighted_sums(obs, weights)
    found: list[tuple[float, float, tuple[str, str]]] = []
    for one, other in pairs:
        last = _last_shared(sums.get(one), sums.get(other))
        if last is not None:
            found.append((*last, (one, other)))
    nothing = (float("nan"), float("nan"), ("", ""))
    worst = max(found, key=lambda entry: entry[0], default=nothing)
    return Noise(len(pairs), len(found), *worst)


def _repeats(obs: Observations) -> list[tuple[str, str]]:
    shares = obs.mixtures.to_numpy(float)
    left = list(range(len(shares)))
    pairs: list[tuple[str, str]] = []
    while left:
        same = np.abs(shares[left] - shares[left[0]]).max(axis=1) <= SUM_TOLERANCE
        # Between model sizes there is the error of a level besides: no noise of a run.
        same &= np.array([obs.sizes.get(obs.runs[i]) == obs.sizes.get(obs.runs[left[0]]) for i in left])
        group = [obs.runs[i] for i, repeats in zip(left, same, strict=True) if repeats]
        pairs += combinations(group, 2)
        left = [i for i, repeats in zip(left, same, strict=True) if not repeats]
    return pairs


def _weighted_sums(obs: Observations, weights: Mapping[str, float]) -> dict[str, pd.Series]:
    """Return Σ w L of each run by token count, where every weighted domain was evaluated."""
    counted = {domain: weight for domain, weight in weights.items() if weight > 0}
    table = obs.losses[obs.losses["domain"].isin(list(counted))]
    wide = table.pivot_table(index=["run", "tokens"], columns="domain", values="loss").reindex(columns=list(counted))
    total = (wide * pd.Series(counted)).sum(axis=1, skipna=False).dropna()
    return {str(run): values.droplevel("run").sort_index() for run, values in total.groupby(level="run")}


def _last_shared(one: pd.Series | None, other: pd.Series | None) -> tuple[float, float] | None:
    """Return the difference at the last token count of both, and that count."""
    if one is None or other is None:
        return None
    theirs = other.index.to_numpy(float)
    for at in one.index.to_numpy(float)[::-1]:
        nearest = int(np.abs(theirs - at).argmin())
        if abs(theirs[nearest] - at) <= _SAME_TOKENS * at:
            return float(abs(one[at] - other.iloc[nearest])), float(at)
    return None
