"""Waiting until a sweep has ended: asked again and again, through what comes later and what fails for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bimix_tracking.credentials import without_credentials
from bimix_tracking.errors import BimixError, SourceError, WaitTimeoutError, did_you_mean, shown
from bimix_tracking.progress import Progress
from bimix_tracking.tracking.ports import RunSource, RunState, open_source

EVERY = 30.0
"""Seconds between two looks at a source: a sweep takes hours, and its tracker has others to serve."""
_WAITING = "waiting for runs to finish"
_MOST_NAMED = 5


def wait_for(
    source: str | RunSource,
    runs: int,
    *,
    sweep: str | None = None,
    timeout: float | None = None,
    every: float = EVERY,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Sequence[RunState]:
    """Return the states of a source's training runs as soon as so many of them are finished.

    A source that isn't there yet, or that cannot be reached for a while, is waited for too; `progress` then gets a
    note, once for each trouble.

    Args:
        source: A URI or an open source.
        runs: How many runs must be finished.
        sweep: Only runs of that sweep count; all of them otherwise.
        timeout: How long to wait, in seconds; for ever otherwise. The source is looked at once at least.
        every: Seconds between two looks.
        progress: Called as (what, finished, runs) after each look, and with notes.
        clock: Tells the time in seconds; one that is set back would wait for ever.
        sleep: Waits so many seconds.

    Raises:
        WaitTimeoutError: Too few have finished in that time; the text names those that haven't.
        BimixError: `runs`, `timeout` or `every` make no sense, or there is no such scheme of sources.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from bimix_tracking.data.manifest import RunManifest
    >>> from bimix_tracking.tracking.ports import open_tracker
    >>> folder = tempfile.mkdtemp()
    >>> for name in ("one", "two"):
    ...     tracker = open_tracker(f"jsonl:{folder}", run_name=name)
    ...     tracker.start(RunManifest(("code", "web")))
    >>> tracker.finish()
    >>> [state.name for state in wait_for(f"jsonl:{folder}", 1) if state.status == "finished"]
    ['two']
    >>> wait_for(f"jsonl:{folder}", 2, timeout=0)
    Traceback (most recent call last):
    bimix_tracking.errors.WaitTimeoutError: 1 of 2 runs had finished after 0 s: running 'one'; nothing has changed ...
    """
    if not (runs >= 1 and every > 0 and (timeout is None or timeout >= 0)):
        raise BimixError(
            f"cannot wait for {runs} runs, looking every {every:g} s for {timeout} s: "
            "there must be at least 1 run, and the times must be positive"
        )
    opened = open_source(source) if isinstance(source, str) else source
    start = changed = clock()
    states: Sequence[RunState] = ()
    noted: set[str] = set()
    trouble: str | None = None

    def note(text: str) -> None:
        if progress and text not in noted:
            noted.add(text)
            progress(text, 1, 1)

    while True:
        try:
            there = opened.states()
        except SourceError as error:
            trouble = str(error)
            note(f"the source cannot be read, looking again every {every:g} s: {trouble}")
        else:
            trouble = None
            for state in there:
                if state.trouble is not None:
                    note(f"run {state.name!r} cannot be read: {without_credentials(state.trouble)}")
            found = [state for state in there if sweep is None or state.sweep == sweep]
            if there and not found:
                others = sorted({str(state.sweep) for state in there if state.sweep is not None})
                note(f"no run of sweep {shown(sweep)} yet; {did_you_mean(sweep, others)}")
            if found != list(states):
                states, changed = found, clock()
            finished, running, failed = (of_status(states, s) for s in ("finished", "running", "failed"))
            if progress:
                progress(_WAITING, min(len(finished), runs), runs)
            if len(finished) >= runs:
                return states
            if len(states) >= runs > len(finished) + len(running):
                note(f"{named('failed', failed)}: {runs} finished runs need others to be started")
        waited = clock() - start
        if timeout is not None and waited >= timeout:
            raise WaitTimeoutError(_overdue(runs, sweep, waited, states, clock() - changed, trouble))
        sleep(every if timeout is None else min(every, timeout - waited))


def of_status(states: Sequence[RunState], status: str) -> list[str]:
    """Return the names of the runs that are in a state.

    >>> of_status([RunState("1", "a", None, "running"), RunState("2", "b", None, "failed")], "failed")
    ['b']
    """
    return [state.name for state in states if state.status == status]


def named(status: str, names: Sequence[str]) -> str:
    """Return runs of a state in words, a few of them by name.

    >>> named("failed", ["a", "b"]), named("running", []), named("running", list("abcdefg"))
    ("failed 'a', 'b'", 'none running', "running 'a', 'b', 'c', 'd', 'e' and 2 more")
    """
    if not names:
        return f"none {status}"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{status} {', '.join(map(repr, names[:_MOST_NAMED]))}{more}"


def _overdue(
    runs: int, sweep: str | None, waited: float, states: Sequence[RunState], unchanged: float, trouble: str | None
) -> str:
    finished = len(of_status(states, "finished"))
    of_sweep = "" if sweep is None else f" of sweep {sweep!r}"
    others = [named(s, of_status(states, s)) for s in ("running", "failed") if of_status(states, s)]
    return (
        f"{finished} of {runs} runs{of_sweep} had finished after {waited:.0f} s: {'; '.join(others) or 'no others'}; "
        f"nothing has changed for {unchanged:.0f} s"
        + (f"; the source could not be read last time: {trouble}" if trouble else "")
        + f". Wait longer (--timeout), look after those runs, or analyse the {finished} finished ones (without --wait)"
    )
