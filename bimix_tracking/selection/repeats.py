"""The noise floor from repeated mixtures: the error that even the right law would have."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2

from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import mixture_codes
from bimix_tracking.messages import said
from bimix_tracking.quantities import percent

_LEVEL = 0.9


@dataclass(frozen=True)
class NoiseFloor:
    """Mean relative error that even the right law would have on new runs, from runs that repeat a mixture.

    Args:
        error: √(2/π) σ, with σ² half the mean squared difference of log loss between two runs of one mixture.
        repeats: ν, runs beyond the first of each mixture. Checkpoints and domains of one run are correlated, so they
            don't count as so many.
    """

    error: float
    repeats: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 90 % interval of `error`: ν σ̂²/σ² follows χ² with ν degrees of freedom.

        >>> low, high = NoiseFloor(0.01, repeats=1).interval
        >>> round(low, 4), round(high, 2)
        (0.0051, 0.16)
        """
        quantiles = chi2.ppf([(1 + _LEVEL) / 2, (1 - _LEVEL) / 2], self.repeats)
        low, high = self.error * np.sqrt(self.repeats / quantiles)
        return float(low), float(high)

    def sentence(self) -> str:
        """Return the noise floor with its interval."""
        low, high = (f"{100 * end:.2g}" for end in self.interval)
        figures = {"floor": percent(self.error), "low": low, "high": high}
        if self.repeats == 1:
            return said(
                "Noise floor {floor}, from a single pair of repeated runs: a rough figure (90 % interval {low} to "
                "{high} %).",
                **figures,
            )
        return said(
            "Noise floor {floor}, from {repeats} repeats (90 % interval {low} to {high} %).",
            repeats=self.repeats,
            **figures,
        )


def noise_floor(obs: Observations) -> NoiseFloor | None:
    """Return the noise floor of losses, from runs of one mixture at the same tokens; None where none is repeated.

    Args:
        obs: The sweep; accuracies and scores have an error in their own units, and none of theirs is in it.
    """
    run, target = obs.codes
    of_losses = np.array([obs.link(name).identity for name in obs.targets], bool)
    if not of_losses[target].all():
        if not of_losses[target].any():
            return None
        losses = obs.losses[of_losses[target]].reset_index(drop=True)
        return noise_floor(replace(obs, losses=losses))
    mixture = mixture_codes(obs.mixtures.to_numpy(float))
    # A mixture run at two model sizes is no repeat: between its runs is the error of a level.
    size = np.unique([obs.sizes.get(run, 0.0) for run in obs.runs], return_inverse=True)[1].reshape(-1)
    mixture = mixture * (int(size.max()) + 1) + size
    tokens = np.unique(obs.losses["tokens"].to_numpy(float), return_inverse=True)[1].reshape(-1)
    log_loss = np.log(obs.losses["loss"].to_numpy(float))
    key = (mixture[run] * (int(tokens.max()) + 1) + tokens) * len(obs.targets) + target
    cell = np.unique(key, return_inverse=True)[1].reshape(-1)
    count = np.bincount(cell)
    deviation = log_loss - (np.bincount(cell, log_loss) / count)[cell]
    free = int((count - 1).sum())
    if not free:
        return None
    compared = np.unique(run[count[cell] > 1])
    repeats = len(compared) - len(np.unique(mixture[compared]))
    return NoiseFloor(float(np.sqrt(2 / np.pi) * np.sqrt((deviation**2).sum() / free)), repeats)
