"""Panels of observed and predicted values, and the marks of runs in them."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.report.panels.held_out import held_out_panels as held_out_panels
    from bimix_tracking.report.panels.marks import Marks as Marks

__getattr__, __dir__, __all__ = attach(__name__, {"held_out": ["held_out_panels"], "marks": ["Marks"]})
