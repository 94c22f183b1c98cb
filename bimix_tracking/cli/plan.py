"""`bimix plan`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import (
    Cells,
    answer,
    print_in_tables,
    print_notes,
    progress_shown,
    say,
)
from bimix_tracking.cli.entries import (
    bounds_by_domain,
    epochs_by_domain,
    one_of,
    tokens_by_domain,
    tokens_of,
    weights_by_target,
)
from bimix_tracking.cli.question import MaxEpochs
from bimix_tracking.cli.source import SOURCE_HELP, Filter, Mixtures, TargetsFile, Unfinished, opened
from bimix_tracking.cli.teaching import AIM, CONSTRAINTS, METHOD, OUTPUT, among, sources
from bimix_tracking.errors import SourceError
from bimix_tracking.quantities import MISSING, percent

if TYPE_CHECKING:
    from bimix_tracking.design.follow_up import NextRuns
    from bimix_tracking.design.pilot import Plan
    from bimix_tracking.design.run_files import PlannedRuns
    from bimix_tracking.mixture import Mixture
    from bimix_tracking.tracking.ports import RunSource

_METHODS = ("informative", "space-filling")
_ALPHA = "alpha ±"
_PILOT_ONLY = "--candidate, --method, --repeats and --noise are for a pilot: drop them"


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
        typer.Option(help="Training tokens, such as 2B: of one pilot run; with --after, of the target run."),
    ] = None,
    available: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=TOKENS",
            help="Distinct tokens a domain has, such as code=5B: caps its proportion. Repeatable.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    max_epochs: MaxEpochs = None,
    bound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=LOW:HIGH",
            help="Least and most of a domain, such as code=5%:40%, else 2%:70%; pinned, as DOMAIN=SHARE. Repeatable.",
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
            "proportion/DOMAIN, as plan.jsonl and plan.csv are. A pilot then needs no DOMAIN.",
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
            help="Relative standard deviation of a run's loss between seeds; 0.005 if not given.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=NUMBER",
            help="With --after: weight of a target, or of a group. Repeatable.",
            rich_help_panel=AIM,
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
    targets: TargetsFile = None,
) -> None:
    r"""Propose the mixtures to run, and what can be learned from them.

    Before any run is paid for, it says how well each domain's law will be known, and the best mixture.

    \b
    Examples:
      bimix plan code web books --runs 8 --out plan \
        --command 'python train.py --mixture {mixture}'
      # with finite data, and the mixture in use among the runs
      bimix plan code web --tokens 1B --available code=50M --candidate current.yaml
      # 8 of the mixtures in a file
      bimix plan --pool mixtures.csv --runs 8
      # more runs for a sweep
      bimix plan --after mlflow:my-sweep --runs 3 --tokens 100B
    """
    from bimix_tracking.design.run_files import COMMAND, filled  # noqa: PLC0415  # --help must not wait for PyYAML
    from bimix_tracking.recommendation.constraints import MAX_EPOCHS  # noqa: PLC0415  # nor for NumPy

    volume = None if tokens is None else tokens_of(tokens, "--tokens")
    bounds, available_tokens = bounds_by_domain(bound), tokens_by_domain(available)
    epochs, weights = epochs_by_domain(max_epochs, available_tokens, MAX_EPOCHS), weights_by_target(weight)
    if available_tokens and volume is None:
        raise typer.BadParameter("needs --tokens, those of one run", param_hint="--available")
    if command is not None and out is None:
        raise typer.BadParameter("needs --out: it is written into runs.sh", param_hint="--command")
    try:
        filled(command or COMMAND)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--command") from error
    _consistent(domains or [], after, pool, bool(candidate or method or repeats is not None or noise is not None))
    if after is None and (filter_ or unfinished or mixtures or targets):
        raise typer.BadParameter("needs --after: a pilot reads no runs", param_hint="--filter")
    if after is None and weights:
        raise typer.BadParameter("needs --after: a pilot weighs all domains alike", param_hint="--weight")
    if after is not None and volume is None:
        raise typer.BadParameter("needs --tokens, those of the target run", param_hint="--after")
    if method is not None:
        one_of(method, _METHODS, "--method", "method")
    if noise is not None and not 0 < noise < 1:
        raise typer.BadParameter(f"{noise:g} is not a part of the loss, such as 0.005", param_hint="--noise")
    limits: dict[str, Any] = {
        "bounds": bounds,
        "available_tokens": available_tokens,
        "max_epochs": epochs,
        "seed": seed,
    }
    if pool is not None:
        limits["pool"] = _mixtures_of(pool)
        domains = domains or ([] if after else list(limits["pool"][0]))
    found: PlannedRuns
    if after is not None and volume is not None:
        reading = opened(after, filter_, unfinished, mixtures, targets=targets)
        found, sentences = _after(reading, runs, volume, weights=weights, **limits)
    else:
        limits |= {"method": method or _METHODS[0], "tokens": volume, "repeats": repeats}
        found, sentences = _pilot(domains or [], runs, candidate or [], noise, **limits)
    if out is not None:
        try:
            found.write(out, command or COMMAND)
        except OSError as error:
            raise SourceError(f"cannot write {out}: {error}") from error
        say(f"\nArtifacts: {out} (plan.jsonl, plan.csv, sweep.yaml, runs.sh, mixtures/)", whole=True)
    told = [json.loads(line) for line in found.to_jsonl().splitlines()]
    answer({"runs": told, "sentences": sentences, "artifacts": out})


def _consistent(domains: list[str], after: str | None, pool: Path | None, of_pilot: bool) -> None:
    """Refuse what contradicts itself."""
    if after is not None:
        if domains:
            raise typer.BadParameter(f"{domains} and --after: the domains are the sweep's", param_hint="DOMAIN")
        if of_pilot:
            raise typer.BadParameter(_PILOT_ONLY, param_hint="--after")
    elif len(domains) < 2 and (domains or pool is None):
        raise typer.BadParameter("name at least two domains, or a sweep with --after", param_hint="DOMAIN")


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
    from bimix_tracking.recommendation.recommending import allowed  # noqa: PLC0415  # likewise
    from bimix_tracking.selection.law_choice import select_law  # noqa: PLC0415  # likewise

    with progress_shown() as progress:
        obs = Observations.from_source(source, progress=progress)
        allowed(obs.domains, tokens, **{name: options[name] for name in ("bounds", "available_tokens", "max_epochs")})
        fit = select_law(obs, weights=options["weights"], progress=progress).fit
        found = next_runs(obs, fit, runs, tokens=tokens, progress=progress, **options)
    print_notes(fit.notes)
    _print_mixtures(found, f"{len(found)} runs after the {len(obs.runs)} there are, by {fit.law}", {})
    sentences = found.sentences()
    for text in sentences:
        say(text)
    return found, sentences


def _print_mixtures(found: PlannedRuns, title: str, errors: Mapping[Any, float]) -> None:
    """Print a row a domain, for names are long and runs are many; in as many tables as the width asks for."""
    from bimix_tracking.display.texts import isolated, printable  # noqa: PLC0415  # --help must not wait for SciPy

    names = [f"{name} seed {seed}" if seed else name for name, seed in zip(found.names, found.seeds, strict=True)]
    say(title)
    first: Sequence[Cells] = [(("domain", "left"), [isolated(printable(d)) for d in found.domains])]
    runs: list[Sequence[Cells]] = [
        [((name, "right"), [percent(mixture[domain]) for domain in found.domains])]
        for name, mixture in zip(names, found.mixtures, strict=True)
    ]
    if errors:
        known = [f"{errors[d]:.2g}" if errors[d] < 1e6 else MISSING for d in found.domains]
        runs.append([((_ALPHA, "right"), known)])
    print_in_tables(first, runs)
