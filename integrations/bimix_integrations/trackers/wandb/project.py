"""One W&B project: named by URI, reached or said to be dead in seconds, and errors without the API key in them."""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import wandb
from wandb.apis.public import Api
from wandb.errors import CommError
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb.sdk.mailbox.mailbox_handle import ServerResponseError

from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import RefusedError, SourceError

_PROBE_SECONDS = 5.0
_REQUEST_SECONDS = 60
_PART = re.compile(r"[^/:?#\s][^/:?#]*")
_THEIRS = (wandb.Error, WandbApiFailedError, ServerResponseError, ValueError, TypeError, OSError)
"""What the SDK raises; a time that has run out is an `OSError`."""
_REFUSAL = re.compile(
    r"(?:error|status|code)\W{0,3}(?:400|403|404|409|410|413|422)\b|permission[ _](?:denied|error)|\bforbidden\b"
    r"|not found during|previously created and deleted|invalid (?:project|entity|artifact|run)"
    r"|cannot (?:contain|exceed)",
    re.IGNORECASE,
)
"""In an answer that stays the same however often it is asked for: no right, no such entity, a name that is none."""
_KEY = re.compile(r"\b[0-9a-f]{40}\b|\bwandb_v1_\w+|\blocal-[0-9a-f]{40}\b")


class Project:
    """One project at the W&B server of the environment.

    Args:
        uri: `wandb:ENTITY/PROJECT`, `wandb:PROJECT` or `wandb:`, then `/sweeps/ID` and `/groups/NAME` if wanted.

    Raises:
        SourceError: The URI is none.

    >>> project = Project("wandb:team/pilot/sweeps/ab12")
    >>> project.entity, project.name, project.sweep, project.group
    ('team', 'pilot', 'ab12', None)
    """

    def __init__(self, uri: str) -> None:
        parts = [unquote(part) for part in uri.partition(":")[2].strip("/").split("/") if part]
        limits = {"sweeps": "", "groups": ""}
        while len(parts) > 2 and parts[-2] in limits:
            limits[parts[-2]] = parts[-1]
            del parts[-2:]
        if len(parts) > 2 or not all(map(_PART.fullmatch, parts)):
            raise SourceError(f"{uri!r} names no W&B project: write wandb:ENTITY/PROJECT[/sweeps/ID][/groups/NAME]")
        self.sweep, self.group = limits["sweeps"] or None, limits["groups"] or None
        self.named = self.settled = bool(parts)
        self._entity = parts[0] if len(parts) == 2 else None
        self._name = parts[-1] if parts else None
        self._api: Api | None = None

    @property
    def entity(self) -> str | None:
        """The user or team; None is the API key's own."""
        return self._entity or os.environ.get("WANDB_ENTITY") or None

    @property
    def name(self) -> str:
        """The project; without one, the environment's, else what W&B takes then."""
        return self._name or os.environ.get("WANDB_PROJECT") or "uncategorized"

    @property
    def uri(self) -> str:
        """Our URI of it."""
        limits = (("sweeps", self.sweep), ("groups", self.group))
        return f"wandb:{self.path}" + "".join(f"/{kind}/{value}" for kind, value in limits if value)

    @property
    def path(self) -> str:
        """As W&B writes it."""
        return self.name if self.entity is None else f"{self.entity}/{self.name}"

    @property
    def api(self) -> Api:
        """W&B's public API; made when first used, if the server is there.

        Raises:
            SourceError: No API key, offline mode, or no server.
        """
        if self._api is None:
            if mode() != "online":
                raise SourceError(
                    f"{self.uri}: WANDB_MODE is {mode()}, so W&B's server isn't asked. "
                    "Unset it, or read the local files: wandb-offline:DIR"
                )
            probe()
            with as_source_error(self.uri):
                self._api = Api(timeout=_REQUEST_SECONDS)
        return self._api

    def settle(self, entity: str | None, name: str) -> None:
        """Stay with this project, whatever the environment says later."""
        self._entity, self._name, self.settled = entity or self._entity, name, True

    def settle_entity(self) -> str:
        """Return the entity, asked for where neither URI nor environment name it."""
        with as_source_error(self.uri):
            self._entity = self.entity or str(self.api.default_entity or "")
        return self._entity

    def known(self) -> list[str]:
        """Return the names of the entity's projects, up to twenty."""
        with as_source_error(self.uri):
            return [
                project.name for project, _ in zip(self.api.projects(self.settle_entity()), range(20), strict=False)
            ]


def said_mode() -> str | None:
    """Return the mode as environment or settings say it now: the SDK has looked once, when it was first used."""
    return os.environ.get("WANDB_MODE") or wandb.setup().settings.mode


def mode(said: str | None = None) -> str:
    """Return W&B's mode, as it is said or as the environment says: online, offline or disabled."""
    said = said or said_mode() or "online"
    return {"dryrun": "offline", "run": "online", "shared": "online"}.get(said, said)


def server() -> str:
    """Return the address of the W&B server of the environment, without credentials."""
    return without_credentials(os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url))


def probe() -> None:
    """Say in seconds that a server is dead: the SDK's own retries take minutes to. A slow one is not dead.

    Raises:
        SourceError: Nobody listens.
    """
    parts = urlsplit(server())
    if parts.scheme in urllib.request.getproxies():
        return  # it is the proxy's to know
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise SourceError(
            f"no W&B server answers at {server()} ({type(error).__name__}). "
            "Is WANDB_BASE_URL right, and the network up?"
        ) from None


@contextmanager
def as_source_error(what: str) -> Iterator[None]:
    """Turn what W&B raises into a `SourceError` that says what to do, and holds no key; a `RefusedError` for good."""
    try:
        yield
    except _THEIRS as error:
        kind = RefusedError if refuses(error) else SourceError
        raise kind(f"{what}: {_advice(error)}") from None


def refuses(error: Exception) -> bool:
    """Return whether W&B will never take what it has just refused; a key that is missing or wrong can be mended.

    >>> refuses(wandb.Error("returned error 403: permission denied")), refuses(wandb.Error("returned error 502"))
    (True, False)
    """
    if isinstance(error, wandb.Error):
        return _REFUSAL.search(str(error)) is not None
    return isinstance(error, ValueError | TypeError) and not isinstance(error, OSError)


def is_absent(error: CommError) -> bool:
    """Return whether W&B means that there is no such thing: it has no error of its own for that."""
    said = str(error)
    return (isinstance(error.exc, ValueError) and "not found" in said) or "Could not find run" in said


def redacted(text: str) -> str:
    """Return a text without API keys, users and passwords.

    >>> redacted("key 0123456789abcdef0123456789abcdef01234567 refused by https://me:pw@host")
    'key *** refused by https://host'
    """
    key = os.environ.get("WANDB_API_KEY")
    bare = text.replace(key, "***") if key else text
    return without_credentials(_KEY.sub("***", bare))


def _advice(error: Exception) -> str:
    said = redacted(str(error) or type(error).__name__)
    low = said.lower()
    if "api key" in low or "api_key" in low or "401" in low or "unauthorized" in low:
        return f"W&B has no valid API key for {server()}: run `wandb login`, or set WANDB_API_KEY. It says: {said}"
    if "429" in low or "rate limit" in low:
        return f"W&B's rate limit was not lifted in time; try again in some minutes. It says: {said}"
    return f"W&B says: {said}"
