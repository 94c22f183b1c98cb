"""Model sizes in the terminal: whose losses are predicted, what their level rests on, and whether ranks carry over."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping

from bimix_tracking.analysis.result import Analysis
from bimix_tracking.cli.console import Column, print_table, say
from bimix_tracking.display.texts import isolated, printable
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import parameters, percent, tokens

_MOST = 6
"""Targets that are listed of those whose rank breaks."""


def title(found: Analysis) -> str:
    """Return the heading of the mixture: what it is for, which runs it comes from, and whose losses stand below."""
    rec, of_run = found.recommendation, found.observations.sizes
    known: dict[str, object] = {"tokens": tokens(rec.tokens), "runs": len(found.observations.runs)}
    if rec.model_size is None:
        return said("Mixture for {tokens} tokens, from {runs} runs", **known)
    counts = [(size, sum(one == size for one in of_run.values())) for size in found.observations.model_sizes]
    parts = [said("{count} of {size}", count=count, size=parameters(size)) for size, count in counts]
    known |= {"size": parameters(rec.model_size), "sizes": joined(parts, ", ")}
    if not parts:
        return said("Mixture for {tokens} tokens at {size} parameters, from {runs} runs of unknown size", **known)
    if _is_known(found):
        return said("Mixture for {tokens} tokens at {size} parameters, from {runs} runs ({sizes})", **known)
    return said(
        "Mixture for {tokens} tokens at {size} parameters, from {runs} runs ({sizes}); losses are those of {level}",
        **known,
        level=parameters(rec.level_size or math.nan),
    )


def _is_known(found: Analysis) -> bool:
    return found.fit.bridge is not None and found.fit.bridge.known


def size_lines(found: Analysis) -> Iterator[str]:
    """Yield what the level rests on and whether ranks hold, where no caveat says it."""
    bridge, asked = found.fit.bridge, found.recommendation.model_size
    if asked is not None and bridge is not None and bridge.known and not bridge.rough:
        yield _level(bridge, asked)
    if found.ranks is not None and not any(str(found.ranks.sentence) in str(text) for text in found.warnings):
        yield found.ranks.sentence


def _level(bridge: Bridge, asked: float) -> str:
    size, anchors, level = parameters(asked), len(bridge.anchors), bridge.of_reference
    if not anchors or level.in_law:
        return said(
            "Levels at {size}: of the {runs} runs there, which have {mixtures} mixtures.",
            size=parameters(bridge.reference),
            runs=len(level.runs),
            mixtures=level.mixtures,
        )
    if anchors == 1:
        return said("Levels at {size}: of one anchor run, which no other checks.", size=size)
    error = _mean(value for anchor in bridge.anchors for value in anchor.error.values())
    if math.isnan(error):
        return said("Levels at {size}: of {anchors} anchor runs.", size=size, anchors=anchors)
    return said(
        "Levels at {size}: of {anchors} anchor runs; by the others' level, each is missed by {error}.",
        size=size,
        anchors=anchors,
        error=percent(error),
    )


def next_command(found: Analysis) -> Iterator[str]:
    """Yield the command that proposes anchor runs, where the level is unknown or rough."""
    bridge, asked, source = found.fit.bridge, found.recommendation.model_size, found.observations.source
    if asked is None or (bridge is not None and bridge.known and not bridge.rough):
        return
    yield said(
        "Next: bimix plan --anchor {source} --model-size {size} --tokens {tokens}",
        source="analysis" if source == "memory" else shlex.quote(printable(source)),
        size=parameters(asked),
        tokens=str(tokens(found.recommendation.tokens)),
    )


def notes_of(found: Analysis) -> Iterator[str]:
    """Yield what is to be known of runs that are not in the law, where no caveat says it."""
    bridge = found.fit.bridge
    told = {str(text) for text in found.warnings}
    yield from (note for note in (() if bridge is None else bridge.notes) if str(note) not in told)


def print_broken(found: Analysis) -> None:
    """Print the targets whose rank breaks between sizes, if there are such."""
    ranks = found.ranks
    if ranks is None or not ranks.breaking:
        return
    say()
    say(said("Targets whose rank breaks between sizes: {count}", count=len(ranks.breaking)))
    columns: list[Column] = [(heading, "right" if place else "left") for place, heading in enumerate(ranks.head())]
    shown = [row for row in ranks.rows() if row[0] in ranks.breaking and row[-1]]
    print_table(columns[:-1], [[isolated(printable(row[0])), *row[1:-1]] for row in shown[:_MOST]])


def facts(found: Analysis) -> Mapping[str, object]:
    """Return what JSON has of model sizes beside the decision: levels and anchors, and ranks."""
    bridge = found.fit.bridge
    return {
        "bridge": None if bridge is None else bridge.to_dict(),
        "ranks": None if found.ranks is None else found.ranks.to_dict(),
    }


def _mean(errors: Iterable[float]) -> float:
    known = [abs(error) for error in errors if math.isfinite(error)]
    return sum(known) / len(known) if known else math.nan
