"""Data of a sweep: how a metric is named, a run's manifest, its curve on one held-out set, and
`Observations`, the table of losses that everything above is computed from, with what was excluded on the way.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.data.histories import rows_of as rows_of
    from bimix_tracking.data.manifest import RunManifest as RunManifest
    from bimix_tracking.data.manifest import RunRecord as RunRecord
    from bimix_tracking.data.metric_names import key as key
    from bimix_tracking.data.metric_names import parse as parse
    from bimix_tracking.data.metric_names import slugs as slugs
    from bimix_tracking.data.observations import Observations as Observations
    from bimix_tracking.data.pooling import Note as Note
    from bimix_tracking.data.weights import target_weights as target_weights

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "histories": ["rows_of"],
        "manifest": ["RunManifest", "RunRecord"],
        "metric_names": ["key", "parse", "slugs"],
        "observations": ["Observations"],
        "pooling": ["Note"],
        "weights": ["target_weights"],
    },
)
