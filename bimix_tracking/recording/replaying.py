"""`bimix replay`: what runs of earlier processes left in their journals, sent to their trackers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data.manifest import RunManifest
from bimix_tracking.errors import BimixError, RefusedError, SourceError, listed
from bimix_tracking.recording import open_runs
from bimix_tracking.recording.journal import Journal
from bimix_tracking.recording.outbox import Outbox
from bimix_tracking.recording.spool import journals
from bimix_tracking.tracking.ports import Tracker, open_tracker

_BARE = (
    "The journal holds no credentials. If the tracker needs them, set PGUSER and PGPASSWORD, "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, or give the whole URI by "
    "--tracker"
)


@dataclass(frozen=True)
class Replayed:
    """What became of one journal.

    Args:
        directory: Its folder.
        rows: Rows that were sent now.
        run_id: The tracker's run that they are in.
        ended: Whether training had ended, so that the run is finished now and the journal gone.
        error: Why it is still there, if the tracker didn't take all of it.
        notes: What else there is to know: rows that are elsewhere, broken or refused.
    """

    directory: Path
    rows: int
    run_id: str | None
    ended: bool
    error: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"{self.directory.name}: {self.rows} rows sent to run {self.run_id}"
        more = "".join(f"; {note}" for note in self.notes)
        if self.error is not None:
            return f"{where}{more}; the rest is kept: {self.error}"
        failed = "; its training never ended: the run is marked as failed (resuming reopens it)"
        return where + ("" if self.ended else failed) + more


def replay(directory: str | Path, *, tracker: str | None = None) -> Iterator[Replayed]:
    """Send what the journals of a spool hold, and remove those that are done; sent twice, a row is read back once.

    A run whose training never ended is marked as failed. Into another tracker than the journal's, all rows that the
    journal holds are sent, to a run of their own. What the tracker refuses for good stays, beside lines that are no
    rows.

    Args:
        directory: A spool, or one journal.
        tracker: URI to send to instead of the one in the journal, which is without credentials.

    Raises:
        SourceError: There is not a journal.
    """
    for folder in journals(Path(directory)):
        open_runs.release_ended(folder)
        try:
            journal = Journal.open(folder)
        except (SourceError, OSError) as error:  # still being written, or broken, or another's
            yield Replayed(folder, 0, None, False, str(error))
            continue
        sent = _sent(journal, tracker or journal.tracker, asked=tracker is not None)
        if sent.error is not None and tracker is None and "://" in journal.tracker:
            sent = replace(sent, error=f"{sent.error}. {_BARE}")
        yield sent


def _sent(journal: Journal, uri: str, *, asked: bool) -> Replayed:
    ended, error, notes = journal.curves is not None, None, list[str]()
    outbox: Outbox | None = None
    waiting = 0
    try:
        tracker = open_tracker(uri)
        notes += _resumed(tracker, journal, asked=asked)
        outbox = Outbox(tracker, journal, journal.before)
        waiting = outbox.waiting
        outbox.put_manifest(RunManifest.from_dict(journal.manifest))
        if journal.curves is not None:
            outbox.put_curves(journal.curves)
        else:
            outbox.put_failure()
        outbox.send()
    except Exception as problem:  # noqa: BLE001  # whatever a tracker raises, the other journals are sent
        kind = "" if isinstance(problem, BimixError) else f"{type(problem).__name__}: "
        error = without_credentials(f"{kind}{problem}")
        if isinstance(problem, RefusedError):
            error += f". To send all of it to a new run: bimix replay {journal.directory} --tracker URI"
    rows, run_id = waiting - outbox.waiting if outbox is not None else 0, journal.run_id
    if journal.broken:
        notes.append(f"{journal.broken} damaged lines were skipped")
    if outbox is not None:
        notes += dict.fromkeys(without_credentials(text) for kind, text in outbox.news if not kind.startswith("value"))
    if outbox is not None and outbox.refused:
        reasons = {text.partition("): ")[2] for kind, text in outbox.news if kind.startswith("value")}
        notes.append(
            f"the tracker refused {sum(outbox.refused.values())} values of {listed(outbox.refused)} "
            f"({without_credentials(listed(sorted(reasons), 2))})"
        )
    if error is None:
        journal.remove()
        notes += [f"see {path}" for path in journal.kept]
    else:
        journal.close()
    return Replayed(journal.directory, rows, run_id, ended, error, tuple(notes))


def _resumed(tracker: Tracker, journal: Journal, *, asked: bool) -> list[str]:
    """Have the tracker resume the journal's run, if it is its; return a note."""
    knows_keys = hasattr(tracker, "key")
    with contextlib.suppress(AttributeError):  # a third party's, with slots
        tracker.key = journal.key
        if getattr(tracker, "run_name", None) is None:
            tracker.run_name = journal.name
    here = without_credentials(tracker.uri)
    if here == journal.tracker:
        try:
            if journal.run_id is not None or (journal.key is not None and knows_keys):
                tracker.resume(journal.run_id, journal.at_tracker)
        except RefusedError:
            if not asked:
                raise
        else:
            return []
    # Another tracker: its run isn't that of the old id, and has none of the rows that the old one has. It is found by
    # its key, should an earlier replay have begun it.
    gone = journal.before + journal.dropped
    old = journal.tracker
    if journal.key is not None and knows_keys:
        tracker.resume(None, gone)
    journal.tracker, journal.run_id, journal.delivered = here, None, journal.dropped
    return [f"the {gone} rows before these are only at {old}"] if gone else []
