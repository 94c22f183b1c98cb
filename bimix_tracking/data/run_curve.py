"""One run as its source has read it → its curve: of one mixture, of one held-out set, and at which proportions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.messages import said

Shares = Literal["nominal", "realised"]
"""Whether a law is fitted to the nominal proportions or to the realised ones."""
DRIFT = 0.05
"""Relative difference between realised and nominal proportion above which it is reported."""
Deviation = tuple[str, str, int, str | None]
"""What was done, why, how often, and for which domain."""


def before_change(record: RunRecord) -> tuple[RunRecord, int]:
    """Return the run up to where its mixture first changes, and how many rows come after that."""
    if not record.manifest.schedule:
        return record, 0
    change = record.manifest.schedule[0][0]
    rows = [row for row in record.rows if row[metric_names.STEP] <= change]
    return dataclasses.replace(record, rows=rows), len(record.rows) - len(rows)


def of_one_set(record: RunRecord) -> tuple[RunRecord, int]:
    """Return the run with the losses of its held-out set only, and how many of other tokens it had.

    The recorder excludes such losses and logs how many they were. Runs of earlier versions have them: there, a
    domain's number of tokens changes. Evaluations before training fix nothing; a loss that was no number has no tokens.
    """
    counted, known = 0, dict[str, tuple[float, float]]()
    rows: list[Mapping[str, float]] = []
    for row in record.rows:
        counted += int(row.get(metric_names.OTHER_SET, 0.0))
        other = []
        for metric, tokens in row.items():
            quantity, _, short = metric.partition("/")
            if quantity != metric_names.EVAL_TOKENS or not row.get(metric_names.TOKENS, math.nan) > 0:
                continue
            # Trackers that merge the rows of a step don't say whether it was the training that wasn't finite.
            least, most = tokens, tokens + row.get(f"{metric_names.NONFINITE}/{short}", 0.0)
            low, high = known.get(short, (least, most))
            if least <= high and low <= most:
                known[short] = max(least, low), min(most, high)
            else:
                other.append(short)
        counted += len(other)
        gone = {name for name in row if name.partition("/")[2] in other and metric_names.is_evaluation(name)}
        rows.append({name: value for name, value in row.items() if name not in gone} if gone else row)
    return dataclasses.replace(record, rows=rows), counted


def proportions_of(record: RunRecord, shares: Shares) -> tuple[dict[str, float], list[Deviation]]:
    """Return the proportions to fit a run's losses with, and how the realised ones deviate.

    Args:
        record: A run with a mixture in its manifest.
        shares: Which; a run that logged no realised ones keeps its nominal mixture, with a note.
    """
    nominal, realised = dict(record.manifest.mixture or {}), _realised(record)
    if shares == "nominal":
        return nominal, list(_drifted(nominal, realised))
    total = sum(realised.values())
    if not total > 0:
        return nominal, [(said("kept; nominal share used"), said("no realised shares were logged"), 1, None)]
    return {domain: share / total for domain, share in realised.items()}, []


def loss_rows(label: str, record: RunRecord) -> list[tuple[object, ...]]:
    """Return a row of `measured_columns` for each evaluation loss, and for each value of another target."""
    beside = [quantity.name for quantity in metric_names.shown()]
    manifest = record.manifest
    others = [target.name for target in manifest.targets]
    short_to_name = metric_names.slugs([*manifest.domains, *others])
    named = [
        *((domain, metric_names.EVAL_LOSS, metric_names.EVAL_TOKENS) for domain in manifest.domains),
        *((target, metric_names.TARGET, metric_names.QUESTIONS) for target in others),
    ]
    rows: list[tuple[object, ...]] = []
    for row in record.rows:
        values: dict[tuple[str, str], float] = {}
        for metric, value in row.items():
            found = metric_names.parse(metric, short_to_name)
            if found:
                values[found] = value
        for name, quantity, counted in named:  # whatever order the tracker has them in
            measured = values.get((quantity, name))
            if measured is not None:
                count = values.get((counted, name), math.nan)
                of = (count, math.nan) if quantity == metric_names.EVAL_LOSS else (math.nan, count)
                at = row[metric_names.STEP], row.get(metric_names.TOKENS, math.nan)
                rows.append((label, *at, name, measured, *of, *(values.get((q, name), math.nan) for q in beside)))
    return rows


def _realised(record: RunRecord) -> dict[str, float]:
    """Return each domain's share of all tokens at the end, in the order of the manifest; empty where none is logged."""
    short_to_name = metric_names.slugs(record.manifest.domains)
    found: dict[str, float] = {}
    for row in record.rows:
        for metric, value in row.items():
            key = metric_names.parse(metric, short_to_name)
            if key and key[0] == metric_names.SHARE and math.isfinite(value):
                found[key[1]] = value
    return {domain: found[domain] for domain in record.manifest.domains if domain in found}


def _drifted(nominal: Mapping[str, float], realised: Mapping[str, float]) -> Iterator[Deviation]:
    """Return a deviation for each domain whose realised share differs from the nominal one at the end."""
    drifted = {d: v for d, v in realised.items() if _differ(v, nominal.get(d, 0.0))}
    if len(drifted) == 2:
        one, other = drifted
        if not _differ(drifted[one], nominal.get(other, 0.0)) and not _differ(drifted[other], nominal.get(one, 0.0)):
            text = said(
                "its realised shares of {one!r} and {other!r} are swapped ({share:.4g} and {nominal:.4g}): check their "
                "ids and proportions",
                one=one,
                other=other,
                share=drifted[one],
                nominal=drifted[other],
            )
            yield said("kept; nominal share used"), text, 1, None
            return
    for domain, share in drifted.items():
        text = said(
            "its realised share was {share:.4g}, its nominal share {nominal:.4g}",
            share=share,
            nominal=nominal.get(domain, 0.0),
        )
        yield said("kept; nominal share used"), text, 1, domain


def _differ(share: float, nominal: float) -> bool:
    return abs(share - nominal) > max(DRIFT * nominal, 0.001)
