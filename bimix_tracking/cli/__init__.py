"""`bimix …`: a command is a module, and a few calls of the public API."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

from bimix_tracking.cli.analyze import analyze, pull
from bimix_tracking.cli.console import Manner, manner
from bimix_tracking.cli.ending import Debug, Json, Quiet, mannered, run_app
from bimix_tracking.cli.entropy import entropy
from bimix_tracking.cli.export import export
from bimix_tracking.cli.plan import plan
from bimix_tracking.cli.replay import replay
from bimix_tracking.cli.teaching import TeachingCommand, help_of
from bimix_tracking.cli.verify import verify
from bimix_tracking.cli.watch import watch

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
for command in (plan, entropy, analyze, watch, export, verify, pull, replay):
    app.command(cls=TeachingCommand)(mannered(command))


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version  # noqa: PLC0415  # --help must not wait for it

        typer.echo(f"bimix {version('bimix-tracking')}")
        raise typer.Exit


def _manners(
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    r"""Choose the data mixture to pretrain on, from the losses by domain of a sweep of proxy runs.

    \b
    Workflow:
      bimix plan code web books --runs 12 --tokens 1B --out plan
      … train them, with a callback of bimix_integrations.trainers …
      bimix analyze mlflow:my-sweep --tokens 100B --out analysis --write-back
      bimix export analysis/mixture.yaml --format megatron
      bimix verify mlflow:my-sweep big-run --analysis analysis

    \b
    Exit codes:
      0  done                          4  what cannot be read or written
      1  a bug of ours                 5  no mixture can be recommended
      2  wrong usage                   6  an optional dependency is missing
      3  data that cannot be used    130  interrupted

    --json, --quiet and --debug go before the command or after it. Progress and what was excluded go to standard error.
    NO_COLOR turns colours off.
    """
    manner.set(Manner(debug, quiet, as_json))


app.callback(help=help_of(_manners))(_manners)


def main() -> NoReturn:
    """Run the command line."""
    run_app(app)
