"""One `.wandb` file: what it says of its run, its rows, and whether it was written to its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bimix_integrations.trackers.wandb.offline.history_record import HistoryReader, parsed
from bimix_integrations.trackers.wandb.offline.transaction_log import TransactionLog
from bimix_integrations.trackers.wandb.rows import summary_values
from bimix_tracking.files.regular_file import printable
from bimix_tracking.tracking.reading import why


@dataclass
class RunFile:
    """What a file of a run holds.

    Attributes:
        path: The file.
        run_id: The run's id at W&B; of a file that says nothing, as in its name.
        name: What people call the run.
        config: The run's config, nested.
        started: When the process began, seconds since 1970; the file's own time where it says nothing.
        ended: When it ended, if it did, to the second.
        exit_code: What it ended with; None where it was killed, or goes on.
        rows: The wanted numbers of its history, in the order in which they were logged.
        names: All metrics of its history.
        said: Whether the file says anything of a run.
        cut_off: Whether the file ends within a record.
        damage: What is wrong in the file, where it could not be read to its end.
        trouble: Why nothing of it can be read, where that is so.
        summary: What the run's own code put into its summary; None until it is asked for, see `summary_of`.
    """

    path: Path
    run_id: str
    name: str
    started: float
    config: dict[str, Any] = field(default_factory=dict)
    ended: float | None = None
    exit_code: int | None = None
    rows: list[dict[str, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    said: bool = False
    cut_off: bool = False
    damage: str | None = None
    trouble: str | None = None
    summary: dict[str, Any] | None = None


def read_file(path: Path, wanted: Callable[[str], bool] | None) -> RunFile:
    """Read a file as far as it is whole; of one that is none of W&B's, or cannot be read, say why, and nothing else.

    Args:
        path: The file.
        wanted: Whether a metric of that name is wanted; None leaves out the history.
    """
    try:
        return _read(path, wanted)
    except Exception as error:  # noqa: BLE001  # one broken file is one run's
        return unreadable(path, why(error))


def unreadable(path: Path, trouble: str) -> RunFile:
    """Return what a file or a folder is that nothing of can be read: it has a place, and a name with a run's id."""
    run_id = printable(path.stem.removeprefix("run-"))
    return RunFile(path=path, run_id=run_id, name=run_id, started=0.0, trouble=trouble)


def _read(path: Path, wanted: Callable[[str], bool] | None) -> RunFile:
    log = TransactionLog(path)
    reader = HistoryReader(wanted or none)
    run_id = printable(path.stem.removeprefix("run-"))
    found = RunFile(path=path, run_id=run_id, name=run_id, started=0.0)
    try:
        for record in map(parsed, log):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                if wanted is not None:
                    found.rows.append(reader.row(record.history))
            elif kind in ("run", "config", "exit"):
                _note(found, kind, getattr(record, kind))
    except ValueError as error:  # a whole record, by its checksum, that W&B did not write
        log.damage = f"a record that cannot be read ({str(error)[:80]})"
    found.names, found.cut_off, found.damage = reader.names, log.cut_off, log.damage
    found.started = found.started or path.stat().st_mtime
    return found


def none(metric: str) -> bool:  # noqa: ARG001  # an answer to a question about one
    """Return that a metric isn't wanted: a reader's `wanted` where names are all that is."""
    return False


def _note(found: RunFile, kind: str, content: Any) -> None:
    if kind == "run":
        found.said = True
        found.run_id, found.name = content.run_id or found.run_id, content.display_name or found.name
        found.started = content.start_time.seconds + content.start_time.nanos / 1e9 or found.started
        _configure(found.config, content.config)
    elif kind == "config":
        _configure(found.config, content)
    else:
        found.exit_code = content.exit_code
        found.ended = found.started + content.runtime if found.started else None


def _configure(config: dict[str, Any], change: Any) -> None:
    for item in change.update:
        place = config
        *path, last = item.nested_key or [item.key]
        for name in path:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                inner = place[name] = {}
            place = inner
        place[last] = _value(item.value_json)
    for item in change.remove:
        *path, last = item.nested_key or [item.key]
        place = config
        for name in path:
            inner = place.get(name)
            place = inner if isinstance(inner, dict) else {}
        place.pop(last, None)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # it is none of ours, and not reported


def summary_of(files: list[RunFile]) -> dict[str, object]:
    """Return the last values that a run's own code, or an older SDK, wrote into its summary; read when first asked for.

    It is where final losses are that were never logged. Of those that were, what counts is in the history.
    """
    whole: dict[str, Any] = {}
    for file in files:
        if file.summary is None:
            file.summary = {}
            if file.trouble is not None:
                continue
            with contextlib.suppress(ValueError):  # a record that W&B did not write: reported when the file was read
                for record in map(parsed, TransactionLog(file.path)):
                    if record.WhichOneof("record_type") == "summary":
                        _configure(file.summary, record.summary)
        whole |= file.summary
    return summary_values(whole)


def merged(files: list[RunFile]) -> Mapping[str, Any]:
    """Return the config of a run that several processes wrote: the later one counts."""
    config: dict[str, Any] = {}
    for file in files:
        config |= file.config
    return config
