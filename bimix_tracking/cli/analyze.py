"""`bimix analyze` and `bimix pull`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bimix_tracking.cli.console import (
    answer,
    number,
    print_notes,
    print_table,
    progress_shown,
    say,
    talk,
)
from bimix_tracking.cli.question import asks, question
from bimix_tracking.cli.source import TOKENS_HELP, Filter, Mixtures, RunShares, Source, Unfinished, opened
from bimix_tracking.cli.teaching import OUTPUT, READING, among
from bimix_tracking.errors import BimixError, SourceError

if TYPE_CHECKING:
    from bimix_tracking.analysis.result import Analysis

_COLUMNS: Mapping[str, Literal["left", "right"]] = {
    "domain": "left",
    "recommended": "right",
    "interval, %": "right",
    "nearly as good, %": "right",
    "reference": "right",
    "tried, %": "right",
    "predicted loss": "right",
    "on reference": "right",
    "held-out error": "right",
    "fit": "left",
}


@asks
def analyze(
    source: Source,
    tokens: Annotated[str, typer.Option(help=TOKENS_HELP)],
    asked: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="Write the artifacts into this folder.", rich_help_panel=OUTPUT)
    ] = None,
    write_back: Annotated[
        bool,
        typer.Option(
            "--write-back", help="Write the analysis into the source, as a run of its own.", rich_help_panel=OUTPUT
        ),
    ] = False,
    nest: Annotated[
        bool,
        typer.Option(
            "--nest",
            help="With --write-back: show the runs under the analysis, where the tracker can.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
    shares: RunShares = "nominal",
    group_by: Annotated[
        str | None,
        typer.Option(
            help="Analyse runs apart that differ in domains, tokenizer, eval_set, model_size, batch_tokens or sweep.",
            autocompletion=among("domains", "tokenizer", "eval_set", "model_size", "batch_tokens", "sweep"),
            rich_help_panel=READING,
        ),
    ] = None,
    wait: Annotated[
        int | None,
        typer.Option(min=1, help="First wait for so many finished training runs.", rich_help_panel=READING),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="With --wait: give up after so many seconds.", rich_help_panel=READING),
    ] = None,
) -> None:
    r"""Read a sweep, fit the laws, recommend a mixture.

    \b
    Examples:
      bimix analyze mlflow:my-sweep --tokens 100e9 --out analysis --write-back
      # with finite data, and against the mixture in use
      bimix analyze csv:sweep.csv --tokens 100e9 --reference current.yaml \
        --available code=5e9 --available web=200e9 --max-epochs 2
      # when the sweep is done
      bimix analyze mlflow:my-sweep --tokens 100e9 --wait 12 --timeout 86400
    """
    from bimix_tracking.analysis.groups import analyze_groups  # noqa: PLC0415  # likewise
    from bimix_tracking.analysis.pipeline import analyze as run  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.data.metric_names import slug  # noqa: PLC0415  # nor this for NumPy

    target = number(tokens, "--tokens")
    if timeout is not None and wait is None:
        raise typer.BadParameter("it is how long --wait waits", param_hint="--timeout")
    with progress_shown() as progress:
        reading = opened(source, filter_, unfinished, mixtures, shares)
        if wait is not None:
            from bimix_tracking.tracking.waiting import wait_for  # noqa: PLC0415  # only then

            wait_for(reading, wait, timeout=timeout, progress=progress)
        left = {"out": out, "write_back": write_back, "nest": nest, "progress": progress}
        options = question(**asked) | left
        if group_by is None:
            results: dict[str, Analysis | BimixError] = {"": run(reading, target, **options)}
        else:
            results = analyze_groups(reading, target, by=group_by, **options)
    for group, found in results.items():
        if group_by is not None:
            say(f"\n{group_by} {group}")
        if isinstance(found, BimixError):
            typer.echo(f"error: {found}", err=True)
            continue
        _print_analysis(found)
        if out is not None:
            say(f"\nArtifacts: {out if group_by is None else out / slug(group)}")
        if found.location is not None:
            say(f"Written back: {found.location}")
    failed = [found for found in results.values() if isinstance(found, BimixError)]
    if len(failed) == len(results):
        raise failed[0]
    folders = {group: None if out is None else out if group_by is None else out / slug(group) for group in results}
    told = {group: _told(found, folders[group]) for group, found in results.items()}
    answer(told[""] if group_by is None else {"by": group_by, "groups": told})


def pull(
    source: Source,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="CSV file; `csv:FILE` reads it back.", rich_help_panel=OUTPUT)
    ],
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
    shares: RunShares = "nominal",
) -> None:
    r"""Pull every finished training run of a source into one table.

    \b
    Examples:
      bimix pull mlflow:my-sweep -o sweep.csv
      bimix pull wandb:team/old-sweep --mixtures mixtures.yaml -o sweep.csv
    """
    from bimix_tracking.data.observations import Observations  # noqa: PLC0415  # --help must not wait for pandas

    with progress_shown() as progress:
        obs = Observations.from_source(opened(source, filter_, unfinished, mixtures, shares), progress=progress)
    try:
        obs.to_csv(output)
    except OSError as error:
        raise SourceError(f"cannot write {output}: {error}") from error
    print_notes(obs.notes)
    say(f"{output}: {len(obs.runs)} runs, {len(obs.targets)} domains, {len(obs.losses)} losses")
    counts = {"runs": len(obs.runs), "domains": list(obs.targets), "losses": len(obs.losses)}
    answer({"file": output, **counts, "notes": [str(note) for note in obs.notes]})


def _told(found: Analysis | BimixError, folder: Path | None) -> dict[str, Any]:
    if isinstance(found, BimixError):
        return {"error": {"kind": type(found).__name__, "message": str(found)}}
    checks = None if found.validation is None else found.validation.to_dict()
    return found.decision() | {
        "law": found.fit.law,
        "runs": len(found.observations.runs),
        "data_hash": found.fit.data_hash,
        "held_out": None if checks is None else {n: v for n, v in checks.items() if n != "predictions"},
        "selection": None if found.selection is None else found.selection.to_dict(),
        "diagnostics": [vars(one) for one in found.diagnostics],
        "notes": [str(note) for note in found.fit.notes],
        "artifacts": folder,
        "written_back": found.location,
    }


def _print_analysis(found: Analysis) -> None:
    from rich.markup import escape  # noqa: PLC0415  # --help must not wait for it

    from bimix_tracking.report.content import page  # noqa: PLC0415  # nor for SciPy

    print_notes(found.fit.notes)
    rec, fit, unseen = found.recommendation, found.fit, found.validation
    console = talk()
    said = page(found)
    console.print(escape(said.answer), soft_wrap=True, style="bold")
    rows = []
    for row, domain in zip(said.shares, fit.domains, strict=False):
        fitted = fit.targets.get(domain)
        cells = (
            domain,
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
        rows.append(cells)
    title = f"Mixture for {rec.tokens:.4g} tokens, from {len(found.observations.runs)} runs"
    print_table(title, _COLUMNS, rows, "fit|held-out error|on reference|nearly as good, %|tried, %|predicted loss")
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
    for text in (*found.warnings, *(f"domain {d!r} {why}" for d, why in rec.held.items()), *diagnosed):
        console.print(f"warning: {escape(text)}", soft_wrap=True, style="yellow")
