"""MLflow: runs written by id, read back whole, and the analysis beside them.

URIs: `mlflow:EXPERIMENT` (tracking URI as MLflow finds it, by default SQLite in the working directory),
`mlflow+sqlite:///FILE#EXPERIMENT`, `mlflow+postgresql://HOST/DATABASE#EXPERIMENT`, `mlflow+http://HOST:PORT#EXPERIMENT`,
`mlflow+file:mlruns#EXPERIMENT` (read only). Without an experiment, MLflow's own choice; `##ID` is one by its id.
Reading creates, upgrades and writes nothing: see `stores.reading`.
"""

from bimix_tracking.errors import MissingDependencyError

try:
    import mlflow as _mlflow  # noqa: F401  # is it there?
except ModuleNotFoundError as error:
    if error.name != "mlflow":  # mlflow is there, but broken: say so, unchanged
        raise
    raise MissingDependencyError("mlflow", extra="mlflow") from error

from bimix_integrations.trackers.mlflow.source import MlflowSource
from bimix_integrations.trackers.mlflow.tracker import MlflowTracker

__all__ = ["MlflowSource", "MlflowTracker"]
