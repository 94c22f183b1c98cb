"""Fragments of HTML that the report and notebooks share: each brings its own style and loads nothing."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.display.card import Card as Card
    from bimix_tracking.display.card import Shown as Shown
    from bimix_tracking.display.notebook import show_page as show_page
    from bimix_tracking.display.progress_line import Line as Line
    from bimix_tracking.display.proportions import STYLE as STYLE
    from bimix_tracking.display.proportions import ProportionRow as ProportionRow
    from bimix_tracking.display.proportions import mixture_chart as mixture_chart

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "card": ["Card", "Shown"],
        "notebook": ["show_page"],
        "progress_line": ["Line"],
        "proportions": ["STYLE", "ProportionRow", "mixture_chart"],
    },
)
