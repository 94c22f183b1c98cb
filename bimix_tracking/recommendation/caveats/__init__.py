"""What must be known before anybody acts on a recommendation, by what it is about."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recommendation.caveats.caveat import Caveat as Caveat
    from bimix_tracking.recommendation.caveats.scale import scale_caveats as scale_caveats

__getattr__, __dir__, __all__ = attach(__name__, {"caveat": ["Caveat"], "scale": ["scale_caveats"]})
