"""Runs of several model sizes brought to one level and one axis, so that one law has them all."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.fitting.alignment.aligning import Alignment as Alignment
    from bimix_tracking.fitting.alignment.aligning import align as align

__getattr__, __dir__, __all__ = attach(__name__, {"aligning": ["Alignment", "align"]})
