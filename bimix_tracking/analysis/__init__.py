"""The whole way, from a source to a recommendation and back into the tracker: one analysis and its files, runs that
follow it, a watch over sweeps that end, and groups of runs that must not be pooled.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.analysis.groups import analyze_groups as analyze_groups
    from bimix_tracking.analysis.pipeline import analyze as analyze
    from bimix_tracking.analysis.result import Analysis as Analysis
    from bimix_tracking.analysis.verification import Verification as Verification
    from bimix_tracking.analysis.verifying import verify as verify
    from bimix_tracking.analysis.watching import Watch as Watch

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "groups": ["analyze_groups"],
        "pipeline": ["analyze"],
        "result": ["Analysis"],
        "verification": ["Verification"],
        "verifying": ["verify"],
        "watching": ["Watch"],
    },
)
