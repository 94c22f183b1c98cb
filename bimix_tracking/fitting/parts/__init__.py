"""What a fit is made of beside its laws: what is asked of it as arrays, how laws are stacked, how it is read."""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.fitting.parts.asked import asked_rows as asked_rows
    from bimix_tracking.fitting.parts.drawn import drawn_losses as drawn_losses
    from bimix_tracking.fitting.parts.drawn import quantiles as quantiles
    from bimix_tracking.fitting.parts.read_fields import fields_of as fields_of
    from bimix_tracking.fitting.parts.volumes import comparable as comparable
    from bimix_tracking.fitting.parts.volumes import only_volume as only_volume

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "asked": ["asked_rows"],
        "drawn": ["drawn_losses", "quantiles"],
        "read_fields": ["fields_of"],
        "volumes": ["comparable", "only_volume"],
    },
)
