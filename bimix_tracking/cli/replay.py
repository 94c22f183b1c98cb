"""`bimix replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bimix_tracking.cli.console import answer, progress_shown, say
from bimix_tracking.cli.teaching import trackers
from bimix_tracking.errors import SourceError


def replay(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A spool, or one journal in it; by default BIMIX_SPOOL, else ./bimix-spool."),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(
            help="Send to this URI, not to the one in the journal (which is without credentials).",
            autocompletion=trackers,
        ),
    ] = None,
) -> None:
    r"""Send the rows that a tracker missed during training.

    \b
    Examples:
      bimix replay
      # to a server that needs credentials, or has moved
      bimix replay bimix-spool --tracker mlflow+http://mlflow.internal:5000#sweep
    """
    from bimix_tracking.recording.replaying import replay as send  # noqa: PLC0415  # likewise
    from bimix_tracking.recording.spool import journals as found_in  # noqa: PLC0415  # --help must not wait for it
    from bimix_tracking.recording.spool import spool  # noqa: PLC0415  # likewise

    place = directory or spool()
    sent = []
    with progress_shown() as progress:
        count = len(found_in(Path(place)))
        for one in send(place, tracker=tracker):
            sent.append(one)
            progress("sending journals", len(sent), count)
    for one in sent:
        if one.error is None:
            say(str(one), whole=True)
        else:
            typer.echo(str(one), err=True)
    kept = sum(one.error is not None for one in sent)
    if not kept:
        answer({"journals": [vars(one) for one in sent]})
    else:
        raise SourceError(f"{kept} journals are still there; run the command again when the tracker is back")
