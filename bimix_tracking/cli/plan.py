"""`bimix plan`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bimix_tracking.cli.console import answer, say
from bimix_tracking.cli.entries import (
    bounds_by_domain,
    epochs_by_domain,
    flops_of,
    one_of,
    parameters_of,
    share_of,
    tokens_by_domain,
    tokens_of,
    weights_by_target,
)
from bimix_tracking.cli.planning.checks import consistent, needed, one_kind, only_with
from bimix_tracking.cli.question import MaxEpochs
from bimix_tracking.cli.source import SOURCE_HELP, Filter, Mixtures, TargetsFile, Unfinished, opened
from bimix_tracking.cli.teaching import AIM, CONSTRAINTS, COSTS, METHOD, OUTPUT, among, sources
from bimix_tracking.errors import SourceError

if TYPE_CHECKING:
    from bimix_tracking.design.run_files import PlannedRuns
    from bimix_tracking.mixture import Mixture

_METHODS = ("informative", "space-filling")
_RUNS, _ANCHORS = 8, 2


def plan(
    domains: Annotated[
        list[str] | None, typer.Argument(metavar="DOMAIN…", help="The domains of a pilot; with --after, none.")
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many runs, repeats included: 8 if not given; with --anchor 2, with --budget-flops 5 a domain.",
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help=f"A sweep to add runs to, instead of a pilot: {SOURCE_HELP}.",
            autocompletion=sources,
        ),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Plan anchor runs at --model-size for this sweep, or for a folder that `analyze --out` left.",
            autocompletion=sources,
        ),
    ] = None,
    budget_flops: Annotated[
        str | None,
        typer.Option(
            metavar="FLOPS",
            help="Size, length and number of proxies that these FLOPs (6 N D) buy, such as 1e20.",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(help="Training tokens, such as 2B: of one pilot run; in all other cases of the target run."),
    ] = None,
    model_size: Annotated[
        str | None,
        typer.Option(
            metavar="PARAMETERS",
            help="With --anchor and --budget-flops: parameters of the target model, such as 7B.",
            rich_help_panel=AIM,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="With --anchor: mixture.yaml in use; else the analysis's, else equal parts.", rich_help_panel=AIM
        ),
    ] = None,
    anchor_part: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="With --anchor: train for this part of the schedule, such as 50%; else as the sweep's curves allow.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    target_gpu_hours: Annotated[
        float | None, typer.Option(help="With --anchor: GPU-hours of the target run.", rich_help_panel=COSTS)
    ] = None,
    smallest_size: Annotated[
        str | None,
        typer.Option(
            metavar="PARAMETERS",
            help="With --budget-flops: no proxy is smaller, such as 50M.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --budget-flops: so many runs train side by side, a GPU each.",
            rich_help_panel=CONSTRAINTS,
        ),
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
            help="With --after and --anchor: weight of a target, or of a group. Repeatable.",
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
      # runs at the target size, after an analysis
      bimix plan --anchor analysis --model-size 7B --tokens 1T
      # what a budget buys
      bimix plan code web books --budget-flops 1e21 --model-size 1B \
        --tokens 20B
    """
    from bimix_tracking.design.run_files import COMMAND, filled  # noqa: PLC0415  # --help must not wait for PyYAML
    from bimix_tracking.recommendation.constraints import MAX_EPOCHS  # noqa: PLC0415  # nor for NumPy

    volume = None if tokens is None else tokens_of(tokens, "--tokens")
    bounds, available_tokens = bounds_by_domain(bound), tokens_by_domain(available)
    epochs, weights = epochs_by_domain(max_epochs, available_tokens, MAX_EPOCHS), weights_by_target(weight)
    size = None if model_size is None else parameters_of(model_size)
    part = None if anchor_part is None else share_of(anchor_part, "--anchor-part")
    smallest = None if smallest_size is None else parameters_of(smallest_size, "--smallest-size")
    budget = None if budget_flops is None else flops_of(budget_flops, "--budget-flops")
    if available_tokens and volume is None and anchor is None:
        raise typer.BadParameter("needs --tokens, those of one run", param_hint="--available")
    if command is not None and out is None:
        raise typer.BadParameter("needs --out: it is written into runs.sh", param_hint="--command")
    try:
        filled(command or COMMAND)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--command") from error
    of_pilot = bool(candidate or method or repeats is not None or noise is not None)
    one_kind(after, anchor, budget, pool)
    consistent(domains or [], after or anchor, pool, of_pilot)
    needed({"--anchor": anchor, "--budget-flops": budget}, size, volume, folder=anchor is not None)
    only_with(
        "--anchor", anchor, {"--reference": reference, "--anchor-part": part, "--target-gpu-hours": target_gpu_hours}
    )
    only_with("--budget-flops", budget, {"--smallest-size": smallest, "--gpus": gpus})
    if after is None and anchor is None and (filter_ or unfinished or mixtures or targets):
        raise typer.BadParameter("needs --after or --anchor: a pilot reads no runs", param_hint="--filter")
    if after is None and anchor is None and weights:
        raise typer.BadParameter("needs --after or --anchor: a pilot weighs all domains alike", param_hint="--weight")
    if after is not None and volume is None:
        raise typer.BadParameter("needs --tokens, those of the target run", param_hint="--after")
    if method is not None:
        one_of(method, _METHODS, "--method", "method")
    if noise is not None and not 0 < noise < 1:
        raise typer.BadParameter(f"{noise:g} is not a part of the loss, such as 0.005", param_hint="--noise")
    limits: dict[str, Any] = {"bounds": bounds, "available_tokens": available_tokens, "max_epochs": epochs}
    found: PlannedRuns | None
    more: dict[str, Any] = {}
    if anchor is not None and size is not None:
        from bimix_tracking.cli.planning.anchor_runs import anchors  # noqa: PLC0415  # only then

        opening = partial(opened, anchor, filter_, unfinished, mixtures, targets=targets, pool_sizes=True)
        present = None if reference is None else _mixture_of(reference)
        found, sentences, more = anchors(
            anchor, opening, number=runs or _ANCHORS, model_size=size, tokens=volume, reference=present, part=part,
            target_gpu_hours=target_gpu_hours, weights=weights, limits=limits,
        )  # fmt: skip
    elif budget is not None:
        from bimix_tracking.cli.planning.budget import proxies  # noqa: PLC0415  # only then

        if method is not None:
            limits["method"] = method
        options, found, sentences = proxies(
            domains or [], budget, planned=out is not None, limits=limits | {"seed": seed}, model_size=size,
            tokens=volume, mixtures=runs, smallest=smallest, gpus=gpus,
        )  # fmt: skip
        more = options.to_dict()
    else:
        limits["seed"] = seed
        if pool is not None:
            limits["pool"] = _mixtures_of(pool)
            domains = domains or ([] if after else list(limits["pool"][0]))
        found, sentences = _sweep(
            domains or [], after, runs or _RUNS, volume, candidate or [], noise,
            None if after is None else opened(after, filter_, unfinished, mixtures, targets=targets),
            limits | ({"weights": weights} if after else {"method": method or _METHODS[0], "repeats": repeats}),
        )  # fmt: skip
    if out is not None and found is not None:
        try:
            found.write(out, command or COMMAND)
        except OSError as error:
            raise SourceError(f"cannot write {out}: {error}") from error
        say(f"\nArtifacts: {out} (plan.jsonl, plan.csv, sweep.yaml, runs.sh, mixtures/)", whole=True)
    told = [] if found is None else [json.loads(line) for line in found.to_jsonl().splitlines()]
    answer({"runs": told, "sentences": sentences, "artifacts": out} | more)


def _sweep(
    domains: list[str],
    after: str | None,
    runs: int,
    tokens: float | None,
    candidates: list[Path],
    noise: float | None,
    source: Any,
    options: dict[str, Any],
) -> tuple[PlannedRuns, Sequence[str]]:
    """Return a pilot, or the runs after a sweep, and what is said of it."""
    from bimix_tracking.cli.planning import sweep  # noqa: PLC0415  # only then

    if after is not None and tokens is not None:
        return sweep.after(source, runs, tokens, **options)
    return sweep.pilot(domains, runs, candidates, noise, tokens=tokens, **options)


def _mixtures_of(pool: Path) -> list[Mixture]:
    from bimix_tracking.design.pool import read_mixtures  # noqa: PLC0415  # --help must not wait for NumPy

    return read_mixtures(pool)


def _mixture_of(path: Path) -> Mixture:
    from bimix_tracking.cli.planning.sweep import mixture_of  # noqa: PLC0415  # --help must not wait for NumPy

    return mixture_of(path, "--reference")
