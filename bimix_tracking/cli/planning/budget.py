"""`bimix plan --budget-flops`: what a budget of compute buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bimix_tracking.cli.console import Cells, print_in_tables, progress_shown, say
from bimix_tracking.cli.planning.sweep import print_mixtures
from bimix_tracking.quantities import flops, parameters

if TYPE_CHECKING:
    from bimix_tracking.design.options import Option
    from bimix_tracking.design.pilot import Plan
    from bimix_tracking.design.proxies import ProxyPlan


def proxies(
    domains: list[str], budget: float, *, planned: bool, limits: dict[str, Any], **asked: Any
) -> tuple[ProxyPlan, Plan | None, Sequence[str]]:
    """Return what a budget buys, the sweep of the advised option and what is said of it, and print all of it.

    Args:
        domains: Their names.
        budget: FLOPs.
        planned: Whether the mixtures of the sweep are planned too.
        limits: Of them, as `plan_pilot` has them.
        **asked: As `plan_proxies` has it.
    """
    from bimix_tracking.design.proxies import plan_proxies  # noqa: PLC0415  # --help must not wait for NumPy

    found = plan_proxies(domains, budget, **asked)
    table = found.to_frame().reset_index()
    say(f"What {flops(budget)} FLOPs buy")
    columns = [str(column) for column in table]
    first: Sequence[Cells] = [((columns[0], "left"), table[columns[0]].tolist())]
    print_in_tables(first, [[((column, "left"), table[column].tolist())] for column in columns[1:]])
    sentences = found.sentences()
    for text in sentences:
        say(text)
    advised = found.advised
    say(f"Advised: {advised.name}.")
    if not planned:
        return found, None, sentences
    sweep = _sweep(domains, advised, limits)
    print_mixtures(sweep, f"{len(sweep)} runs of the option {advised.name!r}", {})
    if advised.anchors is not None:
        say("Plan the anchors once the sweep is analysed: bimix plan --anchor.")
    return found, sweep, sentences


def _sweep(domains: list[str], option: Option, limits: dict[str, Any]) -> Plan:
    """Return the runs of an option: its mixtures, and the first of them again at each further size."""
    from bimix_tracking.design.pilot import plan_pilot  # noqa: PLC0415  # --help must not wait for SciPy
    from bimix_tracking.design.run_files import RunScale  # noqa: PLC0415  # likewise

    smallest, *larger = option.proxies
    with progress_shown() as progress:
        plan = plan_pilot(domains, smallest.runs, tokens=smallest.tokens, progress=progress, **limits)
    each = [(runs, place) for runs in (smallest, *larger) for place in range(runs.runs)]
    return replace(
        plan,
        names=tuple(
            f"{plan.names[at]}-{parameters(runs.model_size)}" if larger else plan.names[at] for runs, at in each
        ),
        mixtures=tuple(plan.mixtures[at] for _, at in each),
        seeds=tuple(plan.seeds[at] for _, at in each),
        scales=tuple(RunScale(runs.model_size, runs.tokens, runs.tokens) for runs, _ in each),
    )
