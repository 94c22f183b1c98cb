"""Watching a source: each sweep is analysed when it is complete, once, and again only if its finished runs change.

What was analysed is known by the analyses themselves, which are in the source by their keys, so a watch that was
killed goes on where it was. What could not be analysed is remembered as long as the watch lives.

It outlives every exception, of the source, of an analysis and of whoever is told: each part of a look is apart from the
others, and after a look that met trouble it waits longer.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bimix_tracking.credentials import without_credentials
from bimix_tracking.data.manifest import RunRecord
from bimix_tracking.errors import BimixError, ReadOnlyError, SourceError
from bimix_tracking.tracking.ports import RunSource, RunState
from bimix_tracking.tracking.waiting import named, of_status

LONGEST_PAUSE = 600.0
"""Seconds between two looks at most, however long there has been trouble."""
SETTLE = 600.0
"""Seconds without a run going after which a sweep counts as complete: a scheduler starts the next one sooner."""
_LONGEST_TRACE = 5000
FEWEST = 3
"""Runs that a sweep must have before an end of its own is believed: a law needs as many mixtures."""

Analyse = Callable[[Sequence[RunRecord]], str]
"""Analyses the runs of a sweep, unless that has been done, and says in a line what came of it."""
_NOT_OURS = (SourceError, OSError)
"""What is nobody's bug: a source that is away, a disk that is full."""
_Runs = frozenset[tuple[str, float | None]]


@dataclass(frozen=True)
class Event:
    """A thing to tell the team: a line of a log.

    Args:
        kind: What happened; of `failed` and `unreachable`, the text says what to do, of `excluded`, which run it is.
        text: In words.
    """

    kind: Literal["waiting", "analysing", "analysed", "excluded", "failed", "unreachable"]
    text: str

    @property
    def bad(self) -> bool:
        """Whether it is about an error."""
        return self.kind in ("failed", "unreachable")


@dataclass
class Watch:
    """Look at a source again and again.

    Args:
        source: An open source.
        analyse: Called with the records of a sweep that is complete, once for each set of finished runs.
        tell: Called with each event; the same one isn't told twice in a row.
        runs: How many finished runs complete a sweep. Without it, a sweep is complete when none of its runs is going,
            at least three are finished, and the last one ended `settle` seconds ago. A killed run that its tracker
            takes for running holds up its sweep then, and is named.
        settle: In seconds; see `runs`.
        now: Tells the time, in seconds since 1970: ends of runs are told so.

    Raises:
        BimixError: `runs` or `settle` make no sense.

    >>> import tempfile
    >>> from bimix_tracking.data.manifest import RunManifest
    >>> from bimix_tracking.tracking.ports import open_source, open_tracker
    >>> uri = f"jsonl:{tempfile.mkdtemp()}"
    >>> for name in ("one", "two"):
    ...     tracker = open_tracker(uri, run_name=name)
    ...     tracker.start(RunManifest(("code", "web"), sweep="pilot"))
    >>> tracker.finish()
    >>> watch = Watch(open_source(uri), lambda records: "done", lambda event: print(event.text), runs=2)
    >>> _ = watch.look()
    sweep 'pilot': 1 finished, running 'one'; waiting of 2
    """

    source: RunSource
    analyse: Analyse
    tell: Callable[[Event], object]
    runs: int | None = None
    settle: float = SETTLE
    now: Callable[[], float] = time.time
    _tried: dict[str | None, _Runs] = field(default_factory=dict)
    _told: dict[object, Event] = field(default_factory=dict)
    _trouble: str = ""
    _troubled: int = 0
    _seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not ((self.runs is None or self.runs >= 1) and self.settle >= 0):
            raise BimixError(f"a sweep of {self.runs} runs that settles in {self.settle} s cannot be watched for")

    def look(self) -> list[Event]:
        """Look once, analyse each sweep that is complete, and return what was told: errors too, none is raised."""
        told: list[Event] = []
        trouble: Exception | None = None
        try:
            states = self.source.states()
            self._name_broken(states, told)
            sweeps = _by_sweep(state for state in states if state.trouble is None)
            due = [sweep for sweep, of_sweep in sweeps.items() if self._complete(sweep, of_sweep, told)]
            records = self.source.records() if due else ()
            for sweep in due:
                ids = {state.run_id for state in sweeps[sweep]}
                of_sweep = [record for record in records if record.run_id in ids]
                trouble = self._analyse(sweep, sweeps[sweep], of_sweep, told) or trouble
        except Exception as error:  # noqa: BLE001  # a watch that ends in the night analyses nothing
            trouble = error
        self._report(trouble, told)
        self._troubled = 0 if trouble is None else self._troubled + 1
        return told

    def pause(self, every: float) -> float:
        """Return how long to wait until the next look, in seconds: longer with each look in a row that met trouble.

        Args:
            every: Where all is well.
        """
        return max(every, min(every * 2.0 ** min(self._troubled, 20), LONGEST_PAUSE))

    def _report(self, error: Exception | None, told: list[Event]) -> None:
        """Tell what is wrong with the source, unless it is what was wrong before, and when it is well again."""
        event = Event("waiting", "the source can be read and written again")
        trouble = "" if error is None else f"{type(error).__name__}: {error}"
        if isinstance(error, _NOT_OURS):
            event = Event("unreachable", f"the source cannot be read or written: {without_credentials(str(error))}")
        elif error is not None:
            event = Event("failed", f"the source cannot be read, by a bug of bimix-tracking: {_traced(error)}")
        if error is not None:
            told.append(event)
        if trouble != self._trouble and self._say_out(event):
            self._trouble = trouble

    def _name_broken(self, states: Sequence[RunState], told: list[Event]) -> None:
        for state in states:
            if state.trouble is not None:
                text = f"run {state.name!r} is excluded, of whichever sweep it is: it cannot be read: {state.trouble}"
                self._say(("run", state.run_id), Event("excluded", without_credentials(text)), told)

    def _complete(self, sweep: str | None, states: Sequence[RunState], told: list[Event]) -> bool:
        finished, running, failed = (of_status(states, s) for s in ("finished", "running", "failed"))
        if self._tried.get(sweep) == _finished(states):
            return False
        for state in states:  # a tracker may not know when a run ended: then it is when we first saw that it had
            if state.status != "running":
                self._seen.setdefault(state.run_id, self.now())
        if self.runs is not None:
            lacks = f"of {self.runs}" if len(finished) < self.runs else ""
        elif running:
            lacks = (
                "until those end (a killed run may be running for ever at its tracker; --runs N doesn't wait for it)"
            )
        elif len(finished) < FEWEST:
            lacks = f"of at least {FEWEST}"
        else:
            ended = max(self._seen[state.run_id] if state.ended is None else state.ended for state in states)
            lacks = f"to stay so for {self.settle:g} s" if self.now() - ended < self.settle else ""
        if lacks:
            others = "".join(f", {named(*one)}" for one in (("running", running), ("failed", failed)) if one[1])
            self._say(
                sweep, Event("waiting", f"{_name(sweep)}: {len(finished)} finished{others}; waiting {lacks}"), told
            )
        return not lacks

    def _analyse(
        self, sweep: str | None, states: Sequence[RunState], records: Sequence[RunRecord], told: list[Event]
    ) -> Exception | None:
        self._say(sweep, Event("analysing", f"{_name(sweep)}: {len(_finished(states))} finished; analysing"), told)
        try:
            event = Event("analysed", f"{_name(sweep)}: {self.analyse(records)}")
        except ReadOnlyError as error:
            event = Event("failed", f"{_name(sweep)} can be analysed, and not written back: {error}")
        except _NOT_OURS as error:
            return error  # it isn't the sweep's fault: it is tried again
        except BimixError as error:
            event = Event("failed", f"{_name(sweep)} cannot be analysed until its runs change: {error}")
        except Exception as error:  # noqa: BLE001  # one sweep's must not keep the others from their analyses
            event = Event("failed", f"{_name(sweep)} cannot be analysed, by a bug of bimix-tracking: {_traced(error)}")
        self._tried[sweep] = _finished(states)
        self._say(sweep, event, told)
        return None

    def _say(self, of: object, event: Event, told: list[Event]) -> None:
        """Tell an event of a sweep, unless it is the last one that was told of it."""
        if self._told.get(of) != event:
            told.append(event)
            if self._say_out(event):
                self._told[of] = event

    def _say_out(self, event: Event) -> bool:
        """Tell an event, and return whether it was heard: a full disk below the log must not end the watch."""
        try:
            self.tell(event)
        except Exception:  # noqa: BLE001  # whatever it is, there is nobody to tell it to
            return False
        return True


