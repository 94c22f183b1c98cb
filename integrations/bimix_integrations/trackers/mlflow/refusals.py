"""What MLflow will never take, as distinct from what it doesn't take just now.

A refusal for good is a `RefusedError`: it is skipped and reported, and what follows is sent. An outage is any other
error, and the same is sent again: no connection, a time-out, too many requests, an error of the server's own, a
database that is locked, and a token that has expired (401), for those are renewed.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from mlflow.exceptions import MlflowException

from bimix_integrations.trackers.mlflow.stores.store import Store
from bimix_tracking.errors import ReadOnlyError, RefusedError, SourceError

_THIS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "NOT_IMPLEMENTED")
_ALL_OF_IT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "PERMISSION_DENIED", "INVALID_STATE")
_GONE = re.compile(r"must be in the .?active.? state", re.IGNORECASE)
_OF_THE_DATABASE = re.compile(
    r"QueuePool|TimeoutError|InterfaceError|OperationalError|IntegrityError|PendingRollback|ResourceClosed|"
    r"connection|deadlock|locked",
    re.IGNORECASE,
)
"""MLflow calls whatever its database doesn't do a bad request; this much of it may be done the next time."""
_COMING_BACK = {
    errno.EAGAIN, errno.EBUSY, errno.ECONNREFUSED, errno.ECONNRESET, errno.EDQUOT, errno.EHOSTUNREACH, errno.EINTR,
    errno.EIO, errno.EMFILE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENFILE, errno.ENOSPC, errno.ESTALE,
    errno.ETIMEDOUT, errno.EPIPE,
}  # fmt: skip
_UNREACHED = re.compile(
    r"Connect(ion|Timeout)|Timeout|Unavailable|Throttl|SlowDown|TooManyRequests|Endpoint|Retr(y|ies)|Transport|"
    r"InternalServer|ServerError|Incomplete|ChunkedEncoding|Protocol"
)
_AGAIN = {401, 408, 425, 429}


class RefusedForGoodError(RefusedError):
    """What MLflow never takes.

    Args:
        text: What, and why.
        whole: Whether it takes nothing of this run, and not only this value.
    """

    def __init__(self, text: str, *, whole: bool = False) -> None:
        super().__init__(text)
        self.whole = whole

    def __reduce__(self) -> tuple[object, ...]:
        """Let it cross to another process."""
        return _made, (str(self), self.whole)


def _made(text: str, whole: bool) -> RefusedForGoodError:  # pickle gives arguments by place
    return RefusedForGoodError(text, whole=whole)


@contextlib.contextmanager
def refusals(store: Store, what: str) -> Iterator[None]:
    """Raise what MLflow refuses for good as such, and let an outage through.

    Args:
        store: Where.
        what: What was tried, in words.

    Raises:
        RefusedForGoodError: It will never be taken.
    """
    try:
        yield
    except ReadOnlyError as error:
        raise RefusedForGoodError(str(error), whole=True) from None
    except MlflowException as error:
        if not for_good(error):
            raise
        whole = error.error_code in _ALL_OF_IT or _GONE.search(str(error.message)) is not None
        said = " ".join(store.redacted(error).split())
        raise RefusedForGoodError(f"{what} is refused by MLflow at {store.shown}: {said}", whole=whole) from None


@contextlib.contextmanager
def values(what: str) -> Iterator[None]:
    """Raise as a refusal that a value is not a number of any kind, or too large for any: it never gets to MLflow.

    Raises:
        RefusedForGoodError: That is so.
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise RefusedForGoodError(f"{what} is nothing that MLflow can hold: {type(error).__name__}: {error}") from None


def for_good(error: MlflowException) -> bool:
    """Return whether what MLflow didn't take, it won't take later either."""
    if error.error_code == "BAD_REQUEST" and _OF_THE_DATABASE.search(str(error.message)):
        return False
    if error.error_code == "INTERNAL_ERROR":  # a value that the database's driver cannot put into it
        return isinstance(error.__cause__, TypeError | ValueError | OverflowError)
    return error.error_code in (*_THIS, *_ALL_OF_IT)


def artifact_is_refused(error: Exception) -> bool:
    """Return whether an artifact will never be taken: each store of artifacts has errors of its own kind.

    Artifacts are optional, and outages of their stores have few forms: what isn't one is a refusal.
    """
    if isinstance(error, SourceError):
        return isinstance(error, RefusedError)
    if isinstance(error, MlflowException):
        return for_good(error) or error.error_code in ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in _AGAIN - {401}
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _COMING_BACK
    return not any(_UNREACHED.search(kind.__name__) for kind in type(error).__mro__)


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error: requests, Azure, Google and botocore each have a place for it."""
    answer = getattr(error, "response", None)
    of_aws = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    for status in (
        of_aws,
        getattr(answer, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return None
