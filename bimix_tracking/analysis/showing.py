"""An analysis in a notebook: the report's first screen as a card."""

from __future__ import annotations

from collections.abc import Sequence

from bimix_tracking.display.card import Card
from bimix_tracking.display.proportions import STYLE, ProportionRow, mixture_chart
from bimix_tracking.display.texts import listing
from bimix_tracking.messages import said
from bimix_tracking.quantities import tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.report.content import Page
from bimix_tracking.report.language import Language


def card(page: Page, rec: Recommendation, rows: Sequence[ProportionRow], say: Language) -> Card:
    """Return the verdict, the picture, the figures and what to know, as the report has them.

    Args:
        page: What the report says.
        rec: The recommendation.
        rows: Of the picture.
        say: The report's language.
    """
    head = [said("domain"), said("recommended"), said("reference"), said("predicted loss"), said("on the reference")]
    return Card(
        page.title,
        page.verdict,
        said("For {tokens} tokens: {mixture}.", tokens=tokens(rec.tokens), mixture=listing(rec.mixture)),
        figures=[(figure.name, figure.value) for figure in page.key_figures],
        picture=f"<style>{STYLE}</style>{mixture_chart(rows, say)}",
        head=head,
        rows=[[row.domain, row.recommended, row.reference, row.predicted, row.on_reference] for row in page.shares],
        notes=page.warnings,
        say=say,
    )
