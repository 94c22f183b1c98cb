"""Which proxy runs to make: a pilot that identifies the laws, the next runs after one, and the files that
training scripts and schedulers read them from.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.design.follow_up import NextRuns as NextRuns
    from bimix_tracking.design.follow_up import next_runs as next_runs
    from bimix_tracking.design.pilot import Plan as Plan
    from bimix_tracking.design.pilot import plan_pilot as plan_pilot
    from bimix_tracking.design.run_files import PlannedRuns as PlannedRuns

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "follow_up": ["NextRuns", "next_runs"],
        "pilot": ["Plan", "plan_pilot"],
        "run_files": ["PlannedRuns"],
    },
)
