"""Sums by domain → the metrics of a row: the only divisions there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from bimix_tracking.data import metric_names
from bimix_tracking.recording.sums import DomainSums


def losses(slugs: Sequence[str], quantity: str, sums: DomainSums) -> dict[str, float]:
    """Return Σ nll / Σ tokens of each domain that has tokens, and how many losses were no numbers.

    Args:
        slugs: As metrics spell the domains, in their order.
        quantity: `metric_names.TRAIN_LOSS` or `metric_names.EVAL_LOSS`.
        sums: What the rows are of.
    """
    row: dict[str, float] = {}
    columns = (slugs, sums.loss.tolist(), sums.tokens.tolist(), sums.nonfinite.tolist())
    for short, loss, tokens, nonfinite in zip(*columns, strict=True):
        if tokens:
            row[f"{quantity}/{short}"] = loss / tokens
        if nonfinite:
            row[f"{metric_names.NONFINITE}/{short}"] = float(nonfinite)
    return row


def evaluated(slugs: Sequence[str], sums: DomainSums) -> dict[str, float]:
    """Return what an evaluation measures of each domain beside its loss, as `metric_names.QUANTITIES` says."""
    row: dict[str, float] = {}
    quantities = metric_names.measured_beside()
    lists = sums.to_lists()
    for place, short in enumerate(slugs):
        if not lists["tokens"][place]:
            continue
        for quantity in quantities:
            total = float(lists[quantity.numerator][place]) / quantity.unit
            counted = lists[quantity.denominator][place] if quantity.denominator else 1
            if counted:
                row[f"{quantity.name}/{short}"] = total / counted
    return row


def shares(slugs: Sequence[str], tokens: npt.NDArray[Any]) -> dict[str, float]:
    """Return each domain's part of all tokens, shape (domains,); nothing where there are none."""
    total = float(tokens.sum())
    return {
        f"{metric_names.SHARE}/{short}": n / total for short, n in zip(slugs, tokens.tolist(), strict=True) if total
    }


def evaluation_of(rows: Iterable[Mapping[str, float]], step: int) -> dict[str, float]:
    """Return the evaluation among some rows that is of a step; nothing where none has a loss."""
    row: dict[str, float] = {}
    for found in (found for found in rows if found[metric_names.STEP] == step and metric_names.has_evaluation(found)):
        row |= {name: value for name, value in found.items() if metric_names.belongs_to_evaluation(name)}
    return row if any(name.startswith(f"{metric_names.EVAL_LOSS}/") for name in row) else {}
