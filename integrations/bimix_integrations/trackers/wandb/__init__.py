"""Weights & Biases: runs written by W&B's SDK, read back whole, online and offline, and the analysis beside them.

URIs: `wandb:ENTITY/PROJECT`, `wandb:PROJECT`, `wandb:` (where the environment says), to read also with `/sweeps/ID` or
`/groups/NAME`; `wandb-offline:DIR` for files of runs that no server has. Server, key and mode are the environment's.
"""

from bimix_tracking.errors import MissingDependencyError

try:
    import wandb as _wandb  # noqa: F401  # is it there?
except ModuleNotFoundError as error:
    if error.name != "wandb":  # wandb is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("wandb", extra="wandb") from error

from bimix_integrations.trackers.wandb.offline.source import WandbOfflineSource
from bimix_integrations.trackers.wandb.source import WandbSource
from bimix_integrations.trackers.wandb.tracker import WandbTracker

__all__ = ["WandbOfflineSource", "WandbSource", "WandbTracker"]
