"""The report as Markdown: the same content as text and tables, for a tracker's own viewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bimix_tracking.report import content, laws
from bimix_tracking.report.numbers import printable

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
    """Return the Markdown page of an analysis, in the order of the HTML report.

    Args:
        result: An `Analysis`.
    """
    page = content.page(result)
    parts = [
        f"# {escape(page.title)}",
        f"**{escape(page.answer)}** {escape(page.gain)}",
        escape(page.sure),
        escape(page.worth),
        f"> **Caution.** {escape(content.CAUTION)} {escape(page.noise)}",
        _bullets("## Warnings", page.warnings),
        "## Recommended mixture",
        f"Losses are predicted, in nats per token; a change below 0 is better. Reference: {escape(page.reference)}.",
        _mixtures(page),
        escape(page.free),
        _bullets("### Constraints", page.constraints),
        _by_law(page),
        "## How well the law fits",
        escape(page.choice),
        escape(page.held_out),
        _scores(page),
        _fits(page),
        escape(f"{page.weights} {laws.FIT_NOTE}".strip()),
        _bullets("", page.remedies),
        _bimix(page),
        "## Losses at the last checkpoint of each run",
        "Observed, in nats per token, and the domain's proportion in that run.",
        table(
            ["domain", "lowest loss", "at proportion", "highest loss", "at proportion"],
            [(s.domain, s.lowest, s.lowest_at, s.highest, s.highest_at) for s in page.spreads],
        ),
        _bullets("## Set aside or adjusted", page.notes or ["nothing"]),
        "## Where this comes from",
        f"`{result.fit.formula}`",
        table(["fact", "value"], page.facts, numbers=False),
        "Proportions of the runs, in percent:",
        _runs(page),
        _bullets("## Words", [f"{word}: {meaning}" for word, meaning in content.GLOSSARY.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _mixtures(page: content.Page) -> str:
    head = ["domain", "recommended", "interval", "nearly as good", "reference", "tried"]
    head += ["predicted loss", "on the reference", "change"]
    rows = [
        [
            s.domain,
            s.recommended,
            s.interval,
            s.extent,
            s.reference,
            s.tried + (" (recommended is outside)" if s.outside else ""),
            s.predicted,
            s.on_reference,
            s.change,
        ]
        for s in page.shares
    ]
    total = ["weighted sum" if page.weighted else "sum", "", "", "", "", "", *page.total]
    if page.weighted:
        head.insert(1, "weight")
        for row, share in zip(rows, page.shares, strict=True):
            row.insert(1, share.weight)
        total.insert(1, "")
    return table(head, [*rows, total])


def _by_law(page: content.Page) -> str:
    if not page.by_law:
        return ""
    head = ["law", *(share.domain for share in page.shares)]
    return "### What each law alone would recommend\n\n" + table(head, [(c.law, *c.shares) for c in page.by_law])


def _fits(page: content.Page) -> str:
    errors = ["fit error, %", "held-out error, %", "mean of the others, %"]
    return table(
        ["domain", *page.parameters, *errors, "R²", "starts agreeing", "points / runs", "outcome"],
        [
            (f.domain, *f.parameters, f.error, f.held_out, f.baseline, f.r2, f.starts, f.points, f.outcome)
            for f in page.fitted
        ],
    )


def _scores(page: content.Page) -> str:
    if not page.scores:
        return ""
    head = ["law", "held-out error, %", "above the best, %", "rank correlation", "note"]
    return table(head, [(s.law, s.error, s.above_best, s.rank, s.note) for s in page.scores])


def _bimix(page: content.Page) -> str:
    if not page.bimix:
        return ""
    return "### BiMix, for comparison\n\n" + table(["domain", "alpha", "beta", "B", "C", "outcome"], page.bimix)


def _runs(page: content.Page) -> str:
    return table(
        ["run", "id", "last tokens", *page.domains], [(run.name, run.id, run.tokens, *run.shares) for run in page.runs]
    )


def _bullets(heading: str, items: Iterable[str]) -> str:
    lines = [f"- {escape(item)}" for item in items]
    return "\n".join([heading, "", *lines] if heading else lines) if lines else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table; `numbers`: all columns but the first are set to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    lines = [[escape(cell) for cell in head], rule, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
