"""What a result looks like where somebody types its name: three lines in a shell, a card in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bimix_tracking.display.texts import printable

_STYLE = """
.bx-card { max-width: 56rem; padding: .25rem 0; color: inherit; font-size: .875rem; line-height: 1.4; }
.bx-card p { margin: .25rem 0; } .bx-card .bx-lead { font-size: 1rem; font-weight: 600; }
.bx-card ul { margin: .25rem 0; padding-left: 1.2rem; }
.bx-card dl { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: .5rem 0; }
.bx-card dl div { display: flex; flex-direction: column; max-width: 14rem; }
.bx-card dt { font-size: .8125rem; font-weight: 400; opacity: .85; } .bx-card dd { margin: 0; font-weight: 600; }
.bx-card .bx-scroll { max-width: 100%; overflow-x: auto; }
.bx-card table { width: auto; margin: .25rem 0; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.bx-card th, .bx-card td { padding: .15rem .6rem; border: 0; border-bottom: 1px solid rgb(128 128 128 / .35);
  background: none; color: inherit; text-align: right; white-space: nowrap; }
.bx-card th:first-child, .bx-card td:first-child { text-align: left; }
.bx-card td:first-child bdi { display: inline-block; max-width: 16rem; overflow: hidden; text-overflow: ellipsis;
  vertical-align: bottom; }
"""
_MOST_ROWS, _MOST_NOTES = 30, 5


@dataclass(frozen=True)
class Card:
    """What there is to show, as text that is escaped when it is set.

    Args:
        name: What it is, in a line.
        lead: The one sentence.
        more: A line beside it: the mixture in words, say.
        figures: Numbers: what it is → its value.
        picture: HTML, a figure of this wing, with its style.
        head: Of the table.
        rows: Its rows, of as many texts.
        notes: What to know.
        say: Says a sentence in another language.
    """

    name: str
    lead: str
    more: str = ""
    figures: Sequence[tuple[str, str]] = ()
    picture: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    say: Callable[[str], str] = str

    def text(self) -> str:
        r"""Return three lines.

        >>> Card("Plan of 2 runs", "Two runs of one domain.\nAnd more.", "seed 0").text()
        'Plan of 2 runs\n  Two runs of one domain. And more.\n  seed 0'
        """
        return "\n".join(
            [printable(self.say(self.name)), *(f"  {printable(self.say(t))}" for t in (self.lead, self.more) if t)]
        )

    def html(self) -> str:
        """Return a fragment that brings its style, loads nothing and takes the page's colours.

        >>> "&lt;b&gt;" in Card("A", "B", head=["domain"], rows=[["<b>"]]).html()
        True
        """
        parts = [
            f"<style>{_STYLE}</style>",
            f'<div class="bx-card"><p>{self._set(self.name)}</p><p class="bx-lead">{self._set(self.lead)}</p>',
            "" if self.picture or not self.more else f"<p>{self._set(self.more)}</p>",
            self._figures(),
            self.picture,
            self._table(),
            self._notes(),
            "</div>",
        ]
        return "".join(parts)

    def _set(self, text: str) -> str:
        return escape(printable(self.say(text)))

    def _figures(self) -> str:
        if not self.figures:
            return ""
        each = (f"<div><dt>{self._set(name)}</dt><dd>{self._set(value)}</dd></div>" for name, value in self.figures)
        return f"<dl>{''.join(each)}</dl>"

    def _table(self) -> str:
        if not self.rows:
            return ""
        head = "".join(f'<th scope="col">{self._set(name)}</th>' for name in self.head)
        rows = "".join(self._row(row) for row in self.rows[:_MOST_ROWS])
        rest = len(self.rows) - _MOST_ROWS
        more = f'<tr><td colspan="{len(self.head)}">… {rest}</td></tr>' if rest > 0 else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}{more}</tbody></table>"
        return f'<div class="bx-scroll" tabindex="0" role="group" aria-label="{self._set(self.name)}">{table}</div>'

    def _row(self, row: Sequence[str]) -> str:
        first, *others = row
        name = self._set(first)
        cells = "".join(f"<td>{self._set(text)}</td>" for text in others)
        return f'<tr><td><bdi title="{name}">{name}</bdi></td>{cells}</tr>'

    def _notes(self) -> str:
        shown = "".join(f"<li>{self._set(text)}</li>" for text in self.notes[:_MOST_NOTES])
        return f"<ul>{shown}</ul>" if shown else ""


class Shown:
    """Something that has a card: its `repr`, and what a notebook shows of it."""

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html()
