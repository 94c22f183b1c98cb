"""Each run of a source is read apart: one that is broken is excluded by name and reason, and the others are read.

What ends the reading of a source is said here, for all of them: `SourceError` (it cannot be reached, signed in to, or
understood) and `MissingDependencyError`, for they would befall every run. Whatever else is raised while a run is read,
`RunError` or any exception that a stranger's file can bring out, excludes that run alone. So a reader of runs turns
what its tracker's client raises of an outage into a `SourceError`, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.data.thinning import thinned
from bimix_tracking.errors import BimixError, MissingDependencyError, SourceError, clipped
from bimix_tracking.progress import Progress

Run = TypeVar("Run")

ENDS = (SourceError, MissingDependencyError)
"""What ends the reading of a whole source."""


def read_each(
    runs: Sequence[Run],
    read: Callable[[Run], RunRecord | None],
    named: Callable[[Run], tuple[str, str]],
    *,
    progress: Progress | None = None,
    threads: int = 1,
) -> list[RunRecord]:
    """Read the runs of a source, each apart, and return their records in the order of the runs.

    Args:
        runs: As the source's client gives them.
        read: Reads one; None means that it is of another kind, and it is skipped.
        named: A run's id and name, for one that cannot be read.
        progress: Called as ("reading runs", done, total).
        threads: How many are read at once.

    Raises:
        SourceError: As `read` raises it: the source, and not one run, cannot be read.
        MissingDependencyError: Likewise.

    >>> def read(run: str) -> RunRecord | None:
    ...     raise KeyError(run)
    >>> read_each(["r1"], read, lambda run: (run, run))[0].exclusions
    {"the run cannot be read: KeyError: 'r1'": 1}
    """

    def safely(run: Run) -> RunRecord | None:
        try:
            record = read(run)
            return None if record is None else thinned(record)
        except ENDS:
            raise
        except Exception as error:  # noqa: BLE001  # one broken run is one run, whatever it is broken by
            return RunRecord.excluded(*named(run), f"the run cannot be read: {why(error)}")

    def collected(found: Iterable[RunRecord | None]) -> list[RunRecord]:
        records = []
        for done, record in enumerate(found, 1):
            if record is not None:
                records.append(record)
            if progress:
                progress("reading runs", done, len(runs))
        return records

    if threads == 1:
        return collected(map(safely, runs))
    with ThreadPoolExecutor(threads) as pool:
        return collected(pool.map(safely, runs))


def why(error: Exception) -> str:
    r"""Return what an error says of a run, in one line that holds no value whole and no secret.

    >>> why(PermissionError(13, "Permission denied", "/data/run-1/rows.jsonl"))
    "Permission denied: '/data/run-1/rows.jsonl'"
    >>> why(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"))
    'it is not UTF-8: invalid start byte at byte 0'
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error of a stranger's
        text = ""
    if isinstance(error, UnicodeDecodeError):
        text = f"it is not UTF-8: {error.reason} at byte {error.start}"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.strerror}: {error.filename!r}"
    elif isinstance(error, MemoryError):
        text = "it is too large for this machine's memory"
    elif not isinstance(error, BimixError) and type(error) not in (ValueError, OSError, json.JSONDecodeError):
        text = f"{type(error).__name__}: {text}"
    return clipped(without_credentials(text)) or type(error).__name__


def reasons(records: Iterable[RunRecord], most: int = 3) -> str:
    """Return why runs are excluded, the most frequent reasons first, each with its count and a run.

    >>> reasons([RunRecord.excluded("1", "one", "it is empty"), RunRecord.excluded("2", "two", "it is empty")])
    "2×: it is empty (run 'one' and 1 more)"
    """
    runs: dict[str, list[str]] = {}
    for record in records:
        for reason in record.exclusions:
            runs.setdefault(reason, []).append(record.name)
    collected = []
    for reason, names in sorted(runs.items(), key=lambda item: -len(item[1]))[:most]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        collected.append(f"{len(names)}×: {reason} (run {names[0]!r}{others})")
    return "; ".join(collected)
