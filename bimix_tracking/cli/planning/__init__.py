"""What `bimix plan` proposes: a pilot, runs after a sweep, anchors at the target size, proxies for a budget."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.cli.planning.anchor_runs import anchors as anchors
    from bimix_tracking.cli.planning.budget import proxies as proxies
    from bimix_tracking.cli.planning.sweep import after as after
    from bimix_tracking.cli.planning.sweep import pilot as pilot

__getattr__, __dir__, __all__ = attach(
    __name__,
    {"anchor_runs": ["anchors"], "budget": ["proxies"], "sweep": ["after", "pilot"]},
)
