"""Runs of a sweep: a pilot, and those that make a decision surest after one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from bimix_tracking.cli.console import Cells, print_in_tables, print_notes, progress_shown, say
from bimix_tracking.quantities import MISSING, percent

if TYPE_CHECKING:
    from bimix_tracking.design.follow_up import NextRuns
    from bimix_tracking.design.pilot import Plan
    from bimix_tracking.design.run_files import PlannedRuns
    from bimix_tracking.mixture import Mixture
    from bimix_tracking.tracking.ports import RunSource

_ALPHA = "alpha ±"


def pilot(
    domains: list[str], runs: int, candidates: list[Path], noise: float | None, **options: Any
) -> tuple[Plan, Sequence[str]]:
    """Return a pilot and what is said of it, and print both."""
    from bimix_tracking.design.pilot import NOISE, plan_pilot  # noqa: PLC0415  # --help must not wait for SciPy

    mixtures = [mixture_of(path, "--candidate") for path in candidates]
    noise = NOISE if noise is None else noise
    with progress_shown() as progress:
        found = plan_pilot(domains, runs, candidates=mixtures, noise=noise, progress=progress, **options)
    told = found.identifiable(noise)
    print_mixtures(found, f"{len(found)} pilot runs, {found.method}", told.domains["alpha_error"].to_dict())
    sentences = (*told.sentences(), *found.notes)
    for text in sentences:
        say(text)
    return found, sentences


def after(source: RunSource, runs: int, tokens: float, **options: Any) -> tuple[NextRuns, Sequence[str]]:
    """Return the next runs of a sweep and what is said of them, and print both."""
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
    print_mixtures(found, f"{len(found)} runs after the {len(obs.runs)} there are, by {fit.law}", {})
    sentences = found.sentences()
    for text in sentences:
        say(text)
    return found, sentences


def mixture_of(path: Path, option: str) -> Mixture:
    """Return the mixture of a file that an option names."""
    from bimix_tracking.mixture import Mixture  # noqa: PLC0415  # --help must not wait for NumPy

    try:
        return Mixture.from_yaml(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error}", param_hint=option) from error


def print_mixtures(found: PlannedRuns, title: str, errors: Mapping[Any, float]) -> None:
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
