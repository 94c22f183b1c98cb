"""MkDocs hook: the page of the command line, made from the Typer application when the site is built."""

from __future__ import annotations

import html
import re
from typing import Any

import typer

from bimix_tracking.cli import app
from bimix_tracking.cli.teaching import filled

MARKER = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the commands where a page has the marker."""
    return markdown.replace(MARKER, reference()) if MARKER in markdown else markdown


def reference() -> str:
    """Return Markdown of all commands: what they say of themselves, their arguments and options."""
    group: Any = typer.main.get_command(app)  # Typer gives no type that has `commands`
    parts = ["## bimix", _prose(group.help), _table([p for p in group.params if "completion" not in p.name])]
    for name, command in group.commands.items():
        parts += [f"## bimix {name}", _prose(command.help), _table(command.params)]
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """Return a help text's paragraphs; those that keep their lines (after a backspace) as blocks."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        kept = part.startswith("\b\n")
        parts.append(f"```text\n{part.removeprefix(chr(8)).strip(chr(10))}\n```" if kept else part.replace("\n", " "))
    return "\n\n".join(parts)


def _table(parameters: list[Any]) -> str:
    rows = ["| option | meaning | default, variable |", "|---|---|---|"]
    for parameter in parameters:
        argument = parameter.param_type_name == "argument"
        name = (parameter.metavar or parameter.name.upper()) if argument else ", ".join(parameter.opts)
        default = parameter.default
        plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        said = "required" if parameter.required else f"`{default}`" if plain else ""
        if parameter.envvar:
            said += f" `{parameter.envvar}`"
        # A pipe would end the cell, a tag would be one, and asterisks would be emphasis
        text = html.escape(filled(parameter.help or ""), quote=False).replace("|", "&#124;").replace("*", "&#42;")
        rows.append(f"| `{name}` | {text} | {said.strip()} |")
    return "\n".join(rows)
