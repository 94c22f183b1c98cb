"""The scale bridge: what losses at one model size have to do with those at another."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.fitting.scale.bridge import Bridge as Bridge
    from bimix_tracking.fitting.scale.size_level import Anchor as Anchor
    from bimix_tracking.fitting.scale.size_level import SizeLevel as SizeLevel

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "bridge": ["Bridge"],
        "size_level": ["Anchor", "SizeLevel"],
    },
)
