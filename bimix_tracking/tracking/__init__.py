"""The two ports, a `Tracker` that takes a run's numbers and a `RunSource` that gives them back, both opened by URI;
plain files (`jsonl:`, `csv:`), which need no service; runs that other tools logged; and the way back, by which an
analysis is written beside its runs.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.tracking.local import CsvSource as CsvSource
    from bimix_tracking.tracking.local import JsonlSource as JsonlSource
    from bimix_tracking.tracking.local import JsonlTracker as JsonlTracker
    from bimix_tracking.tracking.other_tools.runs import ForeignRuns as ForeignRuns
    from bimix_tracking.tracking.ports import Row as Row
    from bimix_tracking.tracking.ports import RunSource as RunSource
    from bimix_tracking.tracking.ports import RunState as RunState
    from bimix_tracking.tracking.ports import Tracker as Tracker
    from bimix_tracking.tracking.ports import Wanted as Wanted
    from bimix_tracking.tracking.ports import WriteBack as WriteBack
    from bimix_tracking.tracking.ports import open_source as open_source
    from bimix_tracking.tracking.ports import open_tracker as open_tracker
    from bimix_tracking.tracking.ports import recommended_mixture as recommended_mixture
    from bimix_tracking.tracking.reading import read_each as read_each
    from bimix_tracking.tracking.waiting import wait_for as wait_for

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "local": ["CsvSource", "JsonlSource", "JsonlTracker"],
        "other_tools.runs": ["ForeignRuns"],
        "ports": [
            "Row",
            "RunSource",
            "RunState",
            "Tracker",
            "Wanted",
            "WriteBack",
            "open_source",
            "open_tracker",
            "recommended_mixture",
        ],
        "reading": ["read_each"],
        "waiting": ["wait_for"],
    },
)
