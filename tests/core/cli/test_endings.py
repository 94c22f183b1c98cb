"""How commands end where somebody else's exception comes out: a code and a remedy in a line, never "a bug of bimix"."""

from __future__ import annotations

import csv
import gzip
import json
import sqlite3
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import typer
import yaml

from bimix_tracking.cli.ending import mannered
from bimix_tracking.errors import MissingDependencyError

BUG = "This is a bug of bimix"


def raised_by(make: object, *args: object) -> Exception:
    """Return what a call raises, as the library itself raises it."""
    try:
        make(*args)  # type: ignore[operator]  # a function
    except Exception as error:  # noqa: BLE001  # that is the question
        return error
    raise AssertionError("it raised nothing")


def no_database(folder: Path) -> Exception:
    (folder / "x.db").write_text("no database, but a text that is long enough to be one" * 20, encoding="utf-8")
    return raised_by(sqlite3.connect(folder / "x.db").execute, "SELECT 1 FROM x")


def wrapped(cause: BaseException) -> Exception:
    error = RuntimeError("something failed")
    error.__cause__ = cause
    return error


class OfStore(Exception):  # noqa: N818  # as botocore names its own
    """An exception of an artifact store's client."""


class OfDatabase(Exception):  # noqa: N818  # likewise
    """An exception of a database's client."""


OfStore.__module__, OfDatabase.__module__ = "botocore.exceptions", "sqlalchemy.exc"
KNOWN: dict[str, tuple[Exception, int, str]] = {
    "a store's package": (ModuleNotFoundError("No module named 'boto3'", name="boto3"), 6, "pip install boto3"),
    "a part of one": (
        ModuleNotFoundError("No module named 'azure.storage'", name="azure.storage.blob"),
        6,
        "azure is not installed. Run: pip install azure-storage-blob azure-identity",
    ),
    "a driver": (ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"), 6, "pip install psycopg2-binary"),
    "an older version": (ImportError("cannot import name 'x' from 'boto3'"), 6, "a package cannot be imported: cannot"),
    "ours": (MissingDependencyError("mlflow", extra="mlflow"), 6, "pip install 'mlflow>=3.10,<4'"),
    "behind another": (wrapped(ModuleNotFoundError("x", name="gcsfs")), 6, "pip install gcsfs"),
    "rights": (
        PermissionError(13, "Permission denied", "/data/x"),
        4,
        "'/data/x': Permission denied. Look at the rights",
    ),
    "a full disk": (
        OSError(28, "No space left on device", "out/fit.json"),
        4,
        "'out/fit.json': No space left on device. F",
    ),
    "a folder": (IsADirectoryError(21, "Is a directory", "x"), 4, "'x': Is a directory. It is a folder: name a file"),
    "nothing there": (FileNotFoundError(2, "No such file or directory", "x"), 4, "Is its name right"),
    "a server that refuses": (ConnectionRefusedError(111, "Connection refused"), 4, "Is the server running"),
    "a database's own": (
        OfDatabase("database is locked"),
        4,
        "the database cannot be",
    ),
    "a client's own": (OfStore("Unable to locate credentials"), 4, "botocore says: Unable to locate credentials"),
    "an archive": (raised_by(zipfile.ZipFile, __file__), 4, "a file is damaged or cut off"),
    "a compressed file": (raised_by(gzip.decompress, b"\x1f\x8b\x08"), 4, "a file is damaged or cut off"),
    "not UTF-8": (
        raised_by(b"\xff".decode, "utf-8"),
        3,
        "a file is not utf-8: invalid start byte at byte 0. Convert it",
    ),
    "half a character": (raised_by("\udcff".encode, "utf-8"), 4, "Set PYTHONIOENCODING=utf-8"),
    "brackets": (RecursionError("maximum recursion depth exceeded"), 3, "nested too deep"),
    "memory": (MemoryError("Unable to allocate 9 TiB"), 3, "this machine's memory is not enough (Unable to allocate"),
    "a table": (pd.errors.ParserError("Expected 3 fields in line 7, saw 4"), 3, "Expected 3 fields in line 7, saw 4"),
    "YAML": (raised_by(yaml.safe_load, "a: [1"), 3, "a file cannot be read (yaml)"),
    "JSON": (raised_by(json.loads, "{"), 3, "a file cannot be read (json)"),
    "CSV": (csv.Error("line contains NUL"), 3, "a file cannot be read (_csv)"),
}


def end(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def command() -> None:
        """Fail."""
        raise error

    with pytest.raises(typer.Exit) as ended:
        mannered(command)(as_json=False)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return ended.value.exit_code, said


@pytest.mark.parametrize(("error", "code", "said"), KNOWN.values(), ids=KNOWN)
def test_an_exception_of_somebody_else_s_ends_with_a_code_and_a_remedy(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, told = end(error, capsys)

    assert ended == code
    assert said in told
    assert BUG not in told


def test_a_file_that_is_no_database_is_no_bug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, told = end(no_database(tmp_path), capsys)

    assert ended == 4
    assert "the database cannot be used: file is not a database" in told


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        KeyError("x"),
        AttributeError("'list' object has no attribute 'get'"),
        ValueError("x" * 10_000),
        ModuleNotFoundError("No module named 'bimix_tracking.none'", name="bimix_tracking.none"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_a_bug_is_called_one_in_a_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    ended, told = end(error, capsys)

    assert ended == 1
    assert BUG in told
    assert len(told) < 500


def test_no_remedy_holds_a_secret_or_a_whole_file(capsys: pytest.CaptureFixture[str]) -> None:
    secret = OfDatabase("postgresql://me:s3cret@host/db is away")
    assert "s3cret" not in end(secret, capsys)[1]
    assert len(end(OfStore("x" * 10**6), capsys)[1]) < 500
    assert len(end(PermissionError(13, "Permission denied", "y" * 10**5), capsys)[1]) < 500
