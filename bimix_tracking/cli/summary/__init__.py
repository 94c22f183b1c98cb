"""What a command says of an analysis in the terminal: a module a part."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.cli.summary.analysis import print_analysis as print_analysis
    from bimix_tracking.cli.summary.model_sizes import facts as facts

__getattr__, __dir__, __all__ = attach(__name__, {"analysis": ["print_analysis"], "model_sizes": ["facts"]})
