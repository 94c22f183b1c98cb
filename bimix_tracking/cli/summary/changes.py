"""Gains and losses in the terminal: what the mixture does to each target, guards, and the smallest change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from bimix_tracking.cli.console import Column, print_table, say
from bimix_tracking.display.texts import isolated, printable
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.decision import probability

_MOST, _ENDS = 8, 3
"""Targets that are listed whole; of more, so many with the largest gains and as many with the largest losses."""
_GUARDS = 3
_COLUMNS: Sequence[Column] = (
    (said("target"), "left"),
    (said("reference"), "right"),
    (said("recommended"), "right"),
    (said("change"), "right"),
    (said("interval"), "right"),
    (said("verdict"), "left"),
    (said("guard"), "left"),
)
_OPTIONAL = ("interval", "reference", "verdict")


def has_changes(rec: Recommendation) -> bool:
    """Whether the table of domains doesn't show all that matters of the targets: some are none, or there are guards."""
    return bool(rec.guards) or any(name not in rec.mixture for name in rec.predicted)


def print_changes(rec: Recommendation) -> None:
    """Print a row a target, the largest gain first; of many, the ends only."""
    table = rec.changes[rec.changes["change"].notna()]
    if table.empty:
        return
    better = int(table["better"].sum())
    say(said("Change from the reference: {better} of {all} targets get better", better=better, all=len(table)))
    rows = [_row(rec, str(name), row) for name, row in table.to_dict("index").items()]
    if len(rows) > _MOST:
        rows = [*rows[:_ENDS], (said("{count} more", count=len(rows) - 2 * _ENDS), *[""] * 6), *rows[-_ENDS:]]
    kept = [i for i in range(len(_COLUMNS)) if any(row[i] not in (MISSING, "") for row in rows)]
    print_table([_COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows], _OPTIONAL)


def _row(rec: Recommendation, name: str, row: dict[Any, Any]) -> tuple[str, ...]:
    link, low, high = rec.link(name), row["low"], row["high"]
    known = math.isfinite(low) and math.isfinite(high)
    ends = (link.shown_change(low), link.shown_change(high))
    return (
        isolated(printable(name)),
        link.shown(row["reference"]),
        link.shown(row["recommended"]),
        link.shown_change(row["change"]),
        said("{low} to {high}", low=ends[0].removesuffix(" pp"), high=ends[1]) if known else MISSING,
        said("unclear") if known and low <= 0 <= high else said("better") if row["better"] else said("worse"),
        _guarded(rec, name),
    )


def _guarded(rec: Recommendation, name: str) -> str:
    of_target = [one.binding for one in rec.guards if one.target == name]
    if not of_target:
        return ""
    return said("binds") if any(of_target) else said("holds")


def change_lines(rec: Recommendation) -> Iterator[str]:
    """Yield what guards do and what they cost, and how far one must move for most of the gain."""
    if rec.guards:
        yield joined([said("Guards: {guards}.", guards=_guards(rec)), _together(rec)])
    if rec.path is not None and rec.gain > 0:
        yield said("Smallest change: {sentence}.", sentence=rec.path.sentence)
        if rec.path.start and rec.guards:  # of a broken bound there is a warning
            yield said("{sentence}.", sentence=rec.path.start)


def _guards(rec: Recommendation) -> str:
    binding = [one for one in rec.guards if one.binding]
    named = [
        said(
            "{guard} binds and costs {cost}",
            # Of a guard on many targets: what it is for this one.
            guard=isolated(printable(one.guard.partition(" (of ")[0])),
            cost=rec.amount(one.cost),
        )
        for one in binding[:_GUARDS]
    ]
    if len(binding) > _GUARDS:
        named.append(said("{count} more bind", count=len(binding) - _GUARDS))
    kept = [one for one in rec.guards if not one.binding]
    if len(kept) == 1:
        named.append(said("{guard} holds", guard=isolated(printable(kept[0].guard))))
    elif kept:
        named.append(said("{count} hold", count=len(kept)) if binding else said("all {count} hold", count=len(kept)))
    return joined(named, ", ")


def _together(rec: Recommendation) -> str:
    if rec.guards_together is None:
        return ""
    numbers = {"value": probability(rec.guards_together)}
    if rec.guard_probability is None:
        return said("That all hold has a probability of {value}.", **numbers)
    return said(
        "That all hold has a probability of {value}; {asked} was asked.",
        asked=probability(rec.guard_probability),
        **numbers,
    )
