"""The options by which an analysis is asked for, the same for every command that makes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bimix_tracking.cli.console import bounds_of, named_numbers
from bimix_tracking.cli.teaching import AIM, CONSTRAINTS, COSTS, METHOD, OUTPUT, languages, laws

Lang = Annotated[
    str,
    typer.Option(help="Language of the reports: {languages}.", autocompletion=languages, rich_help_panel=OUTPUT),
]


def question(
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=NUMBER",
            help="Weight of a domain's loss; 1 where not given. Repeatable.",
            rich_help_panel=AIM,
        ),
    ] = None,
    law: Annotated[
        str,
        typer.Option(
            help="auto (which predicts left-out mixtures best), {laws}.",
            autocompletion=laws,
            rich_help_panel=METHOD,
        ),
    ] = "auto",
    bound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN=LOW:HIGH",
            help="Least and most of a domain; or pinned, as DOMAIN=SHARE. Repeatable.",
            rich_help_panel=CONSTRAINTS,
        ),
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
        float,
        typer.Option(help="Nats of weighted loss per nat of divergence from the prior.", rich_help_panel=CONSTRAINTS),
    ] = 0.0,
    beyond_tried: Annotated[
        bool,
        typer.Option(
            "--beyond-tried",
            help="Seek the mixture outside the proportions tried too, where no run has checked the law.",
            rich_help_panel=CONSTRAINTS,
        ),
    ] = False,
    gpu_hours_per_run: Annotated[
        float | None, typer.Option(help="GPU-hours of one proxy run.", rich_help_panel=COSTS)
    ] = None,
    target_gpu_hours: Annotated[
        float | None, typer.Option(help="GPU-hours of the run that will use the mixture.", rich_help_panel=COSTS)
    ] = None,
    cost_per_gpu_hour: Annotated[float | None, typer.Option(help="In any currency.", rich_help_panel=COSTS)] = None,
    batch_tokens: Annotated[
        float | None,
        typer.Option(help="Tokens of one step of the run that will use the mixture.", rich_help_panel=COSTS),
    ] = None,
    replicates: Annotated[
        int,
        typer.Option(min=0, help="Refits that tell how sure the recommendation is; 0: none.", rich_help_panel=METHOD),
    ] = 200,
    lang: Lang = "en",
) -> dict[str, Any]:
    """Return what was asked as the keyword arguments of `bimix_tracking.analyze`.

    Raises:
        BimixError: A file with no mixture in it, or costs that make no sense.
    """
    from bimix_tracking.analysis.question import AUTO  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.laws.registry import ENSEMBLE  # noqa: PLC0415  # nor these for NumPy
    from bimix_tracking.laws.registry import law as find_law  # noqa: PLC0415  # likewise
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # likewise
    from bimix_tracking.recommendation.costs import Costs  # noqa: PLC0415  # likewise

    if law not in (AUTO, ENSEMBLE):
        try:
            find_law(law)
        except ValueError as error:
            raise typer.BadParameter(f"{error}, {AUTO}", param_hint="--law") from error
    told = (gpu_hours_per_run, target_gpu_hours, cost_per_gpu_hour, batch_tokens)
    return {
        "law": law,
        "weights": named_numbers(weight or [], "--weight"),
        "bounds": bounds_of(bound or [], "--bound"),
        "available_tokens": named_numbers(available or [], "--available"),
        "max_epochs": max_epochs,
        "prior": None if prior is None else Mixture.from_yaml(prior),
        "prior_strength": prior_strength,
        "beyond_tried": beyond_tried,
        "reference": None if reference is None else Mixture.from_yaml(reference),
        "costs": Costs(*told) if any(cost is not None for cost in told) else None,
        "replicates": replicates,
        "lang": known_lang(lang),
    }


def known_lang(lang: str) -> str:
    """Return the language, which must be one that reports are written in."""
    from bimix_tracking.report.language import Language  # noqa: PLC0415  # no other option must wait for it

    try:
        Language(lang)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lang") from error
    return lang


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
