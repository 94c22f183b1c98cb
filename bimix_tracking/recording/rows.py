"""Sums by domain → the metrics of a row: the only divisions there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from bimix_tracking.data import metric_names
from bimix_tracking.data.targets import Kind, Target
from bimix_tracking.errors import RecorderError, did_you_mean, shown
from bimix_tracking.recording.input_checks import number
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


def target_values(
    targets: Sequence[Target], values: Mapping[str, Any], questions: Mapping[str, Any] | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the metrics of targets' values, and warnings by topic: what no target is, or no number, is excluded.

    Args:
        targets: Those of the run.
        values: Target → value, in its own unit.
        questions: Accuracy → how many questions it is the mean of, where the target doesn't say.

    Raises:
        RecorderError: A value or a number of questions is no number at all.

    >>> target_values([Target("mmlu", "accuracy")], {"mmlu": 0.31, "mlu": 0.3}, {"mmlu": 14042})[0]
    {'bimix_target/mmlu': 0.31, 'bimix_questions/mmlu': 14042.0}
    """
    known = {target.name: target for target in targets}
    row: dict[str, float] = {}
    warnings: dict[str, str] = {}
    for name, given in values.items():
        target = known.get(name)
        if target is None:
            remedy = did_you_mean(str(name), list(known)) if known else "this run has none"
            warnings[f"no target {name}"] = (
                f"{shown(name)} is no target of this run, so its values are excluded; {remedy}. Declare it: "
                f"targets=[Target({str(name)!r}, kind=…)]"
            )
            continue
        value, short = number(name, given), metric_names.slug(name)
        if not math.isfinite(value):
            row[f"{metric_names.NONFINITE}/{short}"] = 1.0
            warnings[f"nonfinite {short}"] = (
                f"a value of target {name!r} was NaN or infinite; such are excluded and counted in "
                f"{metric_names.NONFINITE}/{short}"
            )
            continue
        row[f"{metric_names.TARGET}/{short}"] = value
        if target.kind is not Kind.ACCURACY:
            continue
        if not 0 <= value <= 1:
            warnings[f"accuracy {short}"] = (
                f"target {name!r} is an accuracy, but has the value {value:.4g}: laws need 0 to 1. Is it in per cent?"
            )
        asked = target.questions if questions is None else questions.get(name, target.questions)
        if asked is not None:
            count = number(f"questions of {name}", asked)
            if not (count >= 1 and count.is_integer()):
                raise RecorderError(f"the questions of target {name!r} must be a whole number from 1 on, got {asked!r}")
            row[f"{metric_names.QUESTIONS}/{short}"] = count
    return row, warnings


def shares(slugs: Sequence[str], tokens: npt.NDArray[Any]) -> dict[str, float]:
    """Return each domain's part of all tokens, shape (domains,); nothing where there are none."""
    total = float(tokens.sum())
    return {
        f"{metric_names.SHARE}/{short}": n / total for short, n in zip(slugs, tokens.tolist(), strict=True) if total
    }


def evaluation_of(rows: Iterable[Mapping[str, float]], step: int, *, only_targets: bool = False) -> dict[str, float]:
    """Return the evaluation among some rows that is of a step; nothing where none has a loss or a target's value.

    Args:
        rows: In the order in which they were made.
        step: Optimizer steps.
        only_targets: Whether losses are left out.
    """
    row: dict[str, float] = {}
    for found in (found for found in rows if found[metric_names.STEP] == step and metric_names.has_evaluation(found)):
        row |= {name: value for name, value in found.items() if metric_names.belongs_to_evaluation(name)}
    if only_targets:
        axes = (metric_names.STEP, metric_names.TOKENS)
        row = {name: value for name, value in row.items() if name in axes or metric_names.is_of_target(name)}
    return row if any(map(metric_names.is_value, row)) else {}
