"""What a set of mixtures will be able to tell, said before one of them is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.laws.protocol import Array

_TIED = 0.9


@dataclass(frozen=True)
class Identifiable:
    """What a set of mixtures can tell, and with what error.

    Args:
        domains: One row a domain: number of distinct `shares`, `smallest`, `largest`, and `alpha_error`, the expected
            standard error of BiMix's α; infinite where the share never changes.
        laws: One row a law: `mixtures_needed`, distinct `mixtures`, how many are `left_in` while some are held out,
            whether these are `enough` for it to be a candidate, and for the laws planned for `prediction_error`, the
            expected standard error of a predicted difference between mixtures, as a part of the loss.
        tied: The two domains whose shares are most correlated, and their correlation; None with two domains, where
            one is always the rest of the other.
        noise: Of a run's log loss, as assumed.
        repeats: Runs that repeat a mixture.
    """

    domains: pd.DataFrame
    laws: pd.DataFrame
    tied: tuple[str, str, float] | None
    noise: float
    repeats: int

    def sentences(self) -> tuple[str, ...]:
        """Return the same in plain words, what cannot be told among it."""
        count, varied = len(self.domains), self.domains[self.domains["shares"] > 1]
        mixtures = int(self.laws["mixtures"].iloc[0])
        said = []
        if len(varied):
            error = varied["alpha_error"]
            fewest = varied["shares"].idxmin()
            said.append(
                f"Each domain's effect (BiMix's alpha, typically 0.03 to 0.3) is told to ±{error.min():.2g} to "
                f"±{error.max():.2g} (worst: {error.idxmax()!r}), if chance moves a run's loss by "
                f"{100 * self.noise:.2g} %. {fewest!r} has the fewest distinct proportions, "
                f"{varied['shares'].min()}."
            )
        for domain, row in self.domains[self.domains["shares"] == 1].iterrows():
            said.append(
                f"The effect of {str(domain)!r} cannot be told: its proportion is {row['smallest']:.4g} in every run."
            )
        if mixtures < count + 1:
            said.append(
                f"{mixtures} distinct mixture{'s' if mixtures > 1 else ''} of {count} domains cannot tell all the "
                f"domains apart: that takes {count + 1}. What one domain teaches another will rest on the laws' "
                "priors, and where two domains' proportions moved together their effects are one."
            )
        enough = [str(name) for name in self.laws.index[self.laws["enough"]]]
        short = {str(n): int(row["mixtures_needed"]) for n, row in self.laws[~self.laws["enough"]].iterrows()}
        said.append(f"Laws with enough mixtures to be compared: {', '.join(enough) or 'none'}.")
        if short:
            left = int(self.laws["left_in"].iloc[0])
            needs = ", ".join(f"{name} ({need})" for name, need in short.items())
            said.append(f"With some held out, {left} mixtures are left, too few for {needs}.")
        errors = self.laws["prediction_error"].dropna()
        parts = ", ".join(f"{100 * value:.2g} % by {name}" for name, value in errors.items())
        said.append(f"A predicted difference between two good mixtures will be off by about {parts} of the loss.")
        if self.tied is not None and abs(self.tied[2]) > _TIED:
            one, other, r = self.tied
            said.append(
                f"{one!r} and {other!r} move together (correlation {r:.2f}): their effects are hard to tell apart."
            )
        if not self.repeats:
            said.append("No mixture is run twice, so the noise of a run won't be known, only assumed.")
        return tuple(said)


def alpha_error(share: Array) -> float:
    """Return BiMix's standard error of α at one data volume, for a noise of 1: [(JᵀJ)⁻¹]_αα, J = (−log r, 1)."""
    about = np.log(np.maximum(share, 1e-3))
    spread = float(((about - about.mean()) ** 2).sum())
    return 1 / math.sqrt(spread) if spread > 1e-12 else math.inf


def tied(domains: tuple[str, ...], shares: Array) -> tuple[str, str, float] | None:
    """Return the two domains whose shares are most correlated, and their correlation, where that can be said."""
    varied = np.flatnonzero(np.ptp(shares, axis=0) > 1e-9)
    if len(varied) < 3 or len(shares) < 3:
        return None
    r = np.asarray(np.corrcoef(shares[:, varied].T)) - np.eye(len(varied))
    i, j = np.unravel_index(int(np.abs(r).argmax()), r.shape)
    return domains[varied[i]], domains[varied[j]], float(r[i, j])
