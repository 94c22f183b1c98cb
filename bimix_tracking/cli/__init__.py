"""`bimix …`: thin; every command is a few calls of the public API, and a room of its own.

Exit codes: 0 done; 1 a bug of ours; 2 wrong usage; 3 data that cannot be used; 4 a source that cannot be read or
written; 5 a fit from which nothing can be recommended; 6 an optional dependency is missing.
"""

from __future__ import annotations

import typer

from bimix_tracking.cli.analyze import analyze, pull
from bimix_tracking.cli.entropy import entropy
from bimix_tracking.cli.export import export
from bimix_tracking.cli.plan import plan
from bimix_tracking.cli.replay import replay
from bimix_tracking.cli.verify import verify
from bimix_tracking.cli.watch import watch

app = typer.Typer(
    help="Fit a mixture law to a sweep's losses by domain, and recommend the data mixture to pretrain on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (plan, entropy, analyze, pull, verify, export, replay, watch):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
