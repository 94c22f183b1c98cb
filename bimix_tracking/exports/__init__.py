"""A mixture in the form that each trainer reads, with the domain order it has written in it. A package adds a
format by an entry point of the group `bimix_tracking.exports`.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.exports.formats import FORMATS as FORMATS
    from bimix_tracking.exports.formats import Format as Format
    from bimix_tracking.exports.formats import export as export
    from bimix_tracking.exports.formats import write_exports as write_exports
    from bimix_tracking.exports.request import Request as Request

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "formats": ["FORMATS", "Format", "export", "write_exports"],
        "request": ["Request"],
    },
)
