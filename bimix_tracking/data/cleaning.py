"""Cleaning of a sweep's table: mixtures must sum to 1, losses must be positive.

Nothing is dropped in silence: what is excluded or adjusted is counted in a note, by run and domain.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd

from bimix_tracking.data.copied_runs import without_copies
from bimix_tracking.data.pooling import Note, loss_columns, summary, without_other_units
from bimix_tracking.data.thinning import thinned_table
from bimix_tracking.errors import ObservationsError
from bimix_tracking.messages import said
from bimix_tracking.mixture import SUM_TOLERANCE

ROUNDING_TOLERANCE = 0.01
"""Rows of a table may sum to 1 within this (proportions rounded to three decimals); they are rescaled."""


def usable(mixtures: pd.DataFrame, losses: pd.DataFrame, notes: list[Note]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the runs that have a usable loss, and their losses in the order of runs and tokens.

    Args:
        mixtures: As in `Observations`.
        losses: Columns `loss_columns`, of any runs, in any order.
        notes: Added to.

    Raises:
        ObservationsError: Nothing is left.
    """
    table = losses.astype({"tokens": float, "loss": float, "eval_tokens": float, "step": float})
    table["run"] = table["run"].astype(str)

    def exclude(bad: pd.Series, reason: str) -> None:
        nonlocal table
        if bad.any():
            counts = table[bad].groupby(["run", "domain"], sort=False).size()
            for label, count in counts.items():
                run, domain = cast("tuple[str, str]", label)
                notes.append(Note(said("excluded"), reason, int(count), run=run, domain=domain))
            table = table[~bad]

    exclude(table["loss"].isna(), said("loss is NaN"))
    # Trackers on SQL store ±inf as ±1.797e308.
    exclude(table["loss"].abs() > 1e300, said("loss is infinite"))
    exclude(table["loss"] <= 0, said("loss is not positive, which a law on log losses cannot use"))
    exclude(~np.isfinite(table["tokens"]), said("the token count is not finite"))
    exclude(table["tokens"] < 0, said("the token count is negative"))
    exclude(table["tokens"] == 0, said("evaluated before training (0 tokens)"))
    point = ["run", "tokens", "domain"]
    exclude(table.duplicated([*point, "loss"], keep="last"), said("the same point logged twice"))
    exclude(table.duplicated(point, keep="last"), said("an earlier value of a point logged again"))
    for run in [run for run in mixtures.index if not (table["run"] == run).any()]:
        notes.append(Note(said("excluded"), said("no usable loss is left"), 1, run=run))
        mixtures = mixtures.drop(index=run)
    if mixtures.empty:
        raise ObservationsError("no usable loss is left: " + summary(notes))
    mixtures, table = without_other_units(mixtures, table, notes)
    table = thinned_table(table, notes)
    mixtures, table = without_copies(mixtures, table, notes)
    order = {run: position for position, run in enumerate(mixtures.index)}
    table = table.sort_values(["run", "tokens"], key=lambda c: c.map(order) if c.name == "run" else c, kind="stable")
    return mixtures, table.reindex(columns=loss_columns()).reset_index(drop=True)


def mixtures_of(shares: pd.DataFrame, names: pd.Series, notes: list[Note]) -> pd.DataFrame:
    """Return one row of proportions a run, rescaled to sum to 1."""
    grouped = shares.groupby(names, sort=False)
    # `first` skips NaN: a run that has one anywhere must not pass for another row's sake.
    first = grouped.first().where(grouped.count().eq(grouped.size(), axis=0))
    for run, spread in (grouped.max() - grouped.min()).max(axis=1).items():
        if spread > SUM_TOLERANCE:
            raise ObservationsError(f"run {str(run)!r} has more than one mixture: its proportions vary by {spread:.3g}")
    values = first.to_numpy()
    for run, row in zip(first.index, values, strict=True):
        if not np.isfinite(row).all() or (row < 0).any():
            worst = first.columns[int(np.argmax(~np.isfinite(row) | (row < 0)))]
            raise ObservationsError(
                f"run {str(run)!r}: the proportion of domain {worst!r} is {first.loc[run, worst]}, "
                "it must be finite and not negative"
            )
        if abs(row.sum() - 1) > ROUNDING_TOLERANCE:
            raise ObservationsError(
                f"run {str(run)!r}: proportions sum to {row.sum():.6g}, not 1 (up to "
                f"{ROUNDING_TOLERANCE} is taken for rounding). Is a domain's column missing, or are these percentages?"
            )
    sums = values.sum(axis=1)
    rounded = np.abs(sums - 1) > SUM_TOLERANCE
    if rounded.any():
        notes.append(
            Note(
                said("adjusted"),
                said("proportions summed to 1 only within rounding and were rescaled"),
                int(rounded.sum()),
            )
        )
    # Rounding of the sum itself is let be: else a table written and read again would be another one.
    result = first.div(np.where(np.abs(sums - 1) < 1e-12, 1.0, sums), axis=0)
    result.index = result.index.astype(str)
    return result
