"""What is minimised over mixtures, and how: within a box, and within guards and a distance too; a batch at once."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recommendation.solvers.guarded import GuardedMinimum as GuardedMinimum
    from bimix_tracking.recommendation.solvers.guarded import minimize_within as minimize_within
    from bimix_tracking.recommendation.solvers.limits import Limits as Limits
    from bimix_tracking.recommendation.solvers.objective import WeightedLoss as WeightedLoss
    from bimix_tracking.recommendation.solvers.sqp import SimplexMinimum as SimplexMinimum
    from bimix_tracking.recommendation.solvers.sqp import minimize_on_simplex as minimize_on_simplex

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "guarded": ["GuardedMinimum", "minimize_within"],
        "limits": ["Limits"],
        "objective": ["WeightedLoss"],
        "sqp": ["SimplexMinimum", "minimize_on_simplex"],
    },
)
