"""What a set of mixtures will identify, before any is run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.laws.protocol import Array
from bimix_tracking.quantities import signed

_TIED = 0.9


@dataclass(frozen=True)
class Identifiable:
    """What a set of mixtures identifies, and with what error.

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
        """Return the same in sentences, with what is not identifiable."""
        count, varied = len(self.domains), self.domains[self.domains["shares"] > 1]
        mixtures = int(self.laws["mixtures"].iloc[0])
        said = []
        if len(varied):
            error = varied["alpha_error"]
            fewest = varied["shares"].idxmin()
            said.append(
                f"Standard error of each domain's effect (BiMix's alpha, typically 0.03 to 0.3): ±{error.min():.2g} to "
                f"±{error.max():.2g}, the largest for {error.idxmax()!r}. It assumes that a run's loss has a noise of "
                f"{100 * self.noise:.2g} %. {fewest!r} has the fewest distinct proportions, {varied['shares'].min()}."
            )
        for domain, row in self.domains[self.domains["shares"] == 1].iterrows():
            said.append(
                f"The effect of {str(domain)!r} is not identifiable: all runs have the proportion "
                f"{row['smallest']:.4g}."
            )
        if mixtures < count + 1:
            said.append(
                f"With {mixtures} distinct mixture{'s' if mixtures > 1 else ''} not all effects of {count} domains are "
                f"identifiable: that takes {count + 1}. Effects between domains will rest on the laws' priors."
            )
        enough = [str(name) for name in self.laws.index[self.laws["enough"]]]
        short = {str(n): int(row["mixtures_needed"]) for n, row in self.laws[~self.laws["enough"]].iterrows()}
        said.append(f"Laws that these mixtures suffice for: {', '.join(enough) or 'none'}.")
        if short:
            left = int(self.laws["left_in"].iloc[0])
            needs = ", ".join(f"{name} ({need})" for name, need in short.items())
            said.append(f"Holding a fold out leaves {left} mixtures, too few for {needs}.")
        errors = self.laws["prediction_error"].dropna()
        parts = ", ".join(f"{100 * value:.2g} % by {name}" for name, value in errors.items())
        said.append(f"Expected error of a predicted difference between two good mixtures: {parts} of the loss.")
        if self.tied is not None and abs(self.tied[2]) > _TIED:
            one, other, r = self.tied
            said.append(
                f"{one!r} and {other!r} move together (correlation {signed(r)}): their effects are hard to separate."
            )
        if not self.repeats:
            said.append("No mixture is repeated, so the noise of a run will be assumed, not measured.")
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
