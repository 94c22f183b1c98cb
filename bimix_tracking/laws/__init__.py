"""The laws of a target's loss in the mixture and the data volume: one a file, behind one protocol, and found by
name. A law that the browser can evaluate has its page script beside it. A package adds a law by an entry point of
the group `bimix_tracking.laws`.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.laws.checking import check_law as check_law
    from bimix_tracking.laws.protocol import Blocks as Blocks
    from bimix_tracking.laws.protocol import Box as Box
    from bimix_tracking.laws.protocol import ByShare as ByShare
    from bimix_tracking.laws.protocol import Inputs as Inputs
    from bimix_tracking.laws.protocol import Law as Law
    from bimix_tracking.laws.protocol import Prior as Prior
    from bimix_tracking.laws.protocol import Traits as Traits
    from bimix_tracking.laws.protocol import script_beside as script_beside
    from bimix_tracking.laws.registry import BUILT_IN as BUILT_IN
    from bimix_tracking.laws.registry import ENSEMBLE as ENSEMBLE
    from bimix_tracking.laws.registry import law as law
    from bimix_tracking.laws.registry import names as names

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "checking": ["check_law"],
        "protocol": ["Blocks", "Box", "ByShare", "Inputs", "Law", "Prior", "Traits", "script_beside"],
        "registry": ["BUILT_IN", "ENSEMBLE", "law", "names"],
    },
)
