"""What a report says of model sizes: the losses of the large model, whether ranks hold, levels, anchor runs."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.report.scale.section import Scale as Scale
    from bimix_tracking.report.scale.section import scale_of as scale_of

__getattr__, __dir__, __all__ = attach(__name__, {"section": ["Scale", "scale_of"]})
