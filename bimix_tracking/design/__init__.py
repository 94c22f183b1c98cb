"""Which runs to make: proxies for a budget, a pilot that identifies the laws, the next runs after one, anchors at the
target size, and the files that training scripts and schedulers read them from.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.design.anchors import AnchorPlan as AnchorPlan
    from bimix_tracking.design.anchors import plan_anchors as plan_anchors
    from bimix_tracking.design.follow_up import NextRuns as NextRuns
    from bimix_tracking.design.follow_up import next_runs as next_runs
    from bimix_tracking.design.pilot import Plan as Plan
    from bimix_tracking.design.pilot import plan_pilot as plan_pilot
    from bimix_tracking.design.proxies import ProxyPlan as ProxyPlan
    from bimix_tracking.design.proxies import plan_proxies as plan_proxies
    from bimix_tracking.design.run_files import PlannedRuns as PlannedRuns

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "anchors": ["AnchorPlan", "plan_anchors"],
        "follow_up": ["NextRuns", "next_runs"],
        "pilot": ["Plan", "plan_pilot"],
        "proxies": ["ProxyPlan", "plan_proxies"],
        "run_files": ["PlannedRuns"],
    },
)
