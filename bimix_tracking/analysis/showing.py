"""An analysis in a notebook, as a card, and in a tracker, as a note: the report's first screen."""

from __future__ import annotations

from collections.abc import Sequence

from bimix_tracking.display.card import Card
from bimix_tracking.display.proportions import STYLE, ProportionRow, mixture_chart
from bimix_tracking.messages import joined, said
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.content import Page, recommended
from bimix_tracking.report.language import Language
from bimix_tracking.report.markdown import escape, table


def card(page: Page, rec: Recommendation, rows: Sequence[ProportionRow], say: Language) -> Card:
    """Return the verdict, the picture, the figures and what to know, as the report has them.

    Args:
        page: What the report says.
        rec: The recommendation.
        rows: Of the picture.
        say: The report's language.
    """
    head = [said("target"), said("reference"), said("recommended"), said("change"), said("90 % interval")]
    return Card(
        page.title,
        page.verdict,
        recommended(rec),
        figures=[(figure.name, figure.value) for figure in page.key_figures],
        picture=f"<style>{STYLE}</style>{mixture_chart(rows, say)}",
        head=head,
        rows=[[one.target, one.reference, one.recommended, one.change, one.interval] for one in page.gains],
        notes=[*_sizes(page), *([page.guarded] if page.guarded else []), *page.warnings],
        say=say,
    )


def _sizes(page: Page) -> list[str]:
    """Return whose losses the figures are, and whether ranks carry over between model sizes."""
    return [] if page.scale is None else [text for text in (page.scale.whose, page.scale.ranks) if text]


def note(page: Page, say: Language) -> str:
    """Return the run description, Markdown: the answer first, then what to doubt, the largest gains and losses, guards.

    Args:
        page: What the report says.
        say: The report's language.
    """

    def shown(text: str) -> str:
        return escape(say(text))

    head = [said("domain"), said("recommended"), said("reference")]
    lines = [
        f"**{shown(page.answer)}**",
        shown(page.forecast),
        "\n".join(f"- {shown(text)}" for text in (*_sizes(page), *page.warnings)),
        table(
            [say(name) for name in head],
            [[row.domain, *map(say, (row.recommended, row.reference))] for row in page.shares],
        ),
        shown(joined([text for text in (*page.ends, page.guarded, page.path) if text])),
        shown(joined([page.gain, page.sure])),
        shown(page.worth),
        shown(page.choice),
        shown(page.held_out),
        shown(
            said(
                "The report is the artifact {report}; a trainer reads {mixture}.",
                report="bimix/report.html",
                mixture="bimix/mixture.yaml",
            )
        ),
    ]
    return "\n\n".join(line for line in lines if line)
