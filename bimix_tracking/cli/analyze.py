"""`bimix analyze` and `bimix pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bimix_tracking.cli.console import Source, errors_as_exit_codes, named_numbers, number, print_notes, progress_shown
from bimix_tracking.errors import SourceError

if TYPE_CHECKING:
    from bimix_tracking.analysis import Analysis


def analyze(
    source: Source,
    tokens: Annotated[str, typer.Option(help="Training tokens of the run that will use the mixture, such as 100e9.")],
    out: Annotated[Path | None, typer.Option(help="Write the artifacts into this folder.")] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(help="Weight of a domain's loss, as DOMAIN=NUMBER; 1 where not given. Repeatable."),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="auto (which predicts left-out mixtures best), bimix, transfer, additive, exponential or ensemble."
        ),
    ] = "auto",
    write_back: Annotated[
        bool, typer.Option("--write-back", help="Write the analysis into the source, as a run of its own.")
    ] = False,
) -> None:
    """Read a sweep, fit the laws, recommend a mixture.

    Example: bimix analyze mlflow:my-sweep --tokens 100e9 --out analysis --write-back
    """
    from bimix_tracking.analysis import AUTO  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.analysis import analyze as run  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.laws import ENSEMBLE  # noqa: PLC0415  # nor these for NumPy
    from bimix_tracking.laws import law as find_law  # noqa: PLC0415  # likewise

    target, weights = number(tokens, "--tokens"), named_numbers(weight or [], "--weight")
    if law not in (AUTO, ENSEMBLE):
        try:
            find_law(law)
        except ValueError as error:
            raise typer.BadParameter(f"{error}, {AUTO}", param_hint="--law") from error
    with errors_as_exit_codes():
        with progress_shown() as progress:
            found = run(source, target, law=law, weights=weights, out=out, write_back=write_back, progress=progress)
        _print_analysis(found)
        if out is not None:
            typer.echo(f"\nArtifacts: {out}")
        if found.location is not None:
            typer.echo(f"Written back: {found.location}")


def pull(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file; `csv:FILE` reads it back.")],
) -> None:
    """Pull every finished training run of a source into one table.

    Example: bimix pull mlflow:my-sweep -o sweep.csv
    """
    from bimix_tracking.observations import Observations  # noqa: PLC0415  # --help must not wait for pandas

    with errors_as_exit_codes():
        with progress_shown() as progress:
            obs = Observations.from_source(source, progress=progress)
        try:
            obs.to_csv(output)
        except OSError as error:
            raise SourceError(f"cannot write {output}: {error}") from error
        print_notes(obs.notes)
        typer.echo(f"{output}: {len(obs.runs)} runs, {len(obs.targets)} domains, {len(obs.losses)} losses")


def _print_analysis(found: Analysis) -> None:
    from rich.console import Console  # noqa: PLC0415  # --help must not wait for it
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    print_notes(found.fit.notes)
    rec, fit, unseen = found.recommendation, found.fit, found.validation
    # In a log file there is no width to fit: a table that wraps there cannot be read.
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=f"Mixture for {rec.tokens:.4g} tokens, from {len(found.observations.runs)} runs")
    table.add_column("domain")
    for name in (
        "recommended",
        "reference",
        "tried",
        "predicted loss",
        "on reference",
        "held-out error",
        "fit",
    ):
        table.add_column(name, justify="left" if name == "fit" else "right")
    for domain in fit.domains:
        fitted = fit.targets[domain]
        table.add_row(
            escape(domain),
            f"{rec.mixture[domain]:.4f}",
            f"{rec.reference[domain]:.4f}",
            f"{fitted.shares[0]:.3f}–{fitted.shares[1]:.3f}",
            f"{rec.predicted[domain]:.4f}",
            f"{rec.reference_predicted[domain]:.4f}",
            f"{100 * unseen.error[domain]:.2f} %" if unseen and domain in unseen.error else "–",
            fitted.outcome.name.lower().replace("_", " "),
        )
    console.print(table)
    console.print(
        f"Predicted gain over the reference: {rec.gain:.4f} nats, all domains together, as weighted. "
        + escape(found.noise()),
        soft_wrap=True,
    )
    if found.selection is not None:
        console.print(escape(found.selection.sentences()), soft_wrap=True)
    if unseen is not None:
        console.print(escape(unseen.sentences()), soft_wrap=True)
    if found.extrapolation is not None:
        console.print(escape(found.extrapolation.sentences()), soft_wrap=True)
    diagnosed = (str(one) for one in found.diagnostics if one.kind not in ("outcome", "outside"))
    for text in (*rec.warnings, *(f"domain {d!r} {why}" for d, why in rec.held.items()), *diagnosed):
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")
