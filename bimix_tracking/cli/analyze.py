"""`bimix analyze` and `bimix pull`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import answer, print_notes, progress_shown, say, speak
from bimix_tracking.cli.entries import one_of, tokens_of
from bimix_tracking.cli.question import asks, question
from bimix_tracking.cli.source import TOKENS_HELP, Filter, Mixtures, RunShares, Source, TargetsFile, Unfinished, opened
from bimix_tracking.cli.teaching import OUTPUT, READING, among
from bimix_tracking.errors import BimixError, SourceError
from bimix_tracking.messages import said
from bimix_tracking.quantities import parameters

if TYPE_CHECKING:
    from bimix_tracking.analysis.result import Analysis
    from bimix_tracking.data.observations import Observations

_GROUPS = ("domains", "tokenizer", "eval_set", "model_size", "batch_tokens", "sweep")


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
            help="With --write-back: nest the runs under the analysis, where the tracker can.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
    targets: TargetsFile = None,
    shares: RunShares = "nominal",
    group_by: Annotated[
        str | None,
        typer.Option(
            help=f"Analyse runs apart by one of {', '.join(_GROUPS)}.",
            autocompletion=among(*_GROUPS),
            rich_help_panel=READING,
        ),
    ] = None,
    wait: Annotated[
        int | None,
        typer.Option(min=1, help="First wait for this many finished training runs.", rich_help_panel=READING),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="With --wait: give up after this many seconds.", rich_help_panel=READING),
    ] = None,
) -> None:
    r"""Read a sweep, fit the laws, recommend a mixture.

    \b
    Examples:
      bimix analyze mlflow:my-sweep --tokens 100B --out analysis --write-back
      # with finite data, and against the mixture in use
      bimix analyze csv:sweep.csv --tokens 100B --reference current.yaml \
        --available code=5B --available web=200B --max-epochs 2
      # judged by benchmarks, none of which may get much worse; guards in quotes
      bimix analyze csv:sweep.csv --tokens 100B --targets targets.yaml \
        --reference current.yaml --guard 'code<=+0.5%' --guard 'mmlu>=-0.5pp' \
        --guard-probability 0.9 --max-change 10%
      # runs of several sizes, one of them at the large model's
      bimix analyze mlflow:my-sweep --tokens 100B --model-size 7B
      # when the sweep is done
      bimix analyze mlflow:my-sweep --tokens 100B --wait 12 --timeout 86400
    """
    from bimix_tracking.analysis.groups import analyze_groups  # noqa: PLC0415  # likewise
    from bimix_tracking.analysis.pipeline import analyze as run  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.cli.summary import print_analysis  # noqa: PLC0415  # likewise
    from bimix_tracking.data.metric_names import slug  # noqa: PLC0415  # nor this for NumPy

    target = tokens_of(tokens, "--tokens")
    if timeout is not None and wait is None:
        raise typer.BadParameter("needs --wait", param_hint="--timeout")
    if nest and not write_back:
        raise typer.BadParameter("needs --write-back", param_hint="--nest")
    if group_by is not None:
        one_of(group_by, _GROUPS, "--group-by", "field")
    if group_by == "model_size" and asked["model_size"] is not None:
        raise typer.BadParameter("analyses sizes apart: give it without --model-size", param_hint="--group-by")
    options = question(**asked)
    speak(options["lang"])
    sizes = "model_size" in options
    with progress_shown() as progress:
        reading = opened(source, filter_, unfinished, mixtures, shares, targets, pool_sizes=sizes)
        if wait is not None:
            from bimix_tracking.tracking.waiting import wait_for  # noqa: PLC0415  # only then

            wait_for(reading, wait, timeout=timeout, progress=progress)
        options |= {"out": out, "write_back": write_back, "nest": nest, "progress": progress}
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
        print_analysis(found)
        if out is not None:
            say(said("Artifacts: {where}", where=out if group_by is None else out / slug(group)), whole=True)
        if found.location is not None:
            say(said("Written back: {where}", where=found.location), whole=True)
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
    targets: TargetsFile = None,
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
        obs = Observations.from_source(
            opened(source, filter_, unfinished, mixtures, shares, targets, pool_sizes=True), progress=progress
        )
    try:
        obs.to_csv(output)
    except OSError as error:
        raise SourceError(f"cannot write {output}: {error}") from error
    print_notes(obs.notes)
    sizes = f"{len(obs.runs)} runs, {len(obs.domains)} domains, {len(obs.targets)} targets, {len(obs.losses)} values"
    say(f"{output}: {sizes}{_of_sizes(obs)}", whole=True)
    counts = {"runs": len(obs.runs), "domains": list(obs.domains), "targets": list(obs.targets)}
    counts["losses"] = len(obs.losses)  # as it has always been called
    counts["model_sizes"] = list(obs.model_sizes)
    answer({"file": output, **counts, "notes": [str(note) for note in obs.notes]})


def _of_sizes(obs: Observations) -> str:
    """Return how many runs are of which model size, where there are several."""
    if not obs.several_sizes:
        return ""
    counts = Counter(obs.sizes.values())
    return "; " + ", ".join(f"{counts[size]} of {parameters(size)} parameters" for size in obs.model_sizes)


def _told(found: Analysis | BimixError, folder: Path | None) -> dict[str, Any]:
    if isinstance(found, BimixError):
        return {"error": {"kind": type(found).__name__, "message": str(found)}}
    from bimix_tracking.cli.summary import facts  # noqa: PLC0415  # --help must not wait for it

    checks = None if found.validation is None else found.validation.to_dict()
    return (
        found.decision()
        | dict(facts(found))
        | {
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
    )
