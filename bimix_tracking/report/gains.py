"""Gains and losses of every target against the reference, each in its own unit: sentences, rows and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bimix_tracking.data.observations import Observations
from bimix_tracking.display.gains import GainRow, Guarded, gains_chart
from bimix_tracking.display.texts import isolated, printable, shorten
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, digits
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.decision import guards_by_target, probability
from bimix_tracking.report.language import Language
from bimix_tracking.report.value_axes import measured

_ENDS = 3


@dataclass(frozen=True)
class Gain:
    """One target in the table of gains and losses, as printed; `row` is what is drawn of it."""

    target: str
    group: str
    weight: str
    reference: str
    recommended: str
    change: str
    interval: str
    guard: str
    better: bool
    row: GainRow


@dataclass(frozen=True)
class GuardLine:
    """One guard in the table of guards, as printed."""

    guard: str
    reference: str
    limit: str
    predicted: str
    probability: str
    cost: str
    state: str


def gains(rec: Recommendation, obs: Observations, unfit: Mapping[str, str]) -> tuple[Gain, ...]:
    """Return what the recommended mixture does to each target, the largest improvement first.

    Improvements are compared in standard deviations between the sweep's runs where targets have several units.

    Args:
        rec: The recommendation and its reference.
        obs: The sweep, for the spread of each target.
        unfit: Targets that can't decide between mixtures, with why.
    """
    several = len({rec.target(name).kind for name in rec.predicted}) > 1
    guards = guards_by_target(rec)
    found = []
    for name, row in rec.changes.to_dict("index").items():
        target, link = rec.target(str(name)), rec.link(str(name))
        sign = 1.0 if target.rising else -1.0
        scale = spread(obs, str(name)) if several else 1.0
        # An end that is no change and its sign: the better end is the last one.
        at, *ends = (sign * float(row[part]) / scale for part in ("change", "low", "high"))
        low, high = sorted(ends)
        guard = guards.get(str(name))
        limit = math.nan if guard is None else sign * (guard.limit - guard.reference) / scale
        state = Guarded.NONE
        if guard is not None:
            broken = at < limit - 1e-6 * max(abs(limit), abs(at), 1e-12) and not guard.binding
            state = Guarded.BROKEN if broken else Guarded.BINDING if guard.binding else Guarded.KEPT
            if state is Guarded.KEPT and low < limit:
                state = Guarded.UNSURE
        interval = _ends(link.shown_change(float(row["low"])), link.shown_change(float(row["high"])))
        counts = row["weight"] > 0
        note = said("not fit to decide") if name in unfit else "" if counts else said("not in the objective")
        if name in unfit and counts:
            note = said("not fit to decide, but weighted")
        found.append(
            Gain(
                target=printable(str(name)),
                group=printable(target.group or ""),
                weight=digits(row["weight"]),
                reference=link.shown(float(row["reference"])),
                recommended=link.shown(float(row["recommended"])),
                change=link.shown_change(float(row["change"])),
                interval=interval or MISSING,
                guard="" if guard is None else joined([printable(guard.guard), state.words], ": "),
                better=at > 0,
                row=GainRow(
                    name=str(name),
                    change=link.shown_change(float(row["change"])),
                    at=at,
                    low=low,
                    high=high,
                    interval=interval and said("({ends})", ends=interval),
                    group=target.group or "",
                    note=note,
                    limit=limit,
                    guard="" if guard is None else _short(guard.guard, str(name)),
                    state=state,
                    counts=counts,
                ),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.row.at if math.isfinite(one.row.at) else math.inf))


def _short(guard: str, target: str) -> str:
    """Return a guard without the target's name, which stands beside it, and without the group that it is for."""
    return guard.removeprefix(target).partition(" (of ")[0].replace("<=", "≤ ").replace(">=", "≥ ").replace("-", "−")


def _ends(low: str, high: str) -> str:
    """Return an interval as it is printed, its unit once; empty where an end is unknown."""
    return "" if MISSING in (low, high) else said("{low} to {high}", low=low.removesuffix(" pp"), high=high)


def spread(obs: Observations, target: str) -> float:
    """Return the standard deviation of a target's last values over runs, in its own unit; 1 where there is none."""
    last = measured(obs, target).drop_duplicates("run", keep="last")["loss"].to_numpy(float)
    found = float(last.std()) if len(last) > 1 else 0.0
    return found if found > 0 else abs(float(last.mean())) if len(last) and last.mean() else 1.0


def chart(rec: Recommendation, found: Sequence[Gain], say: Language) -> str:
    """Return the picture of gains and losses.

    Args:
        rec: The recommendation.
        found: Of `gains`.
        say: The page's language.
    """
    names = list(rec.predicted)
    several = len({rec.target(name).kind for name in names}) > 1
    ticks = None
    if not several and names:
        link, sign = rec.link(names[0]), 1.0 if rec.target(names[0]).rising else -1.0

        def ticks(improvement: float) -> str:
            text = link.shown_change(sign * improvement)
            number, _, unit = text.partition(" ")
            head, _, places = number.partition(".")
            kept = places.rstrip("0")
            return joined([part for part in (f"{head}.{kept}" if kept else head, unit) if part], " ")

    return gains_chart([one.row for one in found], say, ticks=ticks)


def ends(found: Sequence[Gain]) -> tuple[str, str]:
    """Return the largest gains and the largest losses as two sentences; empty where there are none."""
    known = [one for one in found if math.isfinite(one.row.at)]
    best = [one for one in known if one.better][:_ENDS]
    worst = [one for one in reversed(known) if one.row.at < 0][:_ENDS]
    return (
        said("Largest gains: {targets}.", targets=_named(best)) if best else "",
        said("Largest losses: {targets}.", targets=_named(worst)) if worst else said("No target gets worse."),
    )


def _named(found: Sequence[Gain]) -> str:
    each = ([isolated(shorten(one.target, 40)), one.change, one.row.interval] for one in found)
    return joined((joined([part for part in parts if part], " ") for parts in each), ", ")


def guard_lines(rec: Recommendation, found: Sequence[Gain]) -> tuple[GuardLine, ...]:
    """Return the table of guards, those that bind first.

    Args:
        rec: The recommendation.
        found: Of `gains`.
    """
    states = {one.row.name: one.row.state for one in found}
    order = sorted(rec.guards, key=lambda one: (not one.binding, one.probability if one.probability is not None else 1))
    lines = []
    for one in order:
        link = rec.link(one.target)
        lines.append(
            GuardLine(
                guard=printable(one.guard),
                reference=link.shown(one.reference),
                limit=link.shown(one.limit),
                predicted=link.shown(one.predicted),
                probability=MISSING if one.probability is None else probability(one.probability),
                cost=rec.amount(one.cost) if one.binding else said("nothing"),
                state=states.get(one.target, Guarded.NONE).words,
            )
        )
    return tuple(lines)


def guard_sentence(rec: Recommendation, found: Sequence[Gain]) -> str:
    """Return in words how the guards do; empty where there are none."""
    if not rec.guards:
        return ""
    states = [one.row.state for one in found if one.row.state]
    parts = [
        said(
            "Guards: {all}, of which {binding} bind.",
            all=len(states),
            binding=sum(state is Guarded.BINDING for state in states),
        )
    ]
    broken = [isolated(one.target) for one in found if one.row.state is Guarded.BROKEN]
    if broken:
        parts.append(said("Broken: {targets}.", targets=joined(broken, ", ")))
    if rec.guards_together is not None:
        parts.append(said("All hold together with probability {value}.", value=probability(rec.guards_together)))
    return joined(parts)
