"""How help is laid out, options in panels and examples last, and what a shell can complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from typer.core import TyperCommand

AIM = "Target"
CONSTRAINTS = "Constraints"
COSTS = "Costs"
METHOD = "Method"
READING = "Data"
OUTPUT = "Output"
_PANELS = ("Arguments", "Options", AIM, CONSTRAINTS, COSTS, READING, METHOD, OUTPUT)
SOURCES = (
    "mlflow:EXPERIMENT",
    "mlflow+sqlite:///FILE#EXPERIMENT",
    "mlflow+postgresql://HOST/DB#EXPERIMENT",
    "mlflow+file:mlruns#EXPERIMENT",
    "mlflow+http://HOST:PORT#EXPERIMENT",
    "wandb:ENTITY/PROJECT[/sweeps/ID]",
    "wandb-offline:DIR",
    "jsonl:DIR",
    "csv:FILE",
    "lm-eval:DIR",
)
_SCHEME = "abcdefghijklmnopqrstuvwxyz-+:/"
_EXAMPLES = "\b\nExamples:\n"


def help_of(command: Callable[..., None]) -> str:
    """Return a command's help; paragraphs that begin with a backslash and a b keep their lines."""
    return (command.__doc__ or "").replace("\\b\n", "\b\n")


class TeachingCommand(TyperCommand):
    """A command whose help goes from what it does over its options, panel by panel, to the examples.

    It is plain text, without Rich: that takes longer to load than all the rest.
    """

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does, without its examples."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text((self.help or "").partition(_EXAMPLES)[0])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        panels: dict[str, list[tuple[str, str]]] = {panel: [] for panel in _PANELS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                panel = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
                panels[panel].append((record[0], filled(record[1])))
        for panel, records in panels.items():
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, their lines as they are."""
        with formatter.section("Examples"):
            formatter.write((self.help or "").partition(_EXAMPLES)[2].rstrip() + "\n")


def filled(text: str) -> str:
    """Return a help text with what is installed in the place of `{laws}` and `{languages}`, other packages' too.

    >>> filled("Language of the reports: {languages}.")
    'Language of the reports: en or ja.'
    """
    for field, found in (("{laws}", _laws), ("{languages}", _languages)):
        if field in text:
            *first, last = found()
            text = text.replace(field, f"{', '.join(first)} or {last}")
    return text


def laws(incomplete: str) -> list[str]:
    """Complete the name of a law, third parties' too."""
    return _beginning(incomplete, ["auto", *_laws()])


def languages(incomplete: str) -> list[str]:
    """Complete the language of a report, third parties' too."""
    return _beginning(incomplete, _languages())


def _laws() -> list[str]:
    from bimix_tracking.laws.registry import ENSEMBLE, names  # noqa: PLC0415  # only help and a shell wait for it

    return [*names(), ENSEMBLE]


def _languages() -> list[str]:
    from bimix_tracking.report.language import languages as found  # noqa: PLC0415  # likewise

    return list(found())


def trainers(incomplete: str) -> list[tuple[str, str]]:
    """Complete the name of a trainer's format, and say what it is."""
    from bimix_tracking.exports.formats import all_formats  # noqa: PLC0415  # only a shell that completes waits for it

    known = {"list": "show them all"} | {name: form.about.partition(" (")[0] for name, form in all_formats().items()}
    return [(name, known[name]) for name in _beginning(incomplete, known)]


def corpora(incomplete: str) -> list[str]:
    """Complete the name of a format of text."""
    return _beginning(incomplete, _names("formats"))


def sources(incomplete: str) -> list[str]:
    """Complete how the URI of a source begins: ours, and third parties'."""
    ours = [form[: len(form) - len(form.lstrip(_SCHEME))] for form in SOURCES]
    return _beginning(incomplete, [*ours, *(f"{name}:" for name in _names("sources") if f"{name}:" not in ours)])


def trackers(incomplete: str) -> list[str]:
    """Complete how the URI of a tracker begins."""
    return _beginning(incomplete, [f"{name}:" for name in _names("trackers")])


def among(*choices: str) -> Callable[[str], list[str]]:
    """Return what completes one of these."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, choices)

    return complete


def _names(group: str) -> list[str]:
    from importlib.metadata import entry_points  # noqa: PLC0415  # only a shell that completes waits for it

    return sorted({point.name for point in entry_points(group=f"bimix_tracking.{group}")})


def _beginning(incomplete: str, known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith(incomplete)]
