"""One experiment of one MLflow store: found by URI, read without a trace, and written only where MLflow alters nothing.

MLflow's client makes a database that isn't there and upgrades one that is older, by merely being made. So it is made
for a server, and for writing; what is read of a database or of files is read by `database` and `files`.
"""

from __future__ import annotations

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

from bimix_integrations.trackers.mlflow.stores import schema, sqlite
from bimix_integrations.trackers.mlflow.stores.database import Database
from bimix_integrations.trackers.mlflow.stores.experiments import (
    BY_ID,
    BY_NAME,
    Choice,
    chosen,
    deleted_experiment,
    no_experiment,
)
from bimix_integrations.trackers.mlflow.stores.files import Files, folder_of
from bimix_integrations.trackers.mlflow.stores.postgres import Postgres
from bimix_integrations.trackers.mlflow.stores.reading import Experiment, Reader
from bimix_integrations.trackers.mlflow.stores.server import Server, found_by, names_at
from bimix_tracking.credentials import remember, without_credentials
from bimix_tracking.errors import ReadOnlyError, RefusedError, SourceError

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
        self._uri = uri
        self.explicit = bool(flavour)
        self._asked_for = experiment if flavour or hash_ else location
        self._found = sqlite.at_home(f"{flavour}:{location}") if flavour else None
        self._choice: Choice | None = None
        self._client: MlflowClient | None = None
        self._refused: SourceError | None = None

    def again(self) -> Store:
        """Return the same place, as far as it is settled, for another run."""
        other = Store(self._uri)
        other._found, other._choice = self._found, self._choice
        return other

    @property
    def named(self) -> bool:
        """Whether the URI names an experiment."""
        return bool(self._asked_for)

    @property
    def wanted(self) -> Choice:
        """The experiment that is meant; without one in our URI, MLflow's own choice, and from then on the same."""
        return self._choice or chosen(
            self._asked_for,
            mlflows_store=not self.explicit or self.is_at(str(mlflow.get_tracking_uri())),
            shown=self.shown,
        )

    def stay_in(self, experiment_id: str, name: str | None = None) -> None:
        """Mean that experiment from here on: by its id, until its name is known."""
        by = "" if self._choice is None else self._choice.by
        in_a_uri = name is not None and not name.startswith(BY_ID)
        self._choice = Choice(name, None if in_a_uri else experiment_id, by)

    @property
    def tracking_uri(self) -> str:
        """Where the store is; without one in our URI, where MLflow's is when it is first used, and from then on."""
        return self._found or str(mlflow.get_tracking_uri())

    def is_at(self, tracking_uri: str) -> bool:
        """Return whether a tracking URI is of this store, however it is written."""
        return _place(tracking_uri) == _place(self.tracking_uri)

    def settle(self) -> None:
        """Stay with the store and the experiment that MLflow has now."""
        self._found = self.tracking_uri
        remember(self._found)
        self._choice = self.wanted

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
            SourceError: It is not an address.
        """
        if not self.http:
            return
        parts = urlsplit(self.tracking_uri)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise SourceError(f"{self.shown} is not an address of a server: {error}") from None
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
            raise SourceError(f"{self.shown} is not an address of a database: is it written right?") from None
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
                f"{self.shown} is a store of files, which MLflow {mlflow.__version__} no longer writes. Name a "
                "database or a server, or write the analysis to files (--out DIR)"
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
        return f"mlflow+{shown}#{self.wanted.fragment}"

    def redacted(self, error: MlflowException) -> str:
        """Return what MLflow says, without the password that its texts may repeat."""
        return without_credentials(str(error.message))

    def experiment(self, reader: Reader) -> Experiment:
        """Return the experiment that is meant, by what reads the store.

        Raises:
            SourceError: There is none, or it is deleted.
        """
        found = reader.experiment(self.wanted)
        self.stay_in(found.id, found.name)
        return found

    def experiment_id(self, *, create: bool) -> str:
        """Return the id of the experiment to write to, made if it may be, as MLflow would.

        Raises:
            RefusedError: There is none, or it is deleted.
            MlflowException: It cannot be made.
        """
        client, wanted = self.client, self.wanted
        found = found_by(client, wanted)
        if found is None and create and wanted.name is not None:
            # An embedded store would put artifacts into whatever folder the process runs in.
            beside = self.database if self.explicit else None
            where = None if beside is None else (beside.resolve().parent / "mlartifacts").as_uri()
            try:
                client.create_experiment(wanted.name, artifact_location=where)
            except MlflowException:
                if found_by(client, wanted) is None:  # else another run of the sweep made it between the two calls
                    raise
            found = found_by(client, wanted)
            self._settle_host(wanted, found)
        if found is None:
            raise RefusedError(str(no_experiment(wanted, self.shown, names_at(client))))
        if found.lifecycle_stage != LifecycleStage.ACTIVE:
            raise RefusedError(str(deleted_experiment(wanted, self.shown)))
        self.stay_in(str(found.experiment_id), found.name)
        return str(found.experiment_id)

    def _settle_host(self, wanted: Choice, made: mlflow.entities.Experiment | None) -> None:
        """Keep the host's own `start_run` working where its environment contradicts itself.

        With a name and the id of another experiment, MLflow makes the named one as long as it isn't there, and from
        then on refuses to begin a run. Made by us, it would be there before the host's first.
        """
        number = mlflow.environment_variables.MLFLOW_EXPERIMENT_ID.get()
        if made is not None and wanted.by == BY_NAME and number and number != made.experiment_id:
            mlflow.set_experiment(experiment_id=made.experiment_id)

    def holds(self, experiment_id: str) -> bool:
        """Return whether a run of that experiment is where we were asked to write; makes nothing."""
        if not self.named:
            self.stay_in(experiment_id)
            return True
        found = found_by(self.client, self.wanted)
        return found is not None and str(found.experiment_id) == experiment_id


def _files_refused() -> bool:
    allowed = getattr(mlflow.environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    return allowed is not None and not allowed.get()


def _place(tracking_uri: str) -> str:
    """Return a tracking URI so that two of one place are equal: an SQLite file's path, an address without users."""
    try:
        path = sqlite.path_of(tracking_uri) if tracking_uri.startswith("sqlite") else None
    except (ArgumentError, ValueError):
        path = None
    return str(path.resolve()) if path is not None else without_credentials(tracking_uri).rstrip("/")
