"""What other people's exceptions mean on the command line: an exit code and a remedy; only the rest is a bug of ours.

Told apart by their classes' modules, for a command doesn't import MLflow to know its errors.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import clipped

BAD_DATA, NO_ACCESS, MISSING = 3, 4, 6
_OURS = ("bimix_tracking", "bimix_integrations")
_DISTRIBUTIONS = {
    "azure": "azure-storage-blob azure-identity",
    "botocore": "boto3",
    "google": "google-cloud-storage",
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
    "yaml": "pyyaml",
}
"""Import name → what is installed, where that has another name; of stores of artifacts and databases, and our own."""
_DATABASES = ("sqlite3", "sqlalchemy", "psycopg", "psycopg2", "pymysql", "MySQLdb", "pyodbc", "alembic")
_SERVERS = (
    *("mlflow", "wandb", "requests", "urllib3", "http", "httpx", "httpcore", "aiohttp", "grpc", "ssl", "socket"),
    *("boto3", "botocore", "s3transfer", "azure", "google", "fsspec", "s3fs", "gcsfs", "huggingface_hub", "paramiko"),
)
_DAMAGED = ("zipfile", "zlib", "gzip", "lzma", "_lzma", "pyarrow", "tarfile", "struct")
_TEXTS = ("pandas", "yaml", "json", "csv", "_csv", "tomllib")
_WHAT_TO_DO = {
    errno.EACCES: "Look at the rights of the file and of the folders above it, or use another place",
    errno.EPERM: "Look at the rights of the file and of the folders above it, or use another place",
    errno.EROFS: "Use another place",
    errno.ENOSPC: "Free some space, or use another place",
    errno.EDQUOT: "Free some space, or use another place",
    errno.ENOENT: "Is its name right, and the folder above it there?",
    errno.EISDIR: "It is a folder: name a file",
    errno.ENOTDIR: "Part of its path is a file: name another place",
    errno.ENAMETOOLONG: "Use a shorter name",
    errno.EMFILE: "Let the process open more files (ulimit -n)",
    errno.ECONNREFUSED: "Is the server running, and the address right?",
}


class Remedy(NamedTuple):
    """How a command ends, and what it says."""

    code: int
    text: str


def remedy_of(error: BaseException) -> Remedy | None:
    """Return how a command ends where an exception of somebody else's comes out; None where it is a bug of ours.

    >>> remedy_of(ModuleNotFoundError("No module named 'boto3'", name="boto3"))
    Remedy(code=6, text='boto3 is not installed. Run: pip install boto3')
    >>> remedy_of(PermissionError(13, "Permission denied", "/data/x")).text
    "'/data/x': Permission denied. Look at the rights of the file and of the folders above it, or use another place"
    >>> remedy_of(ZeroDivisionError("division by zero")) is None
    True
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        found = _of(cause)
        if found is not None:
            return Remedy(found.code, without_credentials(found.text))
        seen.append(cause)
        cause = cause.__cause__
    return None


def _of(error: BaseException) -> Remedy | None:
    said = clipped(_text(error).partition("[SQL:")[0], 300)
    whose = type(error).__module__.partition(".")[0]
    if isinstance(error, ImportError):
        return _missing(error, said)
    if whose in _DATABASES:
        return Remedy(NO_ACCESS, f"the database cannot be used: {said}. Is it one of a tracker's, and may you read it?")
    if isinstance(error, OSError):
        return _refused(error, said)
    if isinstance(error, UnicodeDecodeError):
        return Remedy(
            BAD_DATA, f"a file is not {error.encoding}: {error.reason} at byte {error.start:,}. Convert it to UTF-8"
        )
    if isinstance(error, UnicodeEncodeError):
        return Remedy(
            NO_ACCESS,
            f"the output takes no {error.object[error.start : error.start + 1]!r}: it is {error.encoding}. Set "
            "PYTHONIOENCODING=utf-8",
        )
    if isinstance(error, RecursionError):
        return Remedy(BAD_DATA, "a file is nested too deep to be read: look for a line of brackets in what was given")
    if isinstance(error, MemoryError):
        return Remedy(
            BAD_DATA,
            f"this machine's memory is not enough ({said or 'no more is free'}): use one with more, or less data",
        )
    if whose in _SERVERS:
        return Remedy(
            NO_ACCESS, f"{whose} says: {said or type(error).__name__}. Is the server there, and may you use it?"
        )
    if whose in _DAMAGED or isinstance(error, EOFError):
        return Remedy(NO_ACCESS, f"a file is damaged or cut off: {said or type(error).__name__}. Fetch it again")
    if whose in _TEXTS:
        return Remedy(BAD_DATA, f"a file cannot be read ({whose}): {said}. Is it of the form that was asked for?")
    return None


def _missing(error: ImportError, said: str) -> Remedy | None:
    package = (error.name or "").partition(".")[0]
    if package in _OURS:
        return None
    if not isinstance(error, ModuleNotFoundError) or not package:
        return Remedy(MISSING, f"a package cannot be imported: {said}. Install it, or another version of it, with pip")
    return Remedy(MISSING, f"{package} is not installed. Run: pip install {_DISTRIBUTIONS.get(package, package)}")


def _refused(error: OSError, said: str) -> Remedy:
    what = said
    if error.filename is not None and error.strerror:
        what = f"{clipped(repr(error.filename), 250)}: {error.strerror}"
    advice = _WHAT_TO_DO.get(error.errno or 0)
    return Remedy(NO_ACCESS, f"{what or type(error).__name__}. {advice}" if advice else what or type(error).__name__)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # an error of a stranger's
        return ""
