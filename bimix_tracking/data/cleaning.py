"""Cleaning of a sweep's table: mixtures must sum to 1, losses be positive, and accuracies lie between 0 and 1.

Nothing is dropped in silence: what is excluded or adjusted is counted in a note, by run and domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from bimix_tracking.data.copied_runs import without_copies
from bimix_tracking.data.links import Link, linked
from bimix_tracking.data.pooling import Note, loss_columns, summary, without_other_units
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.data.thinning import thinned_table
from bimix_tracking.errors import ObservationsError
from bimix_tracking.messages import said
from bimix_tracking.mixture import SUM_TOLERANCE
from bimix_tracking.quantities import accuracy

_BELOW_CHANCE = 4.0
"""Standard errors by which a mean accuracy must be below chance before it is said."""
ROUNDING_TOLERANCE = 0.01
"""Rows of a table may sum to 1 within this (proportions rounded to three decimals); they are rescaled."""


def usable(
    mixtures: pd.DataFrame, measured: pd.DataFrame, notes: list[Note], described: Mapping[str, Target]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Link]]:
    """Return the runs that have a usable value, their losses in the order of runs and tokens, and the targets' links.

    Args:
        mixtures: As in `Observations`.
        measured: Columns `measured_columns`, of any runs, in any order.
        notes: Added to.
        described: What each target is; a loss where not named.

    Raises:
        ObservationsError: Nothing is left, or a target's values are of another unit.
    """
    table = measured.astype({"tokens": float, "value": float, "eval_tokens": float, "step": float, "questions": float})
    table["run"] = table["run"].astype(str)
    kinds = {name: target.kind for name, target in described.items()}
    kind = table["domain"].map(lambda name: kinds.get(name, Kind.LOSS))
    table = table.assign(of_loss=kind.isin([Kind.LOSS, Kind.BPB]), of_accuracy=kind == Kind.ACCURACY)
    table = table.reset_index(drop=True)

    def exclude(bad: pd.Series, reason: str) -> None:
        nonlocal table
        if bad.any():
            counts = table[bad].groupby(["run", "domain"], sort=False).size()
            for label, count in counts.items():
                run, domain = cast("tuple[str, str]", label)
                notes.append(Note(said("excluded"), reason, int(count), run, domain, domain not in mixtures.columns))
            table = table[~bad]

    exclude(table["value"].isna() & table["of_loss"], said("loss is NaN"))
    exclude(table["value"].isna(), said("its value is NaN"))
    # Trackers on SQL store ±inf as ±1.797e308.
    exclude((table["value"].abs() > 1e300) & table["of_loss"], said("loss is infinite"))
    exclude(table["value"].abs() > 1e300, said("its value is infinite"))
    not_positive = (table["value"] <= 0) & table["of_loss"]
    exclude(not_positive, said("loss is not positive, which a law on log losses cannot use"))
    _check_accuracies(table[table["of_accuracy"]])
    exclude(table["of_accuracy"] & ~table["value"].between(0, 1), said("an accuracy outside 0 to 1"))
    exclude(~np.isfinite(table["tokens"]), said("the token count is not finite"))
    exclude(table["tokens"] < 0, said("the token count is negative"))
    exclude(table["tokens"] == 0, said("evaluated before training (0 tokens)"))
    point = ["run", "tokens", "domain"]
    exclude(table.duplicated([*point, "value"], keep="last"), said("the same point logged twice"))
    exclude(table.duplicated(point, keep="last"), said("an earlier value of a point logged again"))
    for run in [run for run in mixtures.index if not (table["run"] == run).any()]:
        notes.append(Note(said("excluded"), said("no usable loss is left"), 1, run=run))
        mixtures = mixtures.drop(index=run)
    if mixtures.empty:
        raise ObservationsError("no usable loss is left: " + summary(notes))
    mixtures, _ = without_other_units(mixtures, table[table["of_loss"]], notes)
    table = table[table["run"].isin(list(mixtures.index))]
    table = thinned_table(table, notes)
    # Accuracies of few questions agree by chance: they show no copy.
    mixtures, _ = without_copies(mixtures, table[table["of_loss"]], notes)
    table = table[table["run"].isin(list(mixtures.index))]
    order = {run: position for position, run in enumerate(mixtures.index)}
    table = table.sort_values(["run", "tokens"], key=lambda c: c.map(order) if c.name == "run" else c, kind="stable")
    table = table.reset_index(drop=True)
    links = _linked(table, order, described, notes)
    return mixtures, table.reindex(columns=loss_columns()), links


def _linked(
    table: pd.DataFrame, order: Mapping[str, int], described: Mapping[str, Target], notes: list[Note]
) -> dict[str, Link]:
    """Fill in the columns `loss` and `precision`, and return the targets' links; none where all are losses in nats."""
    table["loss"], table["precision"] = table["value"], np.nan
    links: dict[str, Link] = {}
    if all(target.kind is Kind.LOSS for target in described.values()):
        return links
    for name in table["domain"].unique().tolist():
        target = described.get(name) or Target(name)
        mine = np.flatnonzero(table["domain"] == name)
        values, questions, tokens = (table[c].to_numpy(float)[mine] for c in ("value", "questions", "tokens"))
        run = table["run"].map(order).to_numpy(float)[mine].astype(np.intp)
        found = linked(target, values, questions, run, tokens)
        links[name] = found.link
        table.loc[mine, "loss"], table.loc[mine, "precision"] = found.loss, found.precision
        if _below_chance(target, values, questions):
            text = said(
                "its mean accuracy is {mean}, below its chance level of {chance}. Is the chance level right?",
                mean=accuracy(float(values.mean())),
                chance=accuracy(target.chance),
            )
            notes.append(Note(said("kept"), text, len(mine), domain=name, target=True))
    return links


def _below_chance(target: Target, values: npt.NDArray[np.float64], questions: npt.NDArray[np.float64]) -> bool:
    asked = questions[np.isfinite(questions)]
    if target.kind is not Kind.ACCURACY:
        return False
    # Of one evaluation: the models of a sweep answer the same questions, so their errors are shared.
    count = float(asked.mean()) if len(asked) else float(target.questions or np.nan)
    error = np.sqrt(target.chance * (1 - target.chance) / count)
    return bool(target.chance - values.mean() > _BELOW_CHANCE * error)


def _check_accuracies(table: pd.DataFrame) -> None:
    """Refuse a sweep half of whose runs have an accuracy above 1: it is in per cent, or no accuracy."""
    above = table[table["value"] > 1]
    for name, of_target in above.groupby("domain", sort=False):
        runs = table.loc[table["domain"] == name, "run"].nunique()
        if 2 * of_target["run"].nunique() >= runs:
            worst = of_target.iloc[0]
            raise ObservationsError(
                f"target {str(name)!r} is an accuracy, but run {worst['run']!r} has {worst['value']:.4g}, and "
                f"{of_target['run'].nunique()} of {runs} runs are above 1. Are these per cent? Divide by 100, or call "
                "it a score"
            )


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
