"""Runs that were logged without this package: how other tools spell a domain's loss, how many tokens a run had
seen, and the file that says which mixture each run had.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.tracking.other_tools.patterns import recognise as recognise
    from bimix_tracking.tracking.other_tools.runs import ForeignRuns as ForeignRuns

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "patterns": ["recognise"],
        "runs": ["ForeignRuns"],
    },
)
