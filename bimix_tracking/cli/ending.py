"""How the commands end: their exit codes, a line for a mistake, its traceback only where that was asked for."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NoReturn

import typer

from bimix_tracking.cli.console import answer, manner
from bimix_tracking.cli.remedies import BAD_DATA, MISSING, NO_ACCESS, remedy_of
from bimix_tracking.cli.teaching import OUTPUT, help_of
from bimix_tracking.credentials import remember, without_credentials
from bimix_tracking.errors import BimixError, MissingDependencyError, RecommendationError, SourceError, clipped

_EXIT_CODES = {SourceError: NO_ACCESS, RecommendationError: 5, MissingDependencyError: MISSING}
_BUG, _INTERRUPTED, _PIPE_CLOSED = 1, 130, 141
_USAGE: Any = typer.BadParameter.__mro__[1]
"""Every error of usage: Typer doesn't export their base."""

OPTIONS = {
    "(token_dtype)": "(--token-dtype)",
    "give the file's encoding, or skip what cannot be read": (
        "give the file's encoding (--encoding), or skip what cannot be read (--skip-bad)"
    ),
    "give the file's format if it is another": "give the file's format (--format) if it is another",
    "must be allowed a positive number of epochs": "must be allowed a positive number of epochs (--max-epochs)",
    ", or model_size=7e9": "",
    ", or obs.only(…)": "",
    "pass accept_warnings=True": "pass --accept-warnings",
    ". Use Mixture.normalized(...) for weights of any sum": "; divide each by their sum",
    ". For other names use Observations.from_wide": "; rename its columns",
}
"""What the package says to who calls it from Python, and how the same is said on the command line."""

Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the result as one JSON object on standard output, and everything else on standard error.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="No progress, and no list of what was excluded.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", envvar="BIMIX_DEBUG", help="Show tracebacks of errors.", rich_help_panel=OUTPUT),
]
MANNERS: Mapping[str, Any] = {"as_json": Json, "quiet": Quiet, "debug": Debug}
"""Options that are taken before the command and after it: parameter → how Typer knows it."""
RENAMED = {"--price-per-gpu-hour": "--cost-per-gpu-hour"}
"""Options of earlier versions, and what they are called now."""


def heed(*, as_json: bool, quiet: bool, debug: bool) -> None:
    """Note how the command is to talk; what was asked for before the command holds after it."""
    asked = manner.get()
    asked.as_json, asked.quiet, asked.debug = asked.as_json or as_json, asked.quiet or quiet, asked.debug or debug


def mannered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of how it talks, and the way that all of them end."""

    def run(**given: Any) -> None:
        heed(**{name: given.pop(name, False) for name in MANNERS})
        asked = manner.get()
        asked.answers = sys.stdout
        # Where JSON is wanted, what libraries print (MLflow: links to its pages) must not get between it
        aside = contextlib.redirect_stdout(sys.stderr) if asked.as_json else contextlib.nullcontext()
        with _errors_as_exit_codes(), aside:
            command(**given)
            sys.stdout.flush()  # here, where it is known what to do if nobody reads any more

    own = inspect.signature(command, eval_str=True).parameters.values()
    manners = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in MANNERS.items()
    ]
    run.__name__, run.__doc__ = command.__name__, help_of(command)
    # Typer reads a command's options from its signature
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have it, once it is set
        [*(p.replace(kind=p.KEYWORD_ONLY) for p in own), *manners], return_annotation=None
    )
    return run


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command line; what is wrong in how it was called is told as all errors are."""
    for word in sys.argv[1:]:
        for given in (word, word.partition("=")[2]):  # --tracker=URI
            remember(given)
    try:
        code = app(standalone_mode=False)
    except _USAGE as error:
        error.message = without_credentials(_meant(error) or error.message)
        # Typer found it before any option was read, so what is wanted must be seen in the words themselves
        heed(as_json="--json" in sys.argv, quiet=False, debug="--debug" in sys.argv)
        _show_traceback(error)
        error.show()
        _told(error, error.format_message(), error.exit_code)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:  # before or after the command itself, which has its own manners
        _show_traceback(error)
        typer.echo("interrupted", err=True)
        code = _INTERRUPTED
    sys.exit(code)


def _meant(error: Any) -> str:
    """Return what an unknown option is called now, or the nearest one; nothing for other errors."""
    name, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    error.possibilities = None  # said here, in the words of the other errors
    if name in RENAMED:
        return f"No such option: {name}. It is now {RENAMED[name]}"
    return f"No such option: {name}. Did you mean {near[0]}?" if near else ""


@contextlib.contextmanager
def _errors_as_exit_codes() -> Iterator[None]:
    """Print a user's mistake as one line, its traceback only under --debug; a bug of ours says that it is one."""
    try:
        yield
    except BimixError as error:
        code = next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), BAD_DATA)
        _fail(error, in_options(str(error)), code)
    except BrokenPipeError as error:
        # Who reads has enough (`bimix … | head`): nothing to complain of, nor to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_PIPE_CLOSED) from error
    except KeyboardInterrupt as error:
        _fail(error, "interrupted", _INTERRUPTED)
    except (typer.Exit, _USAGE):
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, its user gets a line and not a page
        remedy = remedy_of(error)
        if remedy is not None:
            _fail(error, remedy.text, remedy.code)
        said = clipped(f"{type(error).__name__}: {error}", 300)
        _fail(error, f"{said}. This is a bug of bimix: please report it with what `bimix --debug …` prints", _BUG)


def _show_traceback(error: BaseException) -> None:
    if manner.get().debug:
        typer.echo(without_credentials("".join(traceback.format_exception(error))), err=True, nl=False)


def _fail(error: BaseException, said: str, code: int) -> NoReturn:
    said = without_credentials(said)
    _show_traceback(error)
    typer.echo(said if isinstance(error, KeyboardInterrupt) else f"error: {said}", err=True)
    _told(error, said, code)
    raise typer.Exit(code) from error


def _told(error: BaseException, said: str, code: int) -> None:
    answer({"error": {"kind": type(error).__name__, "message": said, "exit_code": code}})


def in_options(said: str) -> str:
    """Return a message with the command's options in place of Python's names.

    >>> in_options("give it, such as uint16 (token_dtype)")
    'give it, such as uint16 (--token-dtype)'
    """
    for python, here in OPTIONS.items():
        said = said.replace(python, here)
    return said
