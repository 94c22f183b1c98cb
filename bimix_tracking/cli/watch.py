"""`bimix watch`."""

from __future__ import annotations

import datetime as dt
import signal
import time
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import answer, manner
from bimix_tracking.cli.entries import tokens_of
from bimix_tracking.cli.question import asks, question
from bimix_tracking.cli.source import TOKENS_HELP, Filter, Mixtures, RunShares, Source, TargetsFile, opened
from bimix_tracking.errors import ObservationsError, SourceError

if TYPE_CHECKING:
    from bimix_tracking.analysis.watching import Event
_EVERY = 30.0
"""Seconds between two looks."""


@asks
def watch(
    source: Source,
    tokens: Annotated[str, typer.Option(help=TOKENS_HELP)],
    asked: dict[str, Any],
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Finished runs that complete a sweep; without it, --settle decides."),
    ] = None,
    settle: Annotated[
        float | None,
        typer.Option(
            min=0, help="Without --runs: seconds without a running run that complete a sweep; 600 if not given."
        ),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 30.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit: for cron.")] = False,
    filter_: Filter = None,
    mixtures: Mixtures = None,
    targets: TargetsFile = None,
    shares: RunShares = "nominal",
) -> None:
    r"""Analyse each sweep when it is complete, and write that back.

    A sweep is complete when --runs of it are finished; without --runs, when none is running, three are finished, and
    the last ended --settle seconds ago. It is analysed once, even if the watch is restarted, and again only if more
    of its runs finish. SIGTERM and Ctrl-C end it.

    With --json, one object a line and event.

    \b
    Examples:
      bimix watch mlflow:my-sweeps --tokens 100B --runs 12 >> watch.log 2>&1 &
      # from cron
      bimix watch mlflow:my-sweeps --tokens 100B --once
    """
    from bimix_tracking.analysis.watching import SETTLE, Watch, analysis_of  # noqa: PLC0415  # --help must not wait for it

    target = tokens_of(tokens, "--tokens")
    if runs is not None and settle is not None:
        raise typer.BadParameter("--runs says when a sweep is complete: give one of the two", param_hint="--settle")
    options = question(**asked)
    reading = opened(
        source,
        filter_,
        unfinished=False,
        mixtures=mixtures,
        shares=shares,
        targets=targets,
        pool_sizes="model_size" in options,
    )
    looking = Watch(
        reading, analysis_of(reading, target, **options), _tell, runs=runs, settle=SETTLE if settle is None else settle
    )
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, _stop)
    try:
        told = looking.look()
        while not once:
            time.sleep(looking.pause(every))
            told = looking.look()
    except _Stopped as stopped:
        _line(f"stopped by {stopped}", "stopped")
        return
    if any(event.bad for event in told):
        kinds = {event.kind for event in told}
        raise (SourceError if "unreachable" in kinds else ObservationsError)("not every sweep could be analysed")


class _Stopped(BaseException):
    """A signal to end: not an error of whatever was being done."""


def _stop(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # who asks again doesn't wait for anything
    raise _Stopped(signal.Signals(number).name)


def _tell(event: Event) -> None:
    _line(event.text, event.kind, err=event.bad)


def _line(text: str, kind: str, *, err: bool = False) -> None:
    now = dt.datetime.now().astimezone().isoformat(timespec="seconds")
    if manner.get().as_json:
        answer({"time": now, "kind": kind, "text": text})
    else:
        typer.echo(f"{now} {text}", err=err)
