"""What came true: changes of every target between two mixtures, predicted and observed, and what the noise allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from bimix_tracking import Recommendation

Values = Mapping[str, float]
"""What a run had at its end, by target."""


@dataclass(frozen=True)
class Outcome:
    """Observed values of each target, one row a seed, on the reference and on recommended mixtures."""

    reference: pd.DataFrame
    recommended: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, reference: Sequence[Values], recommended: Mapping[str, Sequence[Values]]) -> Outcome:
        """Make tables of runs."""
        return cls(pd.DataFrame(reference), {name: pd.DataFrame(rows) for name, rows in recommended.items()})

    def change(self, name: str) -> pd.Series[float]:
        """Return the difference of the means over the seeds, by target."""
        return self.recommended[name].mean() - self.reference.mean()

    @property
    def standard_error(self) -> pd.Series[float]:
        """Of such a difference; one variance for all mixtures: with a few seeds each they can't be told apart."""
        every = [self.reference, *self.recommended.values()]
        variance = sum((table.var() for table in every), 0 * self.reference.var()) / len(every)
        return pd.Series(np.sqrt(2 * variance / len(self.reference)))

    def table(self, name: str, rec: Recommendation) -> Table:
        """Return predicted and observed changes side by side, the largest predicted improvement first."""
        table = Table("target", "on the reference", "change", "90 % interval", "observed", "±", box=box.HORIZONTALS)
        for column in table.columns[1:]:
            column.justify = "right"
        observed, error = self.change(name), self.standard_error
        for target, row in rec.changes.iterrows():
            table.add_row(
                str(target),
                f"{row['reference']:.3f}",
                plus(row["change"]),
                f"{plus(row['low'])} to {plus(row['high'])}",
                plus(float(observed[str(target)])),
                f"{error[str(target)]:.3f}",
            )
        return table

    def within(self, name: str, rec: Recommendation) -> tuple[int, int]:
        """Return how many observed changes are in their interval or two standard errors from it, and of how many."""
        observed, changes = self.change(name), rec.changes
        noise = 2 * self.standard_error[changes.index]
        seen = observed[changes.index]
        return int(seen.between(changes["low"] - noise, changes["high"] + noise).sum()), len(changes)


def plus(change: float) -> str:
    """Return a change with its sign."""
    return f"{change:+.3f}".replace("-", "−")
