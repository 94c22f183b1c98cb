"""One folder of a `jsonl:` source → what it says of its run: from its histories, or from its `curves.json`.

Both hold the same where all went well. Where one is broken the other one is read, and where they disagree, the one that
has more; where each has something that the other one lacks, the histories, for they were written as the run went.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from bimix_tracking.data import metric_names
from bimix_tracking.data.manifest import CURVES, RunManifest, RunRecord, parse_curves, parse_json, parse_row
from bimix_tracking.data.thinning import Thinner, kind_and_tokens, note_of
from bimix_tracking.errors import RunError
from bimix_tracking.files.regular_file import lines_of, printable, text_of
from bimix_tracking.tracking.reading import why
from bimix_tracking.tracking.run_names import run_name

MANIFEST, ROWS, FINISHED, FAILED = "manifest.json", "rows.jsonl", "FINISHED", "FAILED"
CURVES_FILE = Path(CURVES).name
LARGEST_MANIFEST = 2**24
LARGEST_CURVES = 2**26
"""Bytes of a `curves.json`: what is larger is read from `rows.jsonl`, a line at a time."""
_MOST_BROKEN = 1000
"""A file with so many broken lines, and no more whole ones, is no file of rows."""
_BROKEN = f"a line of {ROWS} is not a row of numbers (truncated?)"
T = TypeVar("T")


class _Found(NamedTuple):
    """What one of the files holds: rows, how many of its lines are broken, and notes on them."""

    file: str
    manifest: RunManifest
    rows: Sequence[Mapping[str, float]]
    broken: int
    notes: Mapping[str, int]


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run's; one that may not be looked into is taken for one, to be named."""
    try:
        return any((folder / name).exists() for name in (MANIFEST, ROWS, CURVES_FILE, FINISHED))
    except OSError:
        return True


def ended(folder: Path) -> float | None:
    """Return when a run was finished or failed, in seconds since 1970; None while it goes on, or is dead.

    Raises:
        OSError: The folder may not be looked into.
    """
    for name in (FINISHED, CURVES_FILE, FAILED):
        try:
            return (folder / name).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


def finished(folder: Path) -> bool:
    """Return whether a run's training has ended as it should.

    Raises:
        OSError: The folder may not be looked into.
    """
    return ended(folder) is not None and not failed(folder)


def failed(folder: Path) -> bool:
    """Return whether a run failed."""
    return (folder / FAILED).exists() and not (folder / FINISHED).exists() and not (folder / CURVES_FILE).exists()


def name_of(folder: Path) -> str:
    """Return what people call a run: the name in its manifest, or the folder's where it says none."""
    return run_name(said_name(folder), folder.name)


def said_name(folder: Path) -> object:
    """Return the run's name in its manifest; None where there is none."""
    with contextlib.suppress(Exception):  # whatever a stranger's file brings out, the folder has a name
        return parse_json(text_of(folder / MANIFEST, LARGEST_MANIFEST)).get("name")
    return None


def manifest_of(folder: Path) -> RunManifest:
    """Return what a run says of itself.

    Raises:
        RunError: It cannot be read.
    """
    try:
        return _manifest(folder)
    except RunError as error:
        try:
            found = _from_curves(folder)
        except RunError as other:
            raise RunError(f"{error}; {other}") from None
        if found is None:
            raise
        return found.manifest


def record_of(folder: Path) -> RunRecord:
    """Return the run; if neither its histories nor its `curves.json` can be read, that it is excluded, and why.

    Raises:
        OSError: The folder may not be looked into.
    """
    run_id, name = printable(folder.name), name_of(folder)
    found: list[_Found] = []
    notes: list[str] = []
    for read in (_from_histories, _from_curves):
        try:
            part = read(folder)
        except RunError as error:
            notes.append(str(error))
        else:
            found += [] if part is None else [part]
    if not found:
        try:
            manifest = manifest_of(folder)
        except RunError:
            manifest = None
        because = "; ".join(dict.fromkeys(notes)) or f"it has neither {MANIFEST} nor {CURVES_FILE}"
        return RunRecord.excluded(run_id, name, f"the run cannot be read: {because}", manifest)
    chosen = found[0]
    if len(found) > 1:
        chosen, *more = _better(*found)
        notes += more
    used = {f"{note}; {chosen.file} is read instead": 1 for note in notes}
    excluded = {_BROKEN: chosen.broken} if chosen.broken else {}
    return RunRecord(run_id, name, chosen.manifest, chosen.rows, excluded, {**chosen.notes, **used})


