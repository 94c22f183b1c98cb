"""`bimix replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bimix_tracking.cli.console import errors_as_exit_codes
from bimix_tracking.errors import SourceError


def replay(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A spool, or one journal in it; by default BIMIX_SPOOL, else ./bimix-spool."),
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="Send to this URI, not to the one in the journal (which is without credentials).")
    ] = None,
) -> None:
    """Send rows that a tracker didn't take while a run was training.

    Example: bimix replay bimix-spool
    """
    from bimix_tracking.journal import spool  # noqa: PLC0415  # --help must not wait for it
    from bimix_tracking.replaying import replay as send  # noqa: PLC0415  # likewise

    with errors_as_exit_codes():
        kept = 0
        for one in send(directory or spool(), tracker=tracker):
            kept += one.error is not None
            typer.echo(str(one), err=one.error is not None)
        if kept:
            raise SourceError(f"{kept} journals are still there; run the command again when the tracker is back")
