"""A mixture as a picture of HTML elements: a row a domain, right from 320 pixels to a page's width, and on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bimix_tracking.display.texts import printable
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import about

MOST_ROWS = 12
"""Of more domains the others are behind a summary: a picture of forty rows is read by nobody."""
_STEPS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
_MOST_TICKS = 5
_ROOM = 1.02
"""The axis ends so far beyond the last mark."""

STYLE = """
.bx-mix { container-type: inline-size; }
.bx-mix { --bx-mark: #d2600f; --bx-near: rgb(210 96 15 / .26); margin: .5rem 0; padding: 0; color: inherit;
  font-size: .875rem; line-height: 1.3; text-align: left; font-variant-numeric: tabular-nums; }
.bx-mix * { box-sizing: border-box; }
.bx-key { display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0 0 .25rem; font-size: .8125rem; }
.bx-key span { display: inline-flex; align-items: center; gap: .35rem; white-space: nowrap; }
.bx-row { display: grid; grid-template-columns: minmax(4.5rem, min(28%, 14rem)) minmax(0, 1fr) 3.1rem 3.1rem;
  column-gap: .5rem; align-items: center; min-height: 1.55rem; break-inside: avoid; }
.bx-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bx-num { text-align: right; white-space: nowrap; } .bx-num b { font-weight: 700; }
.bx-head { display: flex; justify-content: flex-end; }
.bx-track { position: relative; height: 1.55rem; margin: 0 .5rem; }
.bx-track i, .bx-key i { display: block; flex: none; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.bx-track i { position: absolute; top: 50%; transform: translateY(-50%); }
.bx-line { left: 0; right: 0; border-top: 1px solid; opacity: .18; }
.bx-grid { height: 100%; border-left: 1px solid; opacity: .14; }
.bx-tried { min-width: 2px; width: 1.5rem; border-top: 3px solid; opacity: .38; }
.bx-near { min-width: 2px; width: 1.5rem; height: .8rem; border-radius: 3px; background: var(--bx-near); }
.bx-ref { width: .95rem; height: .95rem; border: 2px solid; border-radius: 50%; }
.bx-rec { width: .7rem; height: .7rem; border: .2rem solid; border-radius: 50%; }
.bx-rec { border-color: var(--bx-mark); background: var(--bx-mark); }
.bx-track .bx-ref, .bx-track .bx-rec { transform: translate(-50%, -50%); }
.bx-scale { position: relative; height: 1.2rem; margin: 0 .5rem; font-size: .75rem; }
.bx-scale span { position: absolute; transform: translateX(-50%); white-space: nowrap; opacity: .8; }
.bx-more summary { cursor: pointer; padding: .2rem 0; }
@container (max-width: 34rem) {
  .bx-row { grid-template-columns: minmax(4.5rem, 27%) minmax(0, 1fr) 3.2rem 2.8rem; column-gap: .2rem; }
  .bx-track, .bx-scale { margin: 0 .4rem; }
  .bx-scale span:not(:first-child):not(:last-child) { display: none; }
}
"""
"""For a page's own style, or a `<style>` before the fragment. A page may set `--bx-mark` and `--bx-near`."""


@dataclass(frozen=True)
class ProportionRow:
    """One domain of the picture, proportions from 0 to 1; NaN: not known, and not drawn.

    Args:
        name: Of the domain, anyone's text.
        recommended: In the recommended mixture.
        reference: In the reference.
        low: Lower end of the near-optimal range.
        high: Upper end.
        tried_low: Smallest proportion over the proxy runs.
        tried_high: Largest.
    """

    name: str
    recommended: float
    reference: float
    low: float = math.nan
    high: float = math.nan
    tried_low: float = math.nan
    tried_high: float = math.nan

    @property
    def largest(self) -> float:
        """Where its last mark is."""
        known = (self.recommended, self.reference, self.high, self.tried_high)
        return max((value for value in known if math.isfinite(value)), default=0.0)


def mixture_chart(rows: Sequence[ProportionRow], say: Callable[[str], str] = str, *, most: int = MOST_ROWS) -> str:
    """Return the picture of a mixture beside its reference, largest proportion first; `STYLE` sets it.

    A dot is the recommended proportion and a ring the reference's, with both numbers beside; a band is the
    near-optimal range and a line the range tried. Each row's text alternative has all of them.

    Args:
        rows: A domain each.
        say: Says a sentence in another language: a `Language`.
        most: So many rows; of more domains those that have most of either mixture, the others behind a summary.

    >>> mixture_chart([ProportionRow("web", 0.6, 0.5), ProportionRow("<b>", 0.4, 0.5)]).count("&lt;b&gt;")
    3
    """
    order = sorted(rows, key=lambda row: -max(row.recommended, row.reference))
    first, others = order[:most], order[most:]
    if len(others) == 1:  # a summary takes as much room as the row
        first, others = order, []
    # What is chosen by either mixture is shown in the order of the recommended one.
    first, others = (sorted(part, key=lambda row: -row.recommended) for part in (first, others))
    end = min(_ROOM * max((row.largest for row in rows), default=1.0) or 1.0, 1.0)
    parts = [
        f'<figure class="bx-mix" aria-label="{escape(say(said("Mixture by domain")))}">',
        _key(rows, say),
        _scale(end, say),
        _list(first, end, say),
    ]
    if others:
        rest = said(
            "{count} more domains, together {share}",
            count=len(others),
            share=about(sum(row.recommended for row in others)),
        )
        parts.append(f'<details class="bx-more"><summary>{escape(say(rest))}</summary>')
        parts += [_list(others, end, say), "</details>"]
    return "".join([*parts, "</figure>"])


def _key(rows: Sequence[ProportionRow], say: Callable[[str], str]) -> str:
    marks = [("rec", said("recommended")), ("ref", said("reference"))]
    if any(math.isfinite(row.low) for row in rows):
        marks.append(("near", said("near-optimal range")))
    if any(math.isfinite(row.tried_low) for row in rows):
        marks.append(("tried", said("range tried")))
    shown = (f'<span><i class="bx-{cls}"></i>{escape(say(text))}</span>' for cls, text in marks)
    return f'<figcaption class="bx-key">{"".join(shown)}</figcaption>'


def _scale(end: float, say: Callable[[str], str]) -> str:
    ticks = "".join(f'<span style="left:{_at(tick, end)}">{_tick(tick, say)}</span>' for tick in _ticks(end))
    return (
        f'<div class="bx-row" aria-hidden="true"><span></span><div class="bx-scale">{ticks}</div>'
        '<span class="bx-head"><i class="bx-rec"></i></span><span class="bx-head"><i class="bx-ref"></i></span></div>'
    )


def _list(rows: Sequence[ProportionRow], end: float, say: Callable[[str], str]) -> str:
    # Not a list element: a notebook indents those and gives them bullets.
    return f'<div role="list">{"".join(_row(row, end, say) for row in rows)}</div>'


def _row(row: ProportionRow, end: float, say: Callable[[str], str]) -> str:
    name = escape(printable(row.name))
    marks = [f'<i class="bx-grid" style="left:{_at(tick, end)}"></i>' for tick in _ticks(end)]
    marks.append('<i class="bx-line"></i>')
    for cls, low, high in (("tried", row.tried_low, row.tried_high), ("near", row.low, row.high)):
        if math.isfinite(low) and math.isfinite(high):
            wide = 100 * (high - low) / end
            marks.append(f'<i class="bx-{cls}" style="left:{_at(low, end)};width:{max(wide, 0.0):.2f}%"></i>')
    for cls, share in (("ref", row.reference), ("rec", row.recommended)):
        if math.isfinite(share):
            marks.append(f'<i class="bx-{cls}" style="left:{_at(share, end)}"></i>')
    return (
        f'<div class="bx-row" role="listitem"><span class="bx-name" title="{name}"><bdi>{name}</bdi></span>'
        f'<div class="bx-track" role="img" aria-label="{escape(say(_in_words(row)))}">{"".join(marks)}</div>'
        f'<span class="bx-num"><b>{escape(say(about(row.recommended)))}</b></span>'
        f'<span class="bx-num">{escape(say(about(row.reference)))}</span></div>'
    )


def _in_words(row: ProportionRow) -> str:
    parts = [
        said(
            "{name}: recommended {recommended}, reference {reference}",
            name=printable(row.name),
            recommended=about(row.recommended),
            reference=about(row.reference),
        )
    ]
    if math.isfinite(row.low):
        parts.append(said("near-optimal range {low} to {high}", low=about(row.low), high=about(row.high)))
    if math.isfinite(row.tried_low):
        parts.append(said("range tried {low} to {high}", low=about(row.tried_low), high=about(row.tried_high)))
    return joined(parts, ", ")


def _ticks(end: float) -> list[float]:
    step = next((step for step in _STEPS if end / step <= _MOST_TICKS), _STEPS[-1])
    return [step * number for number in range(math.floor(end / step + 1e-9) + 1)]


def _at(share: float, end: float) -> str:
    return f"{100 * min(max(share / end, 0.0), 1.0):.2f}%"


def _tick(share: float, say: Callable[[str], str]) -> str:
    return escape(say(f"{round(100 * share, 1):g} %")).replace(" ", "&nbsp;")
