"""The report as Markdown: the same content as text and tables, for a tracker's own viewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bimix_tracking.display.texts import printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.messages import joined, said
from bimix_tracking.report import content, laws
from bimix_tracking.report.language import Language
from bimix_tracking.report.scale.texts import scale_markdown

_MARKS = "\\`*_[]|#~$"


def escape(text: str) -> str:
    r"""Return text that stays text inside Markdown, tables included: names are other people's input.

    Args:
        text: Anyone's text; line breaks become spaces.

    >>> print(escape("a|b <b>*c*</b>"))
    a\|b &lt;b&gt;\*c\*&lt;/b&gt;
    """
    escaped = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in _MARKS:
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped


def render(result: content.Result) -> str:
    """Return the Markdown page of an analysis, in the order of the HTML report and in its language.

    Args:
        result: An `Analysis`.
    """
    return _Writer(Language(result.lang)).page(content.page(result), result.fit)


class _Writer:
    """Sets a page in one language."""

    def __init__(self, say: Language) -> None:
        self._say = say

    def page(self, page: content.Page, fit: LawFit) -> str:
        parts = [
            f"# {self._text(page.title)}",
            f"**{self._text(page.answer)}**",
            self._text(page.forecast),
            self._bullets("", "", [said("{name}: {value} ({more})", **vars(one)) for one in page.key_figures]),
            self._scale(page),
            self._bullets("## ", said("Warnings"), page.warnings),
            self._heading("## ", said("Mixture")),
            self._mixtures(page),
            self._text(joined([page.gain, page.free, page.noise])),
            self._gains(page),
            self._guards(page),
            self._titled("### ", said("How far to move"), page.path),
            self._titled("### ", said("Trade-off between groups"), page.trade),
            self._pairs("### ", said("How certain it is"), page.certainty),
            self._pairs("### ", said("Savings at equal loss"), page.saved),
            self._bullets("### ", said("Constraints"), page.constraints),
            self._by_law(page),
            self._heading("## ", said("Held-out check")),
            self._scores(page),
            self._text(joined([page.choice, page.checks])),
            self._heading("## ", said("Fit")),
            self._fits(page),
            self._text(joined([page.weights, laws.fit_note(fit)])),
            self._bullets("", "", page.remedies),
            self._bimix(page),
            self._spreads(page),
            self._measured(page),
            self._bullets("## ", said("Excluded or adjusted"), page.notes or [said("nothing")]),
            self._heading("## ", said("Provenance")),
            f"`{fit.formula}`",
            self._table([said("fact"), said("value")], page.facts, numbers=False),
            self._heading("### ", said("Runs and their mixtures, %")),
            self._runs(page),
            self._pairs("## ", said("Glossary"), tuple(content.GLOSSARY.items())),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _text(self, text: str) -> str:
        return escape(self._say(text))

    def _heading(self, mark: str, text: str) -> str:
        return f"{mark}{self._text(text)}"

    def _table(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
        return table(
            [self._say(cell) for cell in head], [[self._say(cell) for cell in row] for row in rows], numbers=numbers
        )

    def _bullets(self, mark: str, heading: str, items: Iterable[str]) -> str:
        lines = [f"- {self._text(item)}" for item in items]
        return "\n".join([self._heading(mark, heading), "", *lines] if heading else lines) if lines else ""

    def _pairs(self, mark: str, heading: str, pairs: Sequence[tuple[str, str]]) -> str:
        return self._bullets(mark, heading, [joined(pair, ": ") for pair in pairs])

    def _mixtures(self, page: content.Page) -> str:
        head = [said("domain"), said("recommended"), said("interval"), said("near-optimal range"), said("reference")]
        head.append(said("range tried"))
        rows = [
            [
                s.domain,
                s.recommended,
                s.interval,
                s.extent,
                s.reference,
                said("{tried} (recommended is outside)", tried=s.tried) if s.outside else s.tried,
            ]
            for s in page.shares
        ]
        return self._table(head, rows)

    def _titled(self, mark: str, heading: str, text: str) -> str:
        return f"{self._heading(mark, heading)}\n\n{self._text(text)}" if text else ""

    def _gains(self, page: content.Page) -> str:
        head = [said("target"), said("reference"), said("recommended"), said("change"), said("90 % interval")]
        rows = [[one.target, one.reference, one.recommended, one.change, one.interval] for one in page.gains]
        total = page.total
        rows.append([total.name, total.reference, total.recommended, total.change, total.interval])
        if page.weighted:
            head.insert(1, said("weight"))
            for row, weight in zip(rows, [*(one.weight for one in page.gains), ""], strict=True):
                row.insert(1, weight)
        if page.grouped:
            head.insert(1, said("group"))
            for row, group in zip(rows, [*(one.group for one in page.gains), ""], strict=True):
                row.insert(1, group)
        if any(one.row.note for one in page.gains):
            head.append(said("note"))
            for row, note in zip(rows, [*(one.row.note for one in page.gains), ""], strict=True):
                row.append(note)
        return self._heading("## ", said("Gains and losses")) + "\n\n" + self._table(head, rows)

    def _runs(self, page: content.Page) -> str:
        size = [said("model size")] if page.several_sizes else []
        return self._table(
            [said("run"), "id", *size, said("last tokens"), *page.domains],
            [(run.name, run.id, *([run.size] if size else []), run.tokens, *run.shares) for run in page.runs],
        )

    def _scale(self, page: content.Page) -> str:
        return "" if page.scale is None else scale_markdown(page.scale, self._text, self._table)

    def _guards(self, page: content.Page) -> str:
        if not page.guards:
            return ""
        head = [said("guard"), said("reference"), said("limit"), said("predicted"), said("probability that it holds")]
        head += [said("costs in the objective"), said("state")]
        rows = [(g.guard, g.reference, g.limit, g.predicted, g.probability, g.cost, g.state) for g in page.guards]
        title = self._heading("### ", said("Guards"))
        return "\n\n".join([title, self._table(head, rows), self._text(page.guarded)])

    def _by_law(self, page: content.Page) -> str:
        if not page.by_law:
            return ""
        head = [said("law"), *page.domains]
        heading = self._heading("### ", said("By each law alone"))
        return heading + "\n\n" + self._table(head, [(c.law, *c.shares) for c in page.by_law])

    def _fits(self, page: content.Page) -> str:
        errors = [said("fit error, %"), said("held-out error, %"), said("no law, %")]
        rest = ["R²", said("starts agreeing"), said("points / runs"), said("outcome")]
        return self._table(
            [said("target"), *page.parameters, *errors, *rest],
            [
                (f.domain, *f.parameters, f.error, f.held_out, f.baseline, f.r2, f.starts, f.points, f.outcome)
                for f in page.fitted
            ],
        )

    def _scores(self, page: content.Page) -> str:
        if not page.scores:
            return ""
        head = [said("law"), said("held-out error, %"), said("above the best, %"), said("rank correlation")]
        return self._table([*head, said("note")], [(s.law, s.error, s.above_best, s.rank, s.note) for s in page.scores])

    def _spreads(self, page: content.Page) -> str:
        if not page.spreads:
            return ""
        head = [said("domain"), said("lowest loss"), said("at proportion")]
        head += [said("highest loss"), said("at proportion")]
        rows = [(s.domain, s.lowest, s.lowest_at, s.highest, s.highest_at) for s in page.spreads]
        title = self._heading("## ", said("Losses at the last checkpoint of each run"))
        return title + "\n\n" + self._table(head, rows)

    def _measured(self, page: content.Page) -> str:
        if not page.measured:
            return ""
        head = [said("domain"), said("quantity"), said("lowest"), said("at proportion")]
        head += [said("highest"), said("at proportion")]
        rows = [(m.domain, m.quantity, m.lowest, m.lowest_at, m.highest, m.highest_at) for m in page.measured]
        title = self._heading("### ", said("Also measured at the last checkpoint of each run"))
        return title + "\n\n" + self._table(head, rows)

    def _bimix(self, page: content.Page) -> str:
        if not page.bimix:
            return ""
        head = [said("domain"), "alpha", "beta", "B", "C", said("outcome")]
        return self._heading("### ", said("BiMix, for comparison")) + "\n\n" + self._table(head, page.bimix)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table; `numbers`: all columns but the first are set to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    lines = [[escape(cell) for cell in head], rule, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
