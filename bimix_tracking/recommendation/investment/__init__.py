"""What a sweep took, and what the mixture it recommends saves: compute, GPU-hours, money."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recommendation.investment.flops import Compute as Compute
    from bimix_tracking.recommendation.investment.flops import compute_of as compute_of
    from bimix_tracking.recommendation.investment.returns import Worth as Worth

__getattr__, __dir__, __all__ = attach(__name__, {"flops": ["Compute", "compute_of"], "returns": ["Worth"]})
