"""One experiment of one MLflow store: found by URI, reached or said to be dead in seconds."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bimix_tracking import keys
from bimix_tracking.errors import SourceError
from bimix_tracking.manifest import RunManifest
from bimix_tracking.tracking import without_credentials

TAG = "bimix."
MANIFEST = "bimix/manifest.json"
MAX_TAG = 8000
_PROBE_SECONDS = 5


class Store:
    """One experiment of one MLflow store.

    Args:
        uri: See the package.
    """

    def __init__(self, uri: str) -> None:
        scheme, _, rest = uri.partition(":")
        flavour = scheme.partition("+")[2]
        location, hash_, experiment = rest.partition("#")
        self.explicit = bool(flavour)
        self.experiment = experiment if flavour or hash_ else location
        self._found = f"{flavour}:{location}" if flavour else None
        self._client: MlflowClient | None = None

    @property
    def tracking_uri(self) -> str:
        """Where the store is; without one in our URI, where MLflow's is when it is first used, and from then on."""
        return self._found or str(mlflow.get_tracking_uri())

    def settle(self) -> None:
        """Stay with the store that MLflow has now."""
        self._found = self.tracking_uri

    @property
    def client(self) -> MlflowClient:
        """The client; made when first used, if the store is there."""
        if self._client is None:
            self.settle()
            self.check()
            if self.explicit and self.tracking_uri.startswith("sqlite:"):
                self.database.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.tracking_uri)
        return self._client

    def check(self) -> None:
        """Say in seconds that a server is dead: MLflow's own retries take minutes to. A slow one is not dead.

        Raises:
            SourceError: Nobody listens.
        """
        if not self.tracking_uri.startswith(("http://", "https://")):
            return
        parts = urlsplit(self.tracking_uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS).close()
        except OSError as error:
            raise SourceError(
                f"no MLflow server answers at {self.shown} ({type(error).__name__}). "
                "Is it running, and is the address right?"
            ) from None

    @property
    def database(self) -> Path:
        """The file of an SQLite store."""
        return Path(self.tracking_uri.removeprefix("sqlite:///"))

    @property
    def shown(self) -> str:
        """The tracking URI without user and password."""
        return without_credentials(self.tracking_uri)

    @property
    def uri(self) -> str:
        """Our URI of it, complete and without credentials."""
        shown = self.shown
        if shown.startswith("sqlite:"):
            shown = f"sqlite:///{self.database.resolve()}"
        return f"mlflow+{shown}#{self.experiment}"

    def redacted(self, error: MlflowException) -> str:
        """Return what MLflow says, without the password that its texts may repeat."""
        return str(error.message).replace(self.tracking_uri, self.shown)

    def experiment_id(self, *, create: bool) -> str:
        """Return the experiment's id, made if it may be."""
        name = self.experiment or "Default"
        found = self.client.get_experiment_by_name(name)
        if found is None and create:
            # An embedded store would put artifacts into whatever folder the process runs in.
            beside = self.explicit and self.tracking_uri.startswith("sqlite:")
            where = (self.database.resolve().parent / "mlartifacts").as_uri() if beside else None
            try:
                return str(self.client.create_experiment(name, artifact_location=where))
            except MlflowException:  # another run of the sweep made it between the two calls
                found = self.client.get_experiment_by_name(name)
        if found is None:
            known = [experiment.name for experiment in self.client.search_experiments(max_results=20)]
            raise SourceError(
                f"there is no experiment {name!r} at {self.shown}; there are {', '.join(map(repr, known)) or 'none'}"
            )
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise SourceError(f"experiment {name!r} at {self.shown} is deleted: restore it, or use another name")
        return str(found.experiment_id)


def manifest_tags(manifest: RunManifest) -> dict[str, str]:
    """Return a manifest as MLflow tags; `domains` becomes the map slug → name, readable beside the metric's names."""
    fields = manifest.to_dict() | {"domains": keys.slugs(manifest.domains)}
    return {
        f"{TAG}{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }
