"""How sure a fit is: the run-level bootstrap, whose replicates are fits to runs drawn with replacement.

The losses of one run rise and fall together, so a bootstrap that draws single losses would promise too much: here a
replicate draws as many runs as there are, with replacement, and counts each as often as it was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.laws.protocol import Array, Inputs
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.mixture import Mixture

Method = Literal["few-steps", "exact", "linearised"]
MIN_RUNS = 3
REPLICATES = 200
"""Enough for a 90 % interval whose ends are good to a tenth of its width; each is a refit."""


@dataclass(frozen=True, eq=False)  # arrays and tables have no one truth
class Replicates:
    """What the law could have been, had other runs of the same kind been made.

    Args:
        fit: The fit to all runs.
        theta: Its law's θ in each replicate, shape (replicates, targets, parameters); NaN where the runs drawn
            cannot tell. Of an ensemble: by law.
        method: How they were found.
        off: By how much each run's last losses are off the fit, nats, one row a run and one column a target.
    """

    fit: LawFit
    theta: dict[str, Array]
    method: Method
    off: pd.DataFrame

    def parameters(self, target: str) -> pd.DataFrame:
        """Return the reported parameters of a target, one row a replicate.

        Raises:
            ValueError: An ensemble, whose parameters are weights; or no such target.
        """
        if self.fit.members or target not in self.fit.targets:
            raise ValueError(f"no parameters of {target!r} to draw: {self.fit.law} has {list(self.fit.targets)}")
        model = find_law(self.fit.law)
        theta = self.theta[self.fit.law][:, list(self.fit.targets).index(target)]
        rows = [
            model.report(at, self.fit.scale, self.fit.own(target), self.fit.domains)
            for at in theta[np.isfinite(theta).all(-1)]
        ]
        return pd.DataFrame(rows)

    def standard_errors(self, target: str) -> dict[str, float]:
        """Return the standard deviation of each parameter over the replicates."""
        spread = self.parameters(target).std(ddof=1)
        return {str(name): float(value) for name, value in spread.items()}

    def predict(self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike) -> Array:
        """Return the predicted losses, nats per token, shape (replicates, n, targets); arguments as `LawFit.predict`.

        The members' weights of an ensemble are those of the fit. NaN where `LawFit.predict` has it for a data volume.
        """
        shares, volume = self.fit.rows(mixtures, tokens)
        return np.where(self.fit.known_at(volume), self.losses(shares, volume), np.nan)

    def losses(self, mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike, tokens: float | npt.ArrayLike) -> Array:
        """Return the replicates' own losses, as `predict`, also at data volumes at which a target's can't be known."""
        shares, volume = self.fit.rows(mixtures, tokens)
        if not self.fit.members:
            return self._of_law(self.fit, shares, volume)
        parts = {name: self._of_law(fit, shares, volume) for name, fit in self.fit.members.items()}
        return self.fit.stacked(parts, volume)

    def interval(
        self,
        mixtures: Mixture | Sequence[Mixture] | npt.ArrayLike,
        tokens: float | npt.ArrayLike,
        level: float = 0.9,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the lower and the upper end of the interval of the law's loss at each mixture and target.

        The expected loss: a single run will also have noise of its own. Quantiles of log loss about the fit,
        widened by √(n / (n − q)) for the q unshrunk parameters that n runs were fitted with: a replicate's runs are
        fitted as closely as the sweep's, and so stray less than new ones would.

        Args:
            mixtures: As in `LawFit.predict`.
            tokens: As in `LawFit.predict`.
            level: Between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        centre = np.log(self.fit.losses(mixtures, tokens).to_numpy(float))
        off = np.log(self.predict(mixtures, tokens)) - centre
        low, high = _sides(off, level)
        wider = np.array([self.wider(target) for target in self.fit.targets])
        names = list(self.fit.targets)
        lower, upper = (pd.DataFrame(np.exp(centre + wider * v), columns=names) for v in (low, high))
        return lower, upper

    def change(
        self, mixture: Mixture, reference: Mixture, tokens: float, level: float = 0.9
    ) -> tuple[pd.Series, pd.Series]:
        """Return the lower and upper end of the interval of L(mixture) − L(reference) of each target, nats.

        Of the same replicate, so that what both mixtures share cancels; widened as in `interval`.

        Args:
            mixture: The one.
            reference: The other.
            tokens: Data volume s.
            level: Between 0 and 1.
        """
        ours, theirs = self.fit.losses([mixture, reference], tokens).to_numpy(float)
        drawn = self.predict([mixture, reference], tokens)
        centre = ours - theirs
        off = _sides(drawn[:, 0] - drawn[:, 1] - centre, level)
        wider = np.array([self.wider(target) for target in self.fit.targets])
        low, high = (pd.Series(centre + wider * side, index=list(self.fit.targets)) for side in off)
        return low, high

    def run_noise(self, weights: Mapping[str, float]) -> float:
        """Return the standard deviation of one run's weighted loss about the law, nats.

        Chance and what the law doesn't see, in one: √(Σ_runs (Σ w (L − L̂))² / (n − 2)). NaN with fewer than three
        runs that have all the losses.

        Args:
            weights: Of the targets; what isn't named counts 0.
        """
        counted = {t: w for t, w in weights.items() if w > 0 and t in self.off}
        sums = (self.off[list(counted)] * pd.Series(counted)).sum(axis=1, skipna=False).dropna()
        return float(np.sqrt((sums**2).sum() / (len(sums) - 2))) if len(sums) > 2 else float("nan")

    def wider(self, target: str) -> float:
        """Return by how much deviations of replicates from the fit are widened: √(n / (n − 2)) for n runs."""
        runs = self.fit.targets[target].runs
        # The effect of the mixture is told between runs: α, or constant and slope; the rest within them.
        return float(np.sqrt(runs / max(runs - 2, 1)))

    def _of_law(self, fit: LawFit, shares: Array, volume: Array) -> Array:
        model, theta = find_law(fit.law), self.theta[fit.law]
        inputs = Inputs.rows(shares, np.log(volume / fit.scale), fit.floor)
        result = np.full((len(theta), len(volume), len(fit.targets)), np.nan)
        for i, target in enumerate(fit.targets):
            told, at = np.isfinite(theta[:, i]).all(-1), fit.theta(target)
            if at is None or not told.any():
                continue
            if self.method != "linearised":
                own = np.full(int(told.sum()), fit.own(target), np.intp)
                result[told, :, i] = np.exp(model.blocks(theta[told, i], own, inputs).log_loss[..., 0])
            else:
                # Along the tangent, as the step itself: the law at the end of a straight step leaves the valley.
                found = model.blocks(at[None], np.array([fit.own(target)], np.intp), inputs)
                along = (theta[told, i] - at) @ found.jacobian()[0, :, 0].T
                result[told, :, i] = np.exp(found.log_loss[0, :, 0] + along)
        return result


def _sides(off: Array, level: float) -> Array:
    """Return the two quantiles that hold the middle part of each column; NaN where no replicate could tell."""
    told = ~np.isnan(off).all(axis=0)
    sides = np.full((2, *off.shape[1:]), np.nan)
    sides[:, told] = np.nanquantile(off[:, told], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return sides


def last_off(obs: Observations, fit: LawFit) -> pd.DataFrame:
    """Return what each run's last losses are off the fit: observed − predicted, nats; NaN where there is none."""
    last = obs.losses[obs.losses["tokens"] > fit.warmup].drop_duplicates(["run", "domain"], keep="last")
    observed = last.pivot_table(index="run", columns="domain", values="loss").reindex(
        index=list(obs.runs), columns=list(fit.targets)
    )
    tokens = last.pivot_table(index="run", columns="domain", values="tokens").reindex(
        index=observed.index, columns=observed.columns
    )
    shares = obs.mixtures.loc[observed.index, list(fit.domains)].to_numpy(float)
    off = observed.copy()
    for i, target in enumerate(fit.targets):
        known = tokens[target].notna().to_numpy()
        predicted = fit.losses(shares[known], tokens[target].to_numpy(float)[known]).to_numpy(float)[:, i]
        off.loc[known, target] = observed.loc[known, target].to_numpy(float) - predicted
    return off
