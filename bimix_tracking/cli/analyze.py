"""`bimix analyze` and `bimix pull`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import errors_as_exit_codes, number, print_notes, progress_shown
from bimix_tracking.cli.question import asks, question
from bimix_tracking.cli.source import Filter, Mixtures, Source, Unfinished, opened
from bimix_tracking.errors import BimixError, SourceError

if TYPE_CHECKING:
    from bimix_tracking.analysis_result import Analysis


@asks
def analyze(
    source: Source,
    tokens: Annotated[str, typer.Option(help="Training tokens of the run that will use the mixture, such as 100e9.")],
    asked: dict[str, Any],
    out: Annotated[Path | None, typer.Option(help="Write the artifacts into this folder.")] = None,
    write_back: Annotated[
        bool, typer.Option("--write-back", help="Write the analysis into the source, as a run of its own.")
    ] = False,
    nest: Annotated[
        bool, typer.Option("--nest", help="With --write-back: show the runs under the analysis, where the tracker can.")
    ] = False,
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Analyse runs apart that differ in domains, tokenizer, eval_set, model_size, batch_tokens or sweep."
        ),
    ] = None,
    wait: Annotated[int | None, typer.Option(min=1, help="First wait for so many finished training runs.")] = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="With --wait: give up after so many seconds.")] = None,
) -> None:
    """Read a sweep, fit the laws, recommend a mixture.

    Example: bimix analyze mlflow:my-sweep --tokens 100e9 --out analysis --write-back

    When the sweep is done: bimix analyze mlflow:my-sweep --tokens 100e9 --wait 12 --timeout 86400 --write-back

    With finite data: bimix analyze mlflow:my-sweep --tokens 100e9 --available code=5e9 --available web=200e9
    """
    from bimix_tracking.analysis import analyze as run  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.groups import analyze_groups  # noqa: PLC0415  # likewise
    from bimix_tracking.keys import slug  # noqa: PLC0415  # nor this for NumPy

    target = number(tokens, "--tokens")
    if timeout is not None and wait is None:
        raise typer.BadParameter("it is how long --wait waits", param_hint="--timeout")
    with errors_as_exit_codes():
        with progress_shown() as progress:
            reading = opened(source, filter_, unfinished, mixtures)
            if wait is not None:
                from bimix_tracking.waiting import wait_for  # noqa: PLC0415  # only then

                wait_for(reading, wait, timeout=timeout, progress=progress)
            left = {"out": out, "write_back": write_back, "nest": nest, "progress": progress}
            options = question(**asked) | left
            if group_by is None:
                results: dict[str, Analysis | BimixError] = {"": run(reading, target, **options)}
            else:
                results = analyze_groups(reading, target, by=group_by, **options)
        for group, found in results.items():
            if group_by is not None:
                typer.echo(f"\n{group_by} {group}")
            if isinstance(found, BimixError):
                typer.echo(f"error: {found}", err=True)
                continue
            _print_analysis(found)
            if out is not None:
                typer.echo(f"\nArtifacts: {out if group_by is None else out / slug(group)}")
            if found.location is not None:
                typer.echo(f"Written back: {found.location}")
        failed = [found for found in results.values() if isinstance(found, BimixError)]
        if len(failed) == len(results):
            raise failed[0]


def pull(
    source: Source,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file; `csv:FILE` reads it back.")],
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
) -> None:
    """Pull every finished training run of a source into one table.

    Example: bimix pull mlflow:my-sweep -o sweep.csv
    """
    from bimix_tracking.observations import Observations  # noqa: PLC0415  # --help must not wait for pandas

    with errors_as_exit_codes():
        with progress_shown() as progress:
            obs = Observations.from_source(opened(source, filter_, unfinished, mixtures), progress=progress)
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

    from bimix_tracking.report.content import page  # noqa: PLC0415  # nor for SciPy

    print_notes(found.fit.notes)
    rec, fit, unseen = found.recommendation, found.fit, found.validation
    # In a log file there is no width to fit: a table that wraps there cannot be read.
    console = Console(width=None if sys.stdout.isatty() else 140)
    said = page(found)
    console.print(escape(said.answer), soft_wrap=True, style="bold")
    table = Table(title=f"Mixture for {rec.tokens:.4g} tokens, from {len(found.observations.runs)} runs")
    table.add_column("domain")
    columns = ("recommended", "interval, %", "nearly as good, %", "reference", "tried, %")
    for name in (*columns, "predicted loss", "on reference", "held-out error", "fit"):
        table.add_column(name, justify="left" if name == "fit" else "right")
    for row, domain in zip(said.shares, fit.domains, strict=True):
        fitted = fit.targets.get(domain)
        table.add_row(
            escape(domain),
            f"{rec.mixture[domain]:.4f}",
            row.interval.removesuffix(" %"),
            row.extent.removesuffix(" %"),
            f"{rec.reference[domain]:.4f}",
            row.tried.removesuffix(" %"),
            row.predicted,
            row.on_reference,
            f"{100 * unseen.error[domain]:.2f} %" if unseen and domain in unseen.error else "–",
            fitted.outcome.name.lower().replace("_", " ") if fitted else "no losses",
        )
    console.print(table)
    for text in (said.gain, said.sure, said.free, said.worth, said.noise, *said.constraints):
        if text:
            console.print(escape(text), soft_wrap=True)
    if found.selection is not None:
        console.print(escape(found.selection.sentences()), soft_wrap=True)
    if unseen is not None:
        console.print(escape(unseen.sentences()), soft_wrap=True)
    if found.extrapolation is not None:
        console.print(escape(found.extrapolation.sentences()), soft_wrap=True)
    diagnosed = (str(one) for one in found.diagnostics if one.kind not in ("outcome", "outside"))
    for text in (*rec.warnings, *(f"domain {d!r} {why}" for d, why in rec.held.items()), *diagnosed):
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")
