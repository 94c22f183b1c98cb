"""One experiment of one MLflow store: found by URI, read without a trace, and written only where MLflow alters nothing.

MLflow's client makes a database that isn't there and upgrades one that is older, by merely being made. So it is made
for a server, and for writing; what is read of a database or of files is read by `database` and `files`.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import mlflow.environment_variables
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient, is_tracking_uri_set
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from bimix_integrations.trackers.mlflow import schema, sqlite
from bimix_integrations.trackers.mlflow.database import Database
from bimix_integrations.trackers.mlflow.files import Files, folder_of
from bimix_integrations.trackers.mlflow.postgres import Postgres
from bimix_integrations.trackers.mlflow.reading import Reader, deleted_experiment, no_experiment
from bimix_integrations.trackers.mlflow.server import Server
from bimix_tracking import keys
from bimix_tracking.credentials import remember, without_credentials
from bimix_tracking.errors import ReadOnlyError, SourceError
from bimix_tracking.manifest import RunManifest

TAG = "bimix."
MANIFEST = "bimix/manifest.json"
MAX_TAG = 8000
_PROBE_SECONDS = 5
_HTTP = ("http", "https")
_READ_BY_NOBODY = ("mysql", "mssql")


class UnreachableError(SourceError):
    """A server that is down: no run of it is broken."""


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
        self._found = sqlite.at_home(f"{flavour}:{location}") if flavour else None
        self._client: MlflowClient | None = None
        self._refused: SourceError | None = None

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.experiment or "Default"

    @property
    def tracking_uri(self) -> str:
        """Where the store is; without one in our URI, where MLflow's is when it is first used, and from then on."""
        return self._found or str(mlflow.get_tracking_uri())

    def settle(self) -> None:
        """Stay with the store that MLflow has now."""
        self._found = self.tracking_uri
        remember(self._found)

    @property
    def kind(self) -> str:
        """What the tracking URI begins with, without a driver: `sqlite`, `postgresql`, `file`, `http` and so on."""
        uri = self.tracking_uri
        if uri in ("databricks", "databricks-uc", "uc"):
            return uri
        scheme, colon, _ = uri.partition(":")
        return scheme.partition("+")[0] if colon and "/" not in scheme else "file"

    @property
    def http(self) -> bool:
        """Whether it is a server of MLflow's own."""
        return self.kind in _HTTP

    def reader(self) -> Reader:
        """Return what reads it; nothing is created, upgraded or written by that.

        Raises:
            SourceError: It is a database that nobody can read without MLflow.
        """
        self.settle()
        if self.kind == "file":
            return Files(folder_of(self.tracking_uri))
        if self.kind in _READ_BY_NOBODY:
            raise SourceError(
                f"{self.shown}: databases are read from SQLite and PostgreSQL. {schema.SERVER}: MLflow itself would "
                "upgrade a database by opening it"
            )
        asked = self._asked()
        if asked is not None:
            return Database(asked, self.shown)
        return Server(lambda: self.client, self.shown, http=self.http)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, to write with, or of a server; made when first used, if the store is there.

        Raises:
            SourceError: No server answers, or it is a database that MLflow would upgrade.
        """
        if self._client is None:
            self.settle()
            self.check()
            self._check_schema()
            if self.explicit and self.kind == "sqlite" and self.database is not None:
                self.database.parent.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(self.tracking_uri)
        return self._client

    def check(self) -> None:
        """Say in seconds that a server is dead: MLflow's own retries take minutes to. A slow one is not dead.

        Raises:
            UnreachableError: Nobody listens.
            SourceError: It is no address.
        """
        if not self.http:
            return
        parts = urlsplit(self.tracking_uri)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise SourceError(f"{self.shown} is no address of a server: {error}") from None
        try:
            socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS).close()
        except OSError as error:
            raise UnreachableError(
                f"no MLflow server answers at {self.shown} ({type(error).__name__}). "
                "Is it running, and is the address right?"
            ) from None

    def _asked(self) -> schema.Asked | None:
        """Return what can be asked, None where it is no database."""
        if self.kind == "postgresql":
            return Postgres(self._url_checked())
        if self.kind != "sqlite":
            return None
        path = sqlite.path_of(self._url_checked())
        if path is None:
            raise SourceError(f"{self.shown} is a database in memory, which ends with its process")
        chosen = (
            "" if self.explicit or is_tracking_uri_set() else " MLflow looks there where MLFLOW_TRACKING_URI is unset"
        )
        return sqlite.Sqlite(path, hint=chosen)

    def _url_checked(self) -> str:
        try:
            make_url(self.tracking_uri)
        except (ArgumentError, ValueError):
            raise SourceError(f"{self.shown} is no address of a database: is it written right?") from None
        return self.tracking_uri

    def _check_schema(self) -> None:
        """Refuse a database of another schema than the installed MLflow's; one that isn't there yet has none.

        Raises:
            SourceError: MLflow would upgrade it.
        """
        if self._refused is not None:
            raise self._refused
        if self.kind == "file" and _files_refused():
            raise ReadOnlyError(
                f"{self.shown} is a store of files, which MLflow {mlflow.__version__} doesn't write any more: name a "
                "database or a server; an analysis can go into files (--out DIR)"
            )
        look: schema.Asked
        if self.kind == "sqlite":
            if self.database is None:
                return  # in memory
            look = sqlite.Sqlite(self.database)
            if look.is_new():
                return
        elif self.kind in ("postgresql", *_READ_BY_NOBODY):
            look = schema.ByDriver(self._url_checked(), self.shown)  # the driver that MLflow will write with
        else:
            return
        try:
            schema.refuse_another(look, self.shown)
        except schema.SchemaError as error:
            self._refused = error
            raise

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store."""
        return sqlite.path_of(self._url_checked()) if self.kind == "sqlite" else None

    @property
    def shown(self) -> str:
        """The tracking URI without user and password."""
        return without_credentials(self.tracking_uri)

    @property
    def uri(self) -> str:
        """Our URI of it, complete and without credentials."""
        shown = self.shown
        if self.database is not None:
            shown = sqlite.uri_of(self.database.resolve())
        return f"mlflow+{shown}#{self.experiment}"

    def redacted(self, error: MlflowException) -> str:
        """Return what MLflow says, without the password that its texts may repeat."""
        return without_credentials(str(error.message))

    def experiment_id(self, *, create: bool) -> str:
        """Return the id of the experiment to write to, made if it may be."""
        found = self.client.get_experiment_by_name(self.name)
        if found is None and create:
            # An embedded store would put artifacts into whatever folder the process runs in.
            beside = self.database if self.explicit else None
            where = None if beside is None else (beside.resolve().parent / "mlartifacts").as_uri()
            try:
                return str(self.client.create_experiment(self.name, artifact_location=where))
            except MlflowException:  # another run of the sweep made it between the two calls
                found = self.client.get_experiment_by_name(self.name)
        if found is None:
            known = [experiment.name for experiment in self.client.search_experiments(max_results=20)]
            raise no_experiment(self.name, self.shown, known)
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise deleted_experiment(self.name, self.shown)
        return str(found.experiment_id)


def _files_refused() -> bool:
    allowed = getattr(mlflow.environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return allowed is not None and not allowed.get()


def manifest_tags(manifest: RunManifest) -> dict[str, str]:
    """Return a manifest as MLflow tags; `domains` becomes the map slug → name, readable beside the metric's names."""
    fields = manifest.to_dict() | {"domains": keys.slugs(manifest.domains)}
    return {
        f"{TAG}{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in fields.items()
    }
