"""Gains and losses as a picture of HTML elements: a row a target, better to the right, guards as ticks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape

from bimix_tracking.display.texts import printable
from bimix_tracking.messages import joined, said

MOST_ROWS = 12
"""Of more targets the others are behind a summary."""
_FEW_MORE = 2
_ROOM = 1.06

STYLE = """
.bx-gains { --bx-good: #2f8a4c; --bx-bad: #b3460b; }
.bx-gains .bx-row { grid-template-columns: minmax(4.5rem, min(30%, 15rem)) minmax(0, 1fr) 15.5rem; min-height: 1.7rem; }
.bx-gains .bx-name { white-space: normal; overflow-wrap: anywhere; }
.bx-gains .bx-name bdi { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bx-gains .bx-num { white-space: normal; }
.bx-gains small { display: block; font-size: .75rem; line-height: 1.2; opacity: .82; }
.bx-gains .bx-group { margin: .5rem 0 0; font-weight: 600; font-size: .8125rem; }
.bx-gains .bx-sure { height: 4px; border-radius: 2px; background: currentcolor; opacity: .4; min-width: 2px; }
.bx-gains .bx-at { width: .7rem; height: .7rem; border: .16rem solid var(--bx-bad); border-radius: 50%;
  background: var(--bx-bad); }
.bx-gains .bx-at.good { border-color: var(--bx-good); background: var(--bx-good); border-radius: 2px; }
.bx-gains .bx-at.open { background: Canvas; }
.bx-gains .bx-track .bx-at { transform: translate(-50%, -50%); }
.bx-gains .bx-zero { height: 100%; border-left: 1px solid; opacity: .55; }
.bx-gains .bx-guard { width: 0; height: 1.1rem; border-left: 3px solid; opacity: .75; }
.bx-gains :is(.bx-guard.broken, .bx-guard.unsure) {
  border-left-style: dashed; border-color: var(--bx-bad); opacity: 1; }
.bx-gains .bx-guard.binding { border-color: var(--bx-mark); opacity: 1; }
.bx-gains .bx-ends { display: flex; justify-content: space-between; margin: 0 .5rem; font-size: .75rem; opacity: .85; }
@container (max-width: 34rem) {
  .bx-gains .bx-row { grid-template-columns: minmax(5.5rem, 32%) minmax(0, 1fr) 4.9rem; }
  .bx-gains .bx-wide { display: none; }
}
"""
"""For a page's own style, after that of `proportions`. A page may set `--bx-good`, `--bx-bad` and `--bx-mark`."""


class Guarded(StrEnum):
    """What became of a guard on a target."""

    NONE = ""
    KEPT = "kept"
    """As predicted, and over the whole interval."""
    UNSURE = "unsure"
    """As predicted; the interval reaches beyond the limit."""
    BINDING = "binding"
    """It decides the mixture: the prediction is at the limit."""
    BROKEN = "broken"
    """Not even as predicted."""

    @property
    def words(self) -> str:
        """What it is called on a page."""
        return {
            Guarded.NONE: "",
            Guarded.KEPT: said("guard kept"),
            Guarded.UNSURE: said("guard kept, not surely"),
            Guarded.BINDING: said("guard binding"),
            Guarded.BROKEN: said("guard broken"),
        }[self]


@dataclass(frozen=True)
class GainRow:
    """One target of the picture; positions are improvements, to the right, in the axis's unit; NaN isn't drawn.

    Args:
        name: Of the target, anyone's text.
        change: In the target's own unit, as printed.
        at: The improvement.
        low: Its worse end.
        high: Its better end.
        interval: Both ends in the target's own unit, as printed.
        group: Of the target.
        note: What to know of it: that it doesn't count, say.
        limit: Where its guard is.
        guard: As it was asked for.
        state: Of the guard.
        counts: Whether it is in the objective.
    """

    name: str
    change: str
    at: float
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    group: str = ""
    note: str = ""
    limit: float = math.nan
    guard: str = ""
    state: Guarded = Guarded.NONE
    counts: bool = True

    @property
    def clear(self) -> bool:
        """Whether its interval is on one side of no change."""
        return not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low * self.high > 0


def _place(row: GainRow) -> tuple[bool, bool, float]:
    return (
        row.state not in (Guarded.BROKEN, Guarded.BINDING),
        # Somebody asked of a guarded one how much worse it gets.
        not (row.counts or (row.state is not Guarded.NONE and row.at < 0)),
        -abs(row.at) if math.isfinite(row.at) else math.inf,
    )


def gains_chart(
    rows: Sequence[GainRow],
    say: Callable[[str], str] = str,
    *,
    ticks: Callable[[float], str] | None = None,
    title: str = said("Gains and losses by target"),
    most: int = MOST_ROWS,
) -> str:
    """Return the picture, the best first in each group; `STYLE` sets it, after that of `proportions`.

    Args:
        rows: One a target.
        say: Says a sentence in the page's language.
        ticks: An improvement on the axis, as printed; None: targets have several units, and the axis no numbers.
        title: What it shows.
        most: Rows that are not behind a summary: guards that bind or break first, then the largest changes that count
            or that a guard is on.

    >>> gains_chart([GainRow("<b>", "−0.1", 0.1, 0.05, 0.15), GainRow("web", "+0.1", -0.1)]).count("&lt;b&gt;")
    3
    """
    order = sorted(rows, key=_place)
    cut = most if len(order) > most + _FEW_MORE else len(order)
    first, others = order[:cut], order[cut:]
    known = [v for row in rows for v in (row.at, row.low, row.high, row.limit, 0.0) if math.isfinite(v)] or [0.0]
    far = max(max(known) - min(known), 1e-12) * (_ROOM - 1)
    span = (min(known) - far, max(known) + far)
    grouped = len({row.group for row in rows}) > 1
    parts = [
        f'<figure class="bx-mix bx-gains" aria-label="{escape(say(title))}">',
        _key(rows, say),
        _scale(span, ticks, say),
        _groups(first, span, say, grouped=grouped),
    ]
    if others:
        worse = sum(row.at < 0 for row in others)
        rest = said("{count} more targets, of which {worse} get worse", count=len(others), worse=worse)
        parts.append(f'<details class="bx-more"><summary>{escape(say(rest))}</summary>')
        parts += [_groups(others, span, say, grouped=grouped), "</details>"]
    return "".join([*parts, "</figure>"])


def _key(rows: Sequence[GainRow], say: Callable[[str], str]) -> str:
    marks = [("at good", said("better")), ("at", said("worse"))]
    if any(math.isfinite(row.low) for row in rows):
        marks.append(("at good open", said("interval holds no change")))
    if any(row.state for row in rows):
        marks.append(("guard", said("guard's limit")))
    shown = (f'<span><i class="bx-{cls}"></i>{escape(say(text))}</span>' for cls, text in marks)
    return f'<figcaption class="bx-key">{"".join(shown)}</figcaption>'


def _scale(span: tuple[float, float], ticks: Callable[[float], str] | None, say: Callable[[str], str]) -> str:
    if ticks is None:
        inside = f'<div class="bx-ends"><span>← {escape(say(said("worse")))}</span>'
        inside += f"<span>{escape(say(said('better')))} →</span></div>"
    else:
        each = "".join(
            f'<span style="left:{_at(tick, span)}">{escape(say(ticks(tick)))}</span>' for tick in _ticks(span)
        )
        inside = f'<div class="bx-scale">{each}</div>'
    return f'<div class="bx-row" aria-hidden="true"><span></span>{inside}<span></span></div>'


def _ticks(span: tuple[float, float]) -> list[float]:
    rough = (span[1] - span[0]) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(span[0] / step - 1e-9)
    return [number * step for number in range(first, math.floor(span[1] / step + 1e-9) + 1)]


def _groups(rows: Iterable[GainRow], span: tuple[float, float], say: Callable[[str], str], *, grouped: bool) -> str:
    order = sorted(rows, key=lambda row: -row.at if math.isfinite(row.at) else math.inf)
    parts = []
    for group in sorted({row.group for row in order}, key=lambda name: (not name, name)):
        if grouped:
            shown = escape(printable(group) or say(said("no group")))
            parts.append(f'<p class="bx-group"><bdi>{shown}</bdi></p>')
        # Not a list element: a notebook indents those and gives them bullets.
        parts.append('<div role="list">')
        parts += [_row(row, span, say) for row in order if row.group == group]
        parts.append("</div>")
    return "".join(parts)


def _row(row: GainRow, span: tuple[float, float], say: Callable[[str], str]) -> str:
    name = escape(printable(row.name))
    marks = [f'<i class="bx-zero" style="left:{_at(0.0, span)}"></i>', '<i class="bx-line"></i>']
    if math.isfinite(row.low) and math.isfinite(row.high):
        wide = 100 * (row.high - row.low) / (span[1] - span[0])
        marks.append(f'<i class="bx-sure" style="left:{_at(row.low, span)};width:{max(wide, 0.0):.2f}%"></i>')
    if math.isfinite(row.limit):
        marks.append(f'<i class="bx-guard {row.state}" style="left:{_at(row.limit, span)}"></i>')
    if math.isfinite(row.at):
        cls = "bx-at" + (" good" if row.at > 0 else "") + ("" if row.clear else " open")
        marks.append(f'<i class="{cls}" style="left:{_at(row.at, span)}"></i>')
    note = f"<small>{escape(say(printable(row.note)))}</small>" if row.note else ""
    limit = f'<span class="bx-wide">{escape(printable(row.guard))}</span> ' if row.guard else ""
    guard = f"<small>{limit}{escape(say(row.state.words))}</small>" if row.state else ""
    interval = f' <span class="bx-wide">{escape(say(row.interval))}</span>' if row.interval else ""
    return (
        f'<div class="bx-row" role="listitem"><span class="bx-name" title="{name}"><bdi>{name}</bdi>{note}</span>'
        f'<div class="bx-track" role="img" aria-label="{escape(say(_in_words(row)))}">{"".join(marks)}</div>'
        f'<span class="bx-num"><b>{escape(say(row.change))}</b>{interval}{guard}</span></div>'
    )


def _in_words(row: GainRow) -> str:
    better = said("better") if row.at > 0 else said("worse") if row.at < 0 else said("no change")
    parts = [
        said("{name}: {value}", name=printable(row.name), value=row.change),
        better if math.isfinite(row.at) else "",
    ]
    if row.interval:
        parts.append(row.interval)
    if row.guard:
        parts.append(joined([printable(row.guard), row.state.words], ": "))
    return joined([part for part in parts if part], ", ")


def _at(value: float, span: tuple[float, float]) -> str:
    return f"{100 * min(max((value - span[0]) / (span[1] - span[0]), 0.0), 1.0):.2f}%"
