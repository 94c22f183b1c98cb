"""The options by which an analysis is asked for, the same for every command that makes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bimix_tracking.cli.entries import (
    bounds_by_domain,
    change_of,
    epochs_by_domain,
    guards_of,
    one_of,
    parameters_of,
    probability_of,
    tokens_by_domain,
    tokens_of,
    weights_by_target,
)
from bimix_tracking.cli.source import SIZE_HELP
from bimix_tracking.cli.teaching import AIM, CONSTRAINTS, COSTS, METHOD, OUTPUT, among, languages, laws

_CHANGES = ("tv", "kl")
Lang = Annotated[
    str,
    typer.Option(
        help="Language of the answer and the reports: {languages}.", autocompletion=languages, rich_help_panel=OUTPUT
    ),
]
ModelSize = Annotated[str | None, typer.Option(metavar="PARAMETERS", help=SIZE_HELP, rich_help_panel=AIM)]
MaxEpochs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[DOMAIN=]NUMBER",
        help="With --available: how often a token may be repeated, by all domains or by one; 4 where not given.",
        rich_help_panel=CONSTRAINTS,
    ),
]


def question(
    model_size: ModelSize = None,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=NUMBER",
            help="Weight of a target in its own unit, or of a group of targets, which share it. Repeatable.",
            rich_help_panel=AIM,
        ),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'TARGET<=CHANGE'",
            help="How much worse than on the reference a target, a group or all may get: 'code<=+0.5%', "
            "'mmlu>=-0.5pp', 'all<=+1%'. In quotes, for a shell takes < and > for files. Repeatable.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    guard_probability: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="With --guard: how surely all guards hold together, such as 0.9; else as predicted.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    max_change: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="How far from the reference the mixture may be, such as 10%: the part of the tokens that are others.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = None,
    change: Annotated[
        str,
        typer.Option(
            help="How a change is measured: tv (total variation) or kl (nats of divergence).",
            autocompletion=among(*_CHANGES),
            rich_help_panel=CONSTRAINTS,
        ),
    ] = "tv",
    pareto: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="GROUP GROUP",
            help="Show what one group of targets gains where another loses; one may be rest.",
            rich_help_panel=AIM,
        ),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="auto (chosen by held-out error), {laws}.",
            autocompletion=laws,
            rich_help_panel=METHOD,
        ),
    ] = "auto",
    bound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=LOW:HIGH",
            help="Least and most of a domain, such as code=5%:40%; pinned, as DOMAIN=SHARE. Repeatable.",
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
    reference: Annotated[
        Path | None,
        typer.Option(
            help="mixture.yaml to compare with; else proportional to the available tokens, else equal parts.",
            rich_help_panel=AIM,
        ),
    ] = None,
    prior: Annotated[
        Path | None,
        typer.Option(help="mixture.yaml to stay near; needs --prior-strength.", rich_help_panel=CONSTRAINTS),
    ] = None,
    prior_strength: Annotated[
        float | None,
        typer.Option(
            help="With --prior: nats of weighted loss per nat of divergence from it.", rich_help_panel=CONSTRAINTS
        ),
    ] = None,
    beyond_tried: Annotated[
        bool,
        typer.Option(
            "--beyond-tried",
            help="Also search outside the proportions tried, where no run has checked the law.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = False,
    gpu_hours_per_run: Annotated[
        float | None, typer.Option(help="GPU-hours of one proxy run.", rich_help_panel=COSTS)
    ] = None,
    target_gpu_hours: Annotated[
        float | None, typer.Option(help="GPU-hours of the target run.", rich_help_panel=COSTS)
    ] = None,
    cost_per_gpu_hour: Annotated[
        float | None, typer.Option(help="What a GPU-hour costs; needs GPU-hours.", rich_help_panel=COSTS)
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="Of --cost-per-gpu-hour, such as USD or JPY.", rich_help_panel=COSTS)
    ] = None,
    batch_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="Tokens of one step of the target run, such as 4M.",
            rich_help_panel=COSTS,
        ),
    ] = None,
    replicates: Annotated[
        int,
        typer.Option(
            min=0, help="Replicates of the run-level bootstrap, for the intervals; 0: none.", rich_help_panel=METHOD
        ),
    ] = 200,
    lang: Lang = "en",
) -> dict[str, Any]:
    """Return what was asked as the keyword arguments of `bimix_tracking.analyze`.

    Raises:
        BimixError: A file with no mixture in it, or costs that make no sense.
    """
    from bimix_tracking.analysis.question import AUTO  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.laws.registry import ENSEMBLE, names  # noqa: PLC0415  # nor these for NumPy
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise
    from bimix_tracking.recommendation.constraints import MAX_EPOCHS  # noqa: PLC0415  # likewise
    from bimix_tracking.recommendation.costs import Costs  # noqa: PLC0415  # likewise

    known_lang(lang)
    one_of(law, (AUTO, *names(), ENSEMBLE), "--law", "law")
    if prior_strength is not None and prior is None:
        raise typer.BadParameter("needs --prior", param_hint="--prior-strength")
    if prior is not None and prior_strength is None:
        raise typer.BadParameter("needs --prior-strength, such as 0.1", param_hint="--prior")
    if cost_per_gpu_hour is not None and gpu_hours_per_run is None and target_gpu_hours is None:
        raise typer.BadParameter(
            "needs GPU-hours: --gpu-hours-per-run, --target-gpu-hours or both",
            param_hint="--cost-per-gpu-hour",
        )
    if currency is not None and cost_per_gpu_hour is None:
        raise typer.BadParameter("needs --cost-per-gpu-hour", param_hint="--currency")
    if guard_probability is not None and not guard:
        raise typer.BadParameter("needs --guard", param_hint="--guard-probability")
    if guard_probability is not None and replicates == 0:
        raise typer.BadParameter("needs replicates: drop --replicates 0", param_hint="--guard-probability")
    one_of(change, _CHANGES, "--change", "measure")
    if change != _CHANGES[0] and max_change is None and reference is None:
        raise typer.BadParameter("needs --max-change or --reference", param_hint="--change")
    available_tokens = tokens_by_domain(available)
    batch = None if batch_tokens is None else tokens_of(batch_tokens, "--batch-tokens")
    costs = (gpu_hours_per_run, target_gpu_hours, cost_per_gpu_hour, batch)
    size = None if model_size is None else parameters_of(model_size)
    return ({} if size is None else {"model_size": size}) | {
        "law": law,
        "weights": weights_by_target(weight),
        "bounds": bounds_by_domain(bound),
        "available_tokens": available_tokens,
        "max_epochs": epochs_by_domain(max_epochs, available_tokens, MAX_EPOCHS),
        "guardrails": guards_of(guard),
        "guard_probability": None if guard_probability is None else probability_of(guard_probability),
        "max_change": None if max_change is None else change_of(max_change, change),
        "change": change,
        "pareto": pareto,
        "prior": None if prior is None else Mixture.from_yaml(prior),
        "prior_strength": 0.0 if prior_strength is None else prior_strength,
        "beyond_tried": beyond_tried,
        "reference": None if reference is None else Mixture.from_yaml(reference),
        "costs": Costs(*costs, currency=currency or "") if any(cost is not None for cost in costs) else None,
        "replicates": replicates,
        "lang": lang,
    }


def known_lang(lang: str) -> str:
    """Return the language, which must be one that reports are written in."""
    from bimix_tracking.report.language import languages as known  # noqa: PLC0415  # no other option must wait for it

    return one_of(lang, known(), "--lang", "language")


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `question` in place of its parameter `asked`, which gets them by name."""

    def with_options(**given: Any) -> None:
        asked = {name: given.pop(name) for name in options}
        command(**given, asked=asked)

    options = inspect.signature(question, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    parameters = [p for name, p in own.items() if name != "asked"] + list(options.values())
    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    # Typer reads a command's options from its signature
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have it, once it is set
        [p.replace(kind=p.KEYWORD_ONLY) for p in parameters], return_annotation=None
    )
    return with_options
