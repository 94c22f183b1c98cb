"""`bimix replay`: what runs of earlier processes left in their journals, sent to their trackers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.journal import Journal, journals
from bimix_tracking.manifest import RunManifest
from bimix_tracking.outbox import Outbox
from bimix_tracking.tracking import open_tracker, without_credentials

_BARE = (
    "The journal holds no credentials: if the tracker needs some, give them by the environment (PGUSER and PGPASSWORD, "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN), or the whole URI by --tracker"
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
    """

    directory: Path
    rows: int
    run_id: str | None
    ended: bool
    error: str | None = None

    def __str__(self) -> str:
        where = f"{self.directory.name}: {self.rows} rows sent to run {self.run_id}"
        if self.error is not None:
            return f"{where}; the rest is kept: {self.error}"
        return where + ("" if self.ended else "; its training never ended, and the run isn't marked as finished")


def replay(directory: str | Path, *, tracker: str | None = None) -> Iterator[Replayed]:
    """Send what the journals of a spool hold, and remove those that are done; sent twice, a row is read back once.

    Args:
        directory: A spool, or one journal.
        tracker: URI to send to instead of the one in the journal, which is without credentials.

    Raises:
        SourceError: There is no journal.
    """
    for folder in journals(Path(directory)):
        try:
            journal = Journal.open(folder)
        except SourceError as error:  # still being written, or broken
            yield Replayed(folder, 0, None, False, str(error))
            continue
        sent = _sent(journal, tracker or journal.tracker)
        if sent.error is not None and tracker is None and "://" in journal.tracker:
            sent = replace(sent, error=f"{sent.error}. {_BARE}")
        yield sent


def _sent(journal: Journal, uri: str) -> Replayed:
    waiting, ended, error = journal.written - journal.delivered, journal.curves is not None, None
    outbox: Outbox | None = None
    try:
        tracker = open_tracker(uri)
        if journal.run_id is not None:
            tracker.resume(journal.run_id, journal.before + journal.delivered)
        outbox = Outbox(tracker, journal, journal.before)
        outbox.put_manifest(RunManifest.from_dict(journal.manifest))
        if journal.curves is not None:
            outbox.put_curves(journal.curves)
        outbox.send()
        if journal.curves is None:
            tracker.finish(ended=False)
    except Exception as problem:  # noqa: BLE001  # whatever a tracker raises, the other journals are sent
        kind = "" if isinstance(problem, BimixError) else f"{type(problem).__name__}: "
        error = without_credentials(f"{kind}{problem}")
    rows, run_id = waiting - outbox.waiting if outbox is not None else 0, journal.run_id
    if error is None:
        journal.remove()
    else:
        journal.close()
    return Replayed(journal.directory, rows, run_id, ended, error)