def analysis_of(source: RunSource, tokens: float, **options: Any) -> Analyse:
    """Return a function that analyses runs and writes that into their source, unless it is there already.

    Args:
        source: Where the runs are of.
        tokens: As in `analyze`.
        options: As in `analyze`.

    Raises:
        TypeError: No such option.
    """
    from bimix_tracking.analysis.pipeline import analyze  # noqa: PLC0415  # SciPy isn't for those who only wait
    from bimix_tracking.analysis.question import Question, check_options  # noqa: PLC0415  # likewise
    from bimix_tracking.analysis.reading import pooled  # noqa: PLC0415  # likewise

    check_options(options)

    def analyse(records: Sequence[RunRecord]) -> str:
        obs = pooled(source, records, all_sizes=options.get("model_size") is not None)
        key = Question(tokens=tokens, **options).key(obs)
        if source.find_analysis(key) is not None:
            return f"already analysed (key {key})"
        found = analyze(obs, tokens, write_back=source, **options)
        shares = ", ".join(f"{domain} {share:.4f}" for domain, share in found.recommendation.mixture.items())
        return (
            f"{len(obs.runs)} runs analysed (key {key}): {found.verdict.sentence} Recommended: {shares}; "
            f"{found.location}{_excluded(records)}"
        )

    return analyse


def _excluded(records: Sequence[RunRecord]) -> str:
    broken = [record for record in records if record.exclusions and not record.rows]
    told = "; ".join(f"{record.name!r}: {next(iter(record.exclusions))}" for record in broken[:5])
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    return f"; excluded {told}{more}" if broken else ""


def _traced(error: BaseException) -> str:
    return without_credentials("".join(traceback.format_exception(error))[-_LONGEST_TRACE:])


def _by_sweep(states: Iterable[RunState]) -> Mapping[str | None, list[RunState]]:
    sweeps: dict[str | None, list[RunState]] = {}
    for state in states:
        sweeps.setdefault(state.sweep, []).append(state)
    return sweeps


def _finished(states: Sequence[RunState]) -> _Runs:
    return frozenset((state.run_id, state.ended) for state in states if state.status == "finished")


def _name(sweep: str | None) -> str:
    # repr: a name with a line break in it must not look like a line of ours
    return "runs of no sweep" if sweep is None else f"sweep {sweep!r}"
