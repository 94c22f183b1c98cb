"""A mixture in the form that each trainer reads, with the domain order it has written in it. A package adds a
format by an entry point of the group `bimix_tracking.exports`.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.exports.formats import all_formats as all_formats
    from bimix_tracking.exports.formats import export as export
    from bimix_tracking.exports.formats import write_exports as write_exports
    from bimix_tracking.exports.request import Format as Format
    from bimix_tracking.exports.request import Request as Request
    from bimix_tracking.exports.trainers import FORMATS as FORMATS

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "formats": ["all_formats", "export", "write_exports"],
        "request": ["Format", "Request"],
        "trainers": ["FORMATS"],
    },
)
