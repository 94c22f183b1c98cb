"""`bimix export`."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from bimix_tracking.cli.console import answer, manner, say
from bimix_tracking.cli.entries import one_of, tokens_of
from bimix_tracking.cli.teaching import trainers
from bimix_tracking.errors import RecommendationWarning, SourceError


def export(
    mixture: Annotated[Path, typer.Argument(metavar="MIXTURE", help="A mixture.yaml, as `analyze --out` leaves it.")],
    fmt: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="The trainer's format; `--format list` shows all.", autocompletion=trainers
        ),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File; standard output if not given.")] = None,
    path: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN=PATH", help="A domain's data path, or data set name. Repeatable."),
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens to note in the file, such as 100B.")] = None,
    accept_warnings: Annotated[
        bool, typer.Option("--accept-warnings", help="Export a mixture that its analysis calls unusable.")
    ] = False,
) -> None:
    r"""Write a mixture in a trainer's format.

    \b
    Examples:
      bimix export analysis/mixture.yaml --format list
      bimix export analysis/mixture.yaml --format megatron \
        --path code=/data/code_text_document --path web=/data/web_text_document
      bimix export analysis/mixture.yaml --format olmo-core -o source_mixture.yaml
    """
    from bimix_tracking import exports  # noqa: PLC0415  # --help must not wait for NumPy
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise

    known = exports.all_formats()
    if fmt == "list":
        for name, form in known.items():
            say(f"{name:14}{form.about}", whole=True)
        answer({"formats": {name: form.about for name, form in known.items()}})
        return
    one_of(fmt, known, "--format", "format")
    budget = None if tokens is None else tokens_of(tokens, "--tokens")
    read = Mixture.from_yaml(mixture)
    _heed(mixture, accept_warnings=accept_warnings)
    provenance = f"{mixture.name}, by bimix export"
    text = exports.export(read, fmt, paths=_paths(path or [], read), tokens=budget, provenance=provenance)
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SourceError(f"cannot write {output}: {error}") from error
    elif not manner.get().as_json:
        typer.echo(text, nl=False)
    answer({"format": fmt, "mixture": dict(read), "text": text, "file": output})


def _heed(mixture: Path, *, accept_warnings: bool) -> None:
    """Say on standard error what the analysis warns of, and refuse a mixture that it calls unusable."""
    from bimix_tracking.mixture import Advice  # noqa: PLC0415  # --help must not wait for NumPy

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RecommendationWarning)
        Advice.from_yaml(mixture).heed(str(mixture), accept_warnings=accept_warnings)
    for each in caught:
        typer.echo(f"Warning: {each.message}", err=True)


def _paths(pairs: Iterable[str], domains: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        # Names and paths may both hold `=`: the longest domain that fits is the one that is meant.
        named = max((domain for domain in domains if pair.startswith(f"{domain}=")), key=len, default="")
        domain, where = (named, pair[len(named) + 1 :]) if named else pair.partition("=")[::2]
        if not domain or not where:
            raise typer.BadParameter(f"{pair!r} is not DOMAIN=PATH", param_hint="--path")
        if domain in found:
            raise typer.BadParameter(
                f"domain {domain!r} has two paths: {found[domain]!r}, {where!r}", param_hint="--path"
            )
        found[domain] = where
    return found
