"""The section on model sizes as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from bimix_tracking.messages import joined, said
from bimix_tracking.report.scale.section import Scale


class Setter(Protocol):
    """Sets a table in the page's language."""

    def __call__(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
        """Return the table."""


def scale_markdown(scale: Scale, text: Callable[[str], str], table: Setter) -> str:
    """Return the section, in the order of the HTML report.

    Args:
        scale: What it says.
        text: Says a sentence in the page's language and escapes it.
        table: Sets a table likewise.
    """
    heads = [said("target"), said("predicted"), said("90 % interval"), said("reference"), said("change")]
    parts = [
        f"## {text(said('From small models to large ones'))}",
        text(scale.whose),
        "\n".join(f"- {text(doubt)}" for doubt in scale.doubts),
        text(scale.compute),
        f"### {text(said('Predicted on the recommended mixture: {subject}', subject=scale.subject))}",
        table(heads, [(one.target, one.predicted, one.interval, one.reference, one.change) for one in scale.forecasts]),
    ]
    if scale.ranks:
        heads = [said("model sizes"), said("mixtures"), said("rank correlation"), said("90 % interval")]
        parts += [f"### {text(said('Whether ranks carry over'))}", text(scale.ranks)]
        parts.append(table([*heads, said("targets that break rank")], scale.pairs))
    if scale.changes:
        title = said("Levels: loss at {size} at the end of training", size=scale.size)
        anchors = [said("anchor runs' held-out error, %")] if scale.anchors else []
        rows = [(one.target, *one.changes, *([one.anchors] if anchors else [])) for one in scale.levels]
        notes = joined([said("±: standard deviation of the level."), *scale.notes])
        parts += [f"### {text(title)}", table([said("target"), *scale.changes, *anchors], rows), text(notes)]
    if scale.anchors:
        heads = [said("run"), said("tokens"), said("of its schedule"), said("held-out error, %"), said("largest")]
        parts += [
            f"### {text(said('Anchor runs'))}",
            table(heads, [(one.run, one.tokens, one.progress, one.error, one.worst) for one in scale.anchors]),
        ]
    if scale.sizes:
        heads = [said("model size"), said("runs"), said("mixtures"), said("schedule, tokens"), said("reached")]
        parts += [
            f"### {text(said('Model sizes'))}",
            table(
                [*heads, said("used for")],
                [(one.size, one.runs, one.mixtures, one.tokens, one.reached, one.role) for one in scale.sizes],
            ),
        ]
    return "\n\n".join(part for part in parts if part)
