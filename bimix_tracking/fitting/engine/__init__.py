"""A sweep as a grid, a law's problems on it, and how they are minimised."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.fitting.engine.grid import Grid as Grid
    from bimix_tracking.fitting.engine.grid import grid_of as grid_of
    from bimix_tracking.fitting.engine.problem import FitProblem as FitProblem

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "grid": ["Grid", "grid_of"],
        "problem": ["FitProblem"],
    },
)
