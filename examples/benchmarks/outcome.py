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

    def gain(self, name: str, rec: Recommendation) -> str:
        """Say what was predicted of the weighted sum of targets, and what was observed."""
        weights = pd.Series(
            {target: weight if rec.target(target).rising else -weight for target, weight in rec.weights.items()}
        )
        tables = [self.reference, *self.recommended.values()]
        sums = [(table[weights.index] * weights).sum(axis=1) for table in tables]
        error = np.sqrt(2 * np.mean([one.var() for one in sums]) / len(self.reference))
        observed = (self.change(name)[weights.index] * weights).sum()
        interval = "" if rec.uncertainty is None else " ({} to {})".format(*map(plus, rec.uncertainty.gain))
        return f"Gain, {rec.unit}: predicted {plus(rec.gain)}{interval}, observed {plus(observed)} ± {error:.3f}"

    def within(self, name: str, rec: Recommendation) -> str:
        """Say how many observed changes are in their interval, or two standard errors from it."""
        observed, changes = self.change(name), rec.changes
        noise = 2 * self.standard_error[changes.index]
        inside = observed[changes.index].between(changes["low"] - noise, changes["high"] + noise)
        missed = "".join(f"; not {target}" for target in changes.index[~inside])
        return f"In the interval, or two standard errors from it: {inside.sum()} of {len(changes)}{missed}"

    def guards(self, name: str, rec: Recommendation) -> list[str]:
        """Say of each guard whether it held."""
        observed, error = self.change(name), self.standard_error
        lines = []
        for guard in rec.guards:
            allowed, seen = guard.limit - guard.reference, observed[guard.target]
            held = seen >= allowed if rec.target(guard.target).rising else seen <= allowed
            lines.append(
                f"Guard {guard.guard}: {plus(allowed)} allowed, {plus(guard.predicted - guard.reference)} predicted, "
                f"{plus(seen)} ± {error[guard.target]:.3f} observed: {'held' if held else 'did not hold'}"
            )
        return lines


def plus(change: float) -> str:
    """Return a change with its sign."""
    return f"{change:+.3f}".replace("-", "−")
