"""`bimix plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bimix_tracking.cli.console import (
    answer,
    bounds_of,
    named_numbers,
    number,
    print_notes,
    print_table,
    progress_shown,
    say,
    talk,
)
from bimix_tracking.cli.source import SOURCE_HELP, Filter, Mixtures, Unfinished, opened
from bimix_tracking.cli.teaching import AIM, CONSTRAINTS, METHOD, OUTPUT, among, sources
from bimix_tracking.errors import SourceError

if TYPE_CHECKING:
    from bimix_tracking.design.follow_up import NextRuns
    from bimix_tracking.design.pilot import Plan
    from bimix_tracking.design.run_files import PlannedRuns
    from bimix_tracking.mixture import Mixture
    from bimix_tracking.tracking.ports import RunSource

_METHODS = ("informative", "space-filling")
_ALPHA = "alpha ±"
_PILOT_ONLY = (
    "--candidate, --method, --repeats and --noise are for a pilot: a sweep that was run says itself what it lacks"
)


def plan(
    domains: Annotated[
        list[str] | None, typer.Argument(metavar="DOMAIN…", help="The domains of a pilot; with --after, none.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="How many runs, repeats included.")] = 8,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help=f"A sweep to add runs to, instead of a pilot: {SOURCE_HELP}.",
            autocompletion=sources,
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(help="Training tokens, such as 2e9: of one pilot run; with --after, of the final run."),
    ] = None,
    available: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=TOKENS",
            help="Distinct tokens a domain has: caps its proportion. Repeatable.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    max_epochs: Annotated[
        float, typer.Option(help="How often an available token may be repeated.", rich_help_panel=CONSTRAINTS)
    ] = 4.0,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=LOW:HIGH",
            help="Least and most of a domain, else 0.02:0.7; or pinned, as DOMAIN=SHARE. Repeatable.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    candidate: Annotated[
        list[Path] | None,
        typer.Option(
            help="mixture.yaml to run for certain, such as the current one. Repeatable.", rich_help_panel=CONSTRAINTS
        ),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            help="Choose among the mixtures of a file: JSON lines with an entry `mixture`, or a .csv with columns "
            "proportion/DOMAIN, as plan.jsonl and plan.csv are. A pilot's DOMAIN… may then be left out.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="informative (the default) or space-filling.",
            autocompletion=among(*_METHODS),
            rich_help_panel=METHOD,
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Runs that repeat the first mixture, to measure noise; 1 from 6 runs on, 0 with --pool.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            help="By how much of itself a run's loss is off by chance; 0.005 if not given.", rich_help_panel=METHOD
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=NUMBER", help="With --after: weight of a domain's loss. Repeatable.", rich_help_panel=AIM
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the choice: the same one gives the same plan.", rich_help_panel=METHOD)
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write plan.jsonl, plan.csv, sweep.yaml (W&B), runs.sh (Slurm or bash), mixtures/*.yaml.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Training command of runs.sh; {mixture} (JSON), {file}, {name}, {index}, {seed} are filled in.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    filter_: Filter = None,
    unfinished: Unfinished = False,
    mixtures: Mixtures = None,
) -> None:
    r"""Propose the mixtures to run, and say what they will tell.

    It says so before one of them is paid for: how well each domain's law will be known, and the best mixture.

    \b
    Examples:
      bimix plan code web books --runs 8 --out plan \
        --command 'python train.py --mixture {mixture}'
      # with finite data, and the mixture in use among the runs
      bimix plan code web --tokens 1e9 --available code=5e7 --candidate current.yaml
      # 8 of the mixtures that there are
      bimix plan --pool mixtures.csv --runs 8
      # more runs for a sweep
      bimix plan --after mlflow:my-sweep --runs 3 --tokens 100e9
    """
    from bimix_tracking.design.run_files import COMMAND, filled  # noqa: PLC0415  # --help must not wait for PyYAML

    volume = None if tokens is None else number(tokens, "--tokens")
    bounds, tokens_of = bounds_of(bound or [], "--bound"), named_numbers(available or [], "--available")
    if tokens_of and volume is None:
        raise typer.BadParameter("caps need the tokens of one run: give --tokens", param_hint="--available")
    try:
        filled(command or COMMAND)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--command") from error
    limits: dict[str, Any] = {"bounds": bounds, "available_tokens": tokens_of, "max_epochs": max_epochs, "seed": seed}
    if pool is not None:
        limits["pool"] = _mixtures_of(pool)
        domains = domains or ([] if after else list(limits["pool"][0]))
    found: PlannedRuns
    if after is not None:
        if domains:
            raise typer.BadParameter(f"{domains} and --after: the domains are the sweep's", param_hint="DOMAIN")
        if candidate or method or repeats is not None or noise is not None:
            raise typer.BadParameter(_PILOT_ONLY, param_hint="--after")
        if volume is None:
            raise typer.BadParameter(
                "the tokens of the run that will use the mixture are needed", param_hint="--tokens"
            )
        weights = named_numbers(weight or [], "--weight")
        reading = opened(after, filter_, unfinished, mixtures)
        found, sentences = _after(reading, runs, volume, weights=weights, **limits)
    else:
        if len(domains or []) < 2:
            raise typer.BadParameter("name at least two domains, or a sweep with --after", param_hint="DOMAIN")
        if method not in (None, *_METHODS):
            raise typer.BadParameter(f"{method!r} is none of {', '.join(_METHODS)}", param_hint="--method")
        if noise is not None and not 0 < noise < 1:
            raise typer.BadParameter(f"{noise:g} is no part of the loss, such as 0.005", param_hint="--noise")
        if filter_ or unfinished or mixtures:
            raise typer.BadParameter("a pilot reads no runs: these come with --after", param_hint="--filter")
        if weight:
            raise typer.BadParameter(
                "a pilot tells every domain's loss; weights come with --after", param_hint="--weight"
            )
        limits |= {"method": method or _METHODS[0], "tokens": volume, "repeats": repeats}
        found, sentences = _pilot(domains or [], runs, candidate or [], noise, **limits)
    if out is not None:
        try:
            found.write(out, command or COMMAND)
        except OSError as error:
            raise SourceError(f"cannot write {out}: {error}") from error
        say(f"\nWritten to {out}: plan.jsonl, plan.csv, sweep.yaml, runs.sh, mixtures/")
    told = [json.loads(line) for line in found.to_jsonl().splitlines()]
    answer({"runs": told, "sentences": sentences, "artifacts": out})


def _mixtures_of(pool: Path) -> list[Mixture]:
    from bimix_tracking.design.pool import read_mixtures  # noqa: PLC0415  # --help must not wait for NumPy

    return read_mixtures(pool)


def _pilot(
    domains: list[str], runs: int, candidates: list[Path], noise: float | None, **options: Any
) -> tuple[Plan, Sequence[str]]:
    from bimix_tracking.design.pilot import NOISE, plan_pilot  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise

    mixtures = []
    for path in candidates:
        try:
            mixtures.append(Mixture.from_yaml(path))
        except OSError as error:
            raise typer.BadParameter(f"cannot read {path}: {error}", param_hint="--candidate") from error
    noise = NOISE if noise is None else noise
    with progress_shown() as progress:
        found = plan_pilot(domains, runs, candidates=mixtures, noise=noise, progress=progress, **options)
    told = found.identifiable(noise)
    _print_mixtures(found, f"{len(found)} pilot runs, {found.method}", told.domains["alpha_error"].to_dict())
    sentences = (*told.sentences(), *found.notes)
    for text in sentences:
        say(text)
    return found, sentences


def _after(source: RunSource, runs: int, tokens: float, **options: Any) -> tuple[NextRuns, Sequence[str]]:
    from bimix_tracking.data.observations import Observations  # noqa: PLC0415  # likewise
    from bimix_tracking.design.follow_up import next_runs  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.selection.law_choice import select_law  # noqa: PLC0415  # likewise

    with progress_shown() as progress:
        obs = Observations.from_source(source, progress=progress)
        fit = select_law(obs, weights=options["weights"], progress=progress).fit
        found = next_runs(obs, fit, runs, tokens=tokens, progress=progress, **options)
    print_notes(fit.notes)
    _print_mixtures(found, f"{len(found)} runs after the {len(obs.runs)} there are, by {fit.law}", {})
    sentences = found.sentences()
    for text in sentences:
        say(text)
    return found, sentences


def _print_mixtures(found: PlannedRuns, title: str, errors: Mapping[Any, float]) -> None:
    # A domain a row: names are long, and there are more domains than a line has room for. As many runs a table as fit.
    names = [f"{name} seed {seed}" if seed else name for name, seed in zip(found.names, found.seeds, strict=True)]
    taken = max(map(len, found.domains)) + len(_ALPHA) + 10
    runs_a_table = max(1, min(10, (talk().width - taken) // (max(map(len, names)) + 3)))
    for first in range(0, len(found), runs_a_table):
        part = range(first, min(first + runs_a_table, len(found)))
        columns: dict[str, Literal["left", "right"]] = {"domain": "left"}
        for heading in (*(names[i] for i in part), *((_ALPHA,) if errors else ())):
            columns[heading] = "right"
        rows = []
        for domain in found.domains:
            error = [f"{errors[domain]:.2g}" if errors[domain] < 1e6 else "–"] if errors else []
            rows.append([domain, *(f"{found.mixtures[i][domain]:.4f}" for i in part), *error])
        print_table(title if not first else None, columns, rows)
