"""A sweep as somebody's table, a row a (run, checkpoint), made into the tall table that cleaning takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking.data.cleaning import mixtures_of
from bimix_tracking.data.model_sizes import Facts
from bimix_tracking.data.pooling import Note
from bimix_tracking.data.targets import Target
from bimix_tracking.errors import ObservationsError, listed, shown
from bimix_tracking.mixture import check_domains


@dataclass(frozen=True)
class Columns:
    """Which column of a table is what; see `Observations.from_wide`.

    Args:
        proportions: By domain.
        losses: By target.
        tokens: Training tokens seen.
        run: The run's name; None: rows of one mixture are one run.
        step: The optimizer step; None: unknown.
        eval_tokens: By target.
        questions: By target.
        model_size: A column, or the one number of all runs.
        schedule_tokens: Likewise.
    """

    proportions: Mapping[str, str]
    losses: Mapping[str, str]
    tokens: str
    run: str | None
    step: str | None
    eval_tokens: Mapping[str, str]
    questions: Mapping[str, str]
    model_size: str | float | None
    schedule_tokens: str | float | None

    def checked(self, table: pd.DataFrame) -> None:
        """Refuse a table that lacks one of the columns, or has a text where a number must be.

        Raises:
            ObservationsError: Names the columns.
        """
        wanted = [*self.proportions.values(), *self.losses.values(), *self.eval_tokens.values(), self.tokens]
        wanted += self.questions.values()
        single = (self.run, self.step, self.model_size, self.schedule_tokens)
        wanted += [column for column in single if isinstance(column, str)]
        missing = [column for column in wanted if column not in table.columns]
        if missing:
            raise ObservationsError(
                f"the table lacks the columns {listed(missing)}; it has {listed(table.columns, 20)}"
            )
        for column in [column for column in wanted if column != self.run]:
            try:
                table[column].astype(float)
            except (TypeError, ValueError) as error:
                raise ObservationsError(f"the column {column!r} must hold numbers: {str(error)[:200]}") from error


def tall(
    table: pd.DataFrame, columns: Columns, described: Mapping[str, Target], notes: list[Note]
) -> tuple[pd.DataFrame, pd.DataFrame, Facts]:
    """Return mixtures, a row a run; what was measured, a row a (run, checkpoint, target); and what runs say beside.

    Args:
        table: As `Observations.from_wide` takes it.
        columns: Which is what.
        described: What targets are; one named here is measured at some checkpoints.
        notes: Added to.

    Raises:
        ObservationsError: A column is missing, or a mixture is no mixture.
    """
    columns.checked(table)
    domains = check_domains(columns.proportions)
    shares = table[list(columns.proportions.values())].set_axis(list(domains), axis=1).astype(float)
    size = None
    if isinstance(columns.model_size, str):
        size = table[columns.model_size].astype(float)
    if columns.run is None:
        # The same mixture at another model size is another run.
        key = shares if size is None else shares.assign(_size=size)
        number = pd.Series(key.groupby(list(key.columns), sort=False, dropna=False).ngroup() + 1)
        names = "mixture-" + number.astype(str)
    else:
        names = table[columns.run].astype(str)
    mixtures = mixtures_of(shares, names.set_axis(shares.index), notes)
    parts = [
        pd.DataFrame(
            {
                "run": names.to_numpy(),
                "step": table[columns.step].to_numpy() if columns.step else np.nan,
                "tokens": table[columns.tokens].to_numpy(),
                "domain": target,
                "value": table[column].to_numpy(),
                "eval_tokens": _numbers(table, columns.eval_tokens.get(target)),
                "questions": _numbers(table, columns.questions.get(target)),
            }
        )
        for target, column in columns.losses.items()
    ]
    parts = [_measured(one) if name in described else one for name, one in zip(columns.losses, parts, strict=True)]
    facts = Facts(_by_run(table, names, columns.model_size), _by_run(table, names, columns.schedule_tokens))
    return mixtures, pd.concat(parts), facts


def as_columns(names: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Return name → column; where only columns are given, they are named for what they hold."""
    return dict(names) if isinstance(names, Mapping) else {name: name for name in names}


def _numbers(table: pd.DataFrame, column: str | None) -> object:
    return np.nan if column is None else table[column].to_numpy()


def _measured(part: pd.DataFrame) -> pd.DataFrame:
    """Return a target without its empty cells: it is measured at some checkpoints; a run that has none is noted."""
    return part[part["value"].notna() | part.groupby("run")["value"].transform("count").eq(0)]


def _by_run(table: pd.DataFrame, names: pd.Series, column: str | float | None) -> dict[str, float]:
    """Return the one number that each run has in a column, where it has any; or one number for all."""
    if column is None:
        return {}
    if not isinstance(column, str):
        return {str(run): float(column) for run in dict.fromkeys(names)}
    values = table[column].astype(float).set_axis(names.index).groupby(names, sort=False)
    for run, several in values.nunique().items():
        if several > 1:
            found = listed(values.get_group(run).dropna().unique().tolist())
            raise ObservationsError(f"run {shown(run)} has more than one {column!r}: {found}")
    return {str(run): float(value) for run, value in values.first().dropna().items()}
