"""The report: one HTML file and one Markdown page from an `Analysis`, in sentences that remember what they were
made of, so that they can be said in another language.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.report.content import Page as Page
    from bimix_tracking.report.content import page as page
    from bimix_tracking.report.html import render as render
    from bimix_tracking.report.language import Language as Language

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "content": ["Page", "page"],
        "html": ["render"],
        "language": ["Language"],
    },
)
