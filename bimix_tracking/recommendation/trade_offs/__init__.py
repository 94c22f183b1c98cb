"""What one group of targets gains where another loses."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recommendation.trade_offs.pareto import Pareto as Pareto
    from bimix_tracking.recommendation.trade_offs.pareto import ParetoPoint as ParetoPoint
    from bimix_tracking.recommendation.trade_offs.pareto import two_groups as two_groups

__getattr__, __dir__, __all__ = attach(__name__, {"pareto": ["Pareto", "ParetoPoint", "two_groups"]})
