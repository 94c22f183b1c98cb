"""Levels as printed: what a larger model gains by target, from which runs that is known, and how well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking.display.texts import isolated, printable, shorten
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.fitting.scale.size_level import Anchor, SizeLevel
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, about, parameters, percent, tokens

SHORT = 0.98
"""An anchor run that reached less of its schedule was cut short: its level at the end comes from its curve."""


@dataclass(frozen=True)
class LevelRow:
    """One target: how its loss differs between sizes, as printed.

    Args:
        target: Its name.
        changes: Loss at the reference size against each other size, with its standard deviation.
        anchors: Held-out error of the anchor runs.
    """

    target: str
    changes: tuple[str, ...]
    anchors: str


@dataclass(frozen=True)
class SizeRow:
    """One model size, as printed."""

    size: str
    runs: str
    mixtures: str
    tokens: str
    reached: str
    role: str


@dataclass(frozen=True)
class AnchorRow:
    """One anchor run, as printed; `doubtful` where its mixture is far outside the sweep."""

    run: str
    tokens: str
    progress: str
    error: str
    worst: str
    doubtful: bool


def others(bridge: Bridge) -> list[SizeLevel]:
    """Return the sizes that have a level to the reference, the smallest first."""
    return [one for one in bridge.sizes if one is not bridge.of_reference]


def level_rows(bridge: Bridge, replicates: Replicates | None, losses: Mapping[str, float]) -> Iterator[LevelRow]:
    """Return what the reference size gains over each other size at the end of training, a row a target.

    Args:
        bridge: The bridge.
        replicates: Of the fit, for the error of a run about the law; None: levels are without their error.
        losses: By target the law's own loss, nats: of the recommended mixture, say.
    """
    sizes = others(bridge)
    for target, loss in losses.items() if sizes else ():
        yield LevelRow(
            printable(target),
            tuple(_change(one, target, _deviation(bridge, one, target, replicates, loss)) for one in sizes),
            percent(_spread([anchor.error.get(target, math.nan) for anchor in bridge.anchors])),
        )


def changes(bridge: Bridge) -> Iterator[str]:
    """Return the heads of these columns; a size with several schedules has their lengths beside it."""
    found = others(bridge)
    sizes = [bridge.reference, *(one.size for one in found)]
    for one in found:
        size = parameters(one.size)
        if sizes.count(one.size) > 1:
            yield said("against {size} ({tokens} tokens), %", size=size, tokens=tokens(one.schedule))
        else:
            yield said("against {size}, %", size=size)


def _change(one: SizeLevel, target: str, deviation: float) -> str:
    """Return the loss at the reference size against this one, e^−δ − 1 in percent, of δ at the end of a run."""
    factor = math.exp(-one.at_end(target))
    text = _signed_percent(factor - 1)
    return f"{text} ± {100 * factor * deviation:.2f}" if math.isfinite(deviation) else text


def _deviation(bridge: Bridge, one: SizeLevel, target: str, replicates: Replicates | None, loss: float) -> float:
    """Return the standard deviation of a size's level to the reference's, log loss; NaN where it is unknown."""
    form = None if replicates is None else replicates.form({target: 1.0})
    if form is None:
        return math.nan
    variances = (bridge.variance(size, {target: loss}, form.of_proxy) for size in (one.size, bridge.reference))
    return math.sqrt(sum(variances)) / loss


def _signed_percent(change: float) -> str:
    text = f"{100 * change:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text


def _spread(errors: Sequence[float]) -> float:
    """Return the mean absolute error of those that are known; NaN of none."""
    known = [abs(error) for error in errors if math.isfinite(error)]
    return float(np.mean(known)) if known else math.nan


def size_rows(bridge: Bridge) -> Iterator[SizeRow]:
    """Return the sizes, the smallest first, with what each is for."""
    anchors = {anchor.run for anchor in bridge.anchors}
    for one in sorted(bridge.sizes, key=lambda size: size.size):
        if not one.observed:
            role = said("level extrapolated")
        elif one.in_law:
            role = said("law and level")
        else:
            role = said("anchor runs") if anchors & set(one.runs) else said("level only")
        yield SizeRow(
            parameters(one.size),
            str(len(one.runs)) if one.observed else MISSING,
            str(one.mixtures) if one.observed else MISSING,
            tokens(one.schedule),
            about(min(one.reached, 1.0)) if one.observed else MISSING,
            role,
        )


def anchor_rows(bridge: Bridge) -> Iterator[AnchorRow]:
    """Return the anchor runs with what the other anchors predict of them."""
    for anchor in bridge.anchors:
        known = {target: error for target, error in anchor.error.items() if math.isfinite(error)}
        worst = max(known, key=lambda target: abs(known[target]), default=None)
        yield AnchorRow(
            printable(anchor.run),
            tokens(anchor.tokens),
            about(min(anchor.progress, 1.0)),
            percent(_spread(list(known.values()))),
            MISSING if worst is None else _named_error(worst, known[worst]),
            anchor.far,
        )


def _named_error(target: str, error: float) -> str:
    name = isolated(shorten(printable(target), 24))
    return said("{target} {error} %", target=name, error=_signed_percent(math.expm1(error)))


def whose(bridge: Bridge) -> str:
    """Return whose losses all figures are, and what their level rests on; of an unknown level that it is."""
    size = parameters(bridge.reference)
    asked = size if bridge.asked is None else parameters(bridge.asked)
    mine = bridge.of_reference
    if not bridge.known:
        return joined(
            [
                unknown(bridge),
                said("All losses are those of the {size} model at the end of its runs.", size=size)
                if len(bridge.observed) > 1
                else said("All losses are those of the {size} model.", size=size),
                said("The recommended mixture stands as far as ranks carry over."),
            ]
        )
    if bridge.rough:
        return joined(
            [
                said(
                    "Losses at {asked} are rough: without an anchor run, levels are extrapolated from {sizes} sizes.",
                    asked=asked,
                    sizes=len(bridge.observed),
                ),
                _left_out(bridge),
            ]
        )
    if mine.in_law:
        return said(
            "All losses are those of the {size} model; {mixtures} mixtures were trained at that size.",
            size=size,
            mixtures=mine.mixtures,
        )
    if len(bridge.anchors) == 1:
        return said("All losses are those of the {size} model; its level comes from one anchor run.", size=size)
    return said(
        "All losses are those of the {size} model; its level comes from {anchors} anchor runs.",
        size=size,
        anchors=len(bridge.anchors),
    )


def unknown(bridge: Bridge) -> str:
    """Return that the level at the size asked for is unknown, and why."""
    asked = bridge.reference if bridge.asked is None else bridge.asked
    return said(
        "The loss at {asked} is unknown: no anchor run there, and fewer than three model sizes.",
        asked=parameters(asked),
    )


def _left_out(bridge: Bridge) -> str:
    found = bridge.left_out
    if found is None:
        return ""
    return said("With the largest size held out, such levels have an error of {error}.", error=percent(found.mean))


def doubts(bridge: Bridge) -> Iterator[str]:
    """Return what makes levels weak, a sentence each: contradicting, lone, far and short anchor runs."""
    if bridge.contradict:
        yield _ended(bridge.contradict)
    if len(bridge.anchors) == 1:
        yield said("One anchor run cannot be checked against another; a second one would.")
    if bridge.far:
        yield _ended(bridge.far)
    short = sorted((one for one in bridge.anchors if one.progress < SHORT), key=lambda one: one.progress)
    if len(short) > 1:
        yield said(
            "{short} of {anchors} anchor runs end early, from {progress} of their schedule on; to the end their level "
            "is extended along the law's fall.",
            short=len(short),
            anchors=len(bridge.anchors),
            progress=about(short[0].progress),
        )
    elif short:
        yield _short(short[0])


def _ended(text: str) -> str:
    return text if text.endswith((".", "?")) else said("{facts}.", facts=text)


def _short(anchor: Anchor) -> str:
    return said(
        "Anchor run {run} reached {progress} of its schedule; to the end its level is extended along the law's fall.",
        run=repr(printable(anchor.run)),
        progress=about(anchor.progress),
    )


def notes(bridge: Bridge, *, schedules: bool) -> tuple[str, ...]:
    """Return how the curves of sizes are laid beside each other, and what was noted on the way.

    Args:
        bridge: The bridge.
        schedules: Whether all runs say how long their schedule is.
    """
    if bridge.axis == "tokens":
        lined_up = [said("Curves of sizes are lined up by tokens.")]
    else:
        lined_up = [said("Curves of sizes are lined up by progress, the part of each run's schedule.")]
        if not schedules:
            lined_up.append(said("Where a run doesn't say its schedule, that ends with the run's last losses."))
    return (*lined_up, *map(_ended, bridge.notes))