def _better(histories: _Found, curves: _Found) -> tuple[_Found, *tuple[str, ...]]:
    """Return what is to be believed, and what is wrong with the other one, if anything is."""
    one, other = _evaluations(histories.rows), _evaluations(curves.rows)
    if curves.manifest != histories.manifest:
        return histories, f"the manifest in its {CURVES_FILE} is another than its {MANIFEST}"
    if one == other or not one:
        return (curves,)
    if one.items() <= other.items():
        return curves, f"its {ROWS} lacks {len(other) - len(one)} of the values of its evaluations"
    return histories, f"its {CURVES_FILE} lacks values of its evaluations, or has others than its {ROWS}"


def rows_of(path: Path) -> Iterator[dict[str, float] | None]:
    """Return the rows of a run one after another, None for a line that is none; a file that isn't there has no rows.

    Raises:
        OSError: It cannot be read.
        RunError: It is not a regular file, or hardly a line of it is a row.
    """
    names: dict[str, str] = {}
    broken = whole = 0
    if not path.exists():
        return
    for line in lines_of(path):
        try:
            row = parse_row(parse_json((line or b"").decode("utf-8")))
        except ValueError:
            broken += 1
            if broken >= _MOST_BROKEN and broken > whole:
                raise RunError(f"{path.name} has {broken:,} lines that are not rows of numbers") from None
            yield None
        else:
            whole += 1
            yield {names.setdefault(name, name): value for name, value in row.items()}


def _from_histories(folder: Path) -> _Found | None:
    if not (folder / MANIFEST).exists() and not (folder / ROWS).exists():
        return None
    manifest = _manifest(folder)

    def rows(path: Path) -> _Found:
        return _found(ROWS, manifest, rows_of(path))

    return _readable(folder / ROWS, rows)


def _from_curves(folder: Path) -> _Found | None:
    path = folder / CURVES_FILE
    if not path.exists():
        return None
    manifest, rows = _readable(path, lambda path: parse_curves(text_of(path, LARGEST_CURVES)))
    return _found(CURVES_FILE, manifest, rows)


def _found(file: str, manifest: RunManifest, rows: Iterable[Mapping[str, float] | None]) -> _Found:
    """Return what a file holds, its rows thinned as they come: a million of them don't fit into memory."""
    thinner = Thinner[Mapping[str, float]](kind_and_tokens)
    broken = 0
    for row in rows:
        if row is None:
            broken += 1
        else:
            thinner.add(row)
    return _Found(file, manifest, thinner.kept(), broken, note_of(thinner))


def _manifest(folder: Path) -> RunManifest:
    path = folder / MANIFEST
    return _readable(path, lambda path: RunManifest.from_dict(parse_json(text_of(path, LARGEST_MANIFEST))))


def _readable(path: Path, read: Callable[[Path], T]) -> T:
    """Return what a file holds, or say which file cannot be read, and why."""
    try:
        return read(path)
    except RunError:
        raise
    except FileNotFoundError:
        raise RunError(f"there is no {path.name}") from None
    except OSError as error:
        raise RunError(f"{path.name}: {error.strerror}") from error
    except Exception as error:  # whatever a stranger's file brings out is of this run
        raise RunError(f"{path.name}: {why(error)}") from error


def _evaluations(rows: Sequence[Mapping[str, float]]) -> dict[tuple[float, str], float | None]:
    """Return what was measured of domains, and at how many tokens, by step and name; NaN as None, which is itself."""
    found: dict[tuple[float, str], float | None] = {}
    for row in rows:
        measured = [name for name in row if metric_names.is_evaluation(name)]
        for name in (*measured, metric_names.TOKENS) if measured else ():
            value = row.get(name, math.nan)
            found[row[metric_names.STEP], name] = None if math.isnan(value) else value
    return found
