"""Which law to believe: its held-out error, the choice between laws, what more tokens than observed do to it,
whether ranks hold between model sizes, and what is wrong with a sweep or a fit.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.selection.cross_validation import Validation as Validation
    from bimix_tracking.selection.cross_validation import cross_validate as cross_validate
    from bimix_tracking.selection.diagnostics import Diagnostic as Diagnostic
    from bimix_tracking.selection.diagnostics import diagnose as diagnose
    from bimix_tracking.selection.extrapolation import Extrapolation as Extrapolation
    from bimix_tracking.selection.extrapolation import extrapolate as extrapolate
    from bimix_tracking.selection.fitness import Fitness as Fitness
    from bimix_tracking.selection.fitness import FitnessTable as FitnessTable
    from bimix_tracking.selection.law_choice import Selection as Selection
    from bimix_tracking.selection.law_choice import select_law as select_law
    from bimix_tracking.selection.rank_transfer import RankTransfer as RankTransfer
    from bimix_tracking.selection.size_ranks import Rank as Rank
    from bimix_tracking.selection.size_ranks import SizePair as SizePair
    from bimix_tracking.selection.size_ranks import Transfer as Transfer

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "cross_validation": ["Validation", "cross_validate"],
        "diagnostics": ["Diagnostic", "diagnose"],
        "extrapolation": ["Extrapolation", "extrapolate"],
        "fitness": ["Fitness", "FitnessTable"],
        "law_choice": ["Selection", "select_law"],
        "rank_transfer": ["RankTransfer"],
        "size_ranks": ["Rank", "SizePair", "Transfer"],
    },
)
