"""From a training process to its tracker: sums by domain become rows of metrics, rows are on the disk before they
go anywhere, and a thread of its own sends them. Training never waits for a tracker, and never dies of one.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recording.evaluation_set import EvaluationSet as EvaluationSet
    from bimix_tracking.recording.recorder import DomainLossRecorder as DomainLossRecorder
    from bimix_tracking.recording.replaying import Replayed as Replayed
    from bimix_tracking.recording.replaying import replay as replay
    from bimix_tracking.recording.sums import DomainSums as DomainSums

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "evaluation_set": ["EvaluationSet"],
        "recorder": ["DomainLossRecorder"],
        "replaying": ["Replayed", "replay"],
        "sums": ["DomainSums"],
    },
)
