"""Mixtures that were run at two model sizes: the last losses of their runs, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import volume_codes
from bimix_tracking.laws.protocol import Array, Index
from bimix_tracking.messages import said
from bimix_tracking.quantities import about, tokens
from bimix_tracking.selection.cross_validation import LAST

SAME_MIXTURE = 1e-3
"""Mixtures are one if no share differs by more: files round them, and samplers realise them only nearly."""
_LEAST_REPEATS = 3
"""Fewer repeats say too little of a run's noise to excuse a low rank correlation with it."""


@dataclass(frozen=True, eq=False)  # tables have no one truth
class PairedMixtures:
    """Runs of two sizes that end their schedules, all of one length at each size.

    Args:
        small: Parameters of the smaller size.
        large: Of the larger.
        runs: Run → number of its mixture, at the smaller and at the larger size.
    """

    small: float
    large: float
    runs: tuple[pd.Series, pd.Series]

    @property
    def shared(self) -> Index:
        """Numbers of the mixtures that were run at both sizes."""
        one, other = self.runs
        return np.intersect1d(one, other)

    def named(self) -> list[tuple[str, str]]:
        """Return the first run of each shared mixture, at either size."""
        first = [codes.reset_index().groupby(0)["run"].first() for codes in self.runs]
        return [(str(first[0][number]), str(first[1][number])) for number in self.shared]

    def values(self, of_run: pd.Series) -> tuple[Array, Array]:
        """Return a value of each shared mixture, the mean of its runs, at either size; NaN where no run has it.

        Args:
            of_run: Run → value.
        """
        one, other = (of_run.reindex(codes.index).groupby(codes).mean().reindex(self.shared) for codes in self.runs)
        return one.to_numpy(float), other.to_numpy(float)

    def most(self, of_run: pd.Series) -> float:
        """Return the correlation that run noise leaves of a perfect one, as far as repeats tell it; 1 where they don't.

        √(ρ₁ ρ₂), with ρ = 1 − σ² / variance between mixtures, the reliability of the values of a size (Spearman, 1904).

        Args:
            of_run: Run → value.
        """
        noise: list[float] = []
        for codes in self.runs:
            known = of_run.reindex(codes.index).dropna()
            apart = known - known.groupby(codes).transform("mean")
            repeats = len(known) - int(codes[known.index].nunique())
            noise.append(float((apart**2).sum() / repeats) if repeats >= _LEAST_REPEATS else math.nan)
        if math.isnan(noise[0]) and math.isnan(noise[1]):
            return 1.0
        # Runs of a size that repeats nothing are taken to be as noisy as those of the other.
        noise = [other if math.isnan(one) else one for one, other in zip(noise, noise[::-1], strict=True)]
        spread = [float(np.nanvar(values, ddof=1)) for values in self.values(of_run)]
        parts = [max(1 - one / apart, 0.0) if apart > 0 else 0.0 for one, apart in zip(noise, spread, strict=True)]
        return math.sqrt(parts[0] * parts[1])


def paired_mixtures(obs: Observations) -> tuple[list[PairedMixtures], dict[str, str]]:
    """Return what each two sizes have in common, and why other runs of a shared mixture were left out.

    A run is compared if it ends its schedule, and if it is as long as the others of its size: losses of runs of other
    lengths differ by that. Of several lengths of a size, those are taken that have the most mixtures in common.

    Args:
        obs: Runs of several sizes, at their own levels.
    """
    last = pd.Series(obs.last_tokens)
    reached = pd.Series({run: last[run] / obs.schedule_of(run) for run in last.index})
    whole = [run for run in obs.runs if reached.get(run, 0.0) >= LAST]
    number = pd.Series(_numbers(obs.mixtures.to_numpy(float)), index=pd.Index(obs.runs, name="run"))
    size = pd.Series({run: obs.sizes[run] for run in obs.runs})
    by_length: dict[float, list[pd.Series]] = {}
    for one in obs.model_sizes:
        mine = [run for run in whole if size[run] == one]
        length = volume_codes(np.log(last[mine].to_numpy(float)), 1 / LAST) if mine else np.empty(0, np.intp)
        by_length[one] = [number[np.array(mine, object)[length == code]] for code in np.unique(length)]
    pairs = []
    for small, large in combinations(obs.model_sizes, 2):
        found = [PairedMixtures(small, large, runs) for runs in product(by_length[small], by_length[large])]
        if found:
            pairs.append(
                max(found, key=lambda pair: (len(pair.shared), *(last[c.index].max() for c in pair.runs[::-1])))
            )
    return pairs, _left_out(pairs, number, size, last, reached)


def last_losses(obs: Observations) -> pd.DataFrame:
    """Return each run's last working losses, a column a target; NaN where it wasn't evaluated at the run's end.

    Args:
        obs: The sweep.
    """
    losses = obs.losses[["run", "domain", "tokens", "loss"]].sort_values("tokens", kind="stable")
    final = losses[losses["tokens"] >= LAST * losses["run"].map(obs.last_tokens)]
    table = final.pivot_table(index="run", columns="domain", values="loss", aggfunc="last")
    return table.reindex(index=pd.Index(obs.runs, name="run"), columns=pd.Index(obs.targets))


def _numbers(shares: Array) -> Index:
    number, left = np.full(len(shares), -1, np.intp), np.arange(len(shares))
    for code in range(len(shares)):
        if not len(left):
            break
        same = np.abs(shares[left] - shares[left[0]]).max(axis=1) <= SAME_MIXTURE
        number[left[same]], left = code, left[~same]
    return number


def _left_out(
    pairs: list[PairedMixtures],
    number: pd.Series,
    size: pd.Series,
    last: pd.Series,
    reached: Mapping[str, float] | pd.Series,
) -> dict[str, str]:
    used = {run for pair in pairs for codes in pair.runs for run in codes.index}
    sizes = size.groupby(number).nunique()
    found = {}
    for run in number.index[number.map(sizes) > 1]:
        if run in used:
            continue
        if reached[run] < LAST:
            found[run] = said("it ends at {share} of its schedule", share=about(float(reached[run])))
        else:
            found[run] = said("its length, {length} tokens, is not that of the runs compared", length=tokens(last[run]))
    return found
