"""Fragments of HTML that the report and notebooks share: each brings its own style and loads nothing."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.display.proportions import STYLE as STYLE
    from bimix_tracking.display.proportions import ProportionRow as ProportionRow
    from bimix_tracking.display.proportions import mixture_chart as mixture_chart

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "proportions": ["STYLE", "ProportionRow", "mixture_chart"],
    },
)
