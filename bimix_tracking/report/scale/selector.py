"""What the mixture explorer computes other model sizes from: each one's schedule and level, as `LawFit.at` has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import Levels
from bimix_tracking.fitting.scale.bridge import PRIOR, Bridge
from bimix_tracking.fitting.scale.size_level import SizeLevel
from bimix_tracking.messages import said
from bimix_tracking.quantities import parameters
from bimix_tracking.report.language import Language


def sizes_content(fit: LawFit, targets: Sequence[str], say: Language) -> dict[str, Any]:
    """Return the model sizes that the explorer can be set to, and the one that it begins with, as JSON types.

    Args:
        fit: The fit, of its reference size.
        targets: Of the explorer.
        say: The page's language.
    """
    bridge = fit.bridge
    sizes = [] if bridge is None else list(_levels(bridge))
    if bridge is None or len(sizes) < 2:
        name = "" if fit.model_size is None else parameters(fit.model_size)
        alone: dict[str, Any] = {
            "name": name,
            "size": None,
            "ratio": 1.0,
            "raised": [[[], []] for _ in targets],
            "note": "",
        }
        return {"sizes": [alone | {"error": [0.0] * len(targets), "runs": 0}], "size": 0, "anchors": [], "prior": PRIOR}
    reference = bridge.of_reference
    return {
        "sizes": [_size(bridge, one, targets, say) for one in sizes],
        "size": [one.size for one in sizes].index(reference.size),
        "anchors": [[one.deviation.get(t, 0.0) for t in targets] for one in bridge.anchors if one.others],
        "prior": PRIOR,
    }


def _levels(bridge: Bridge) -> Iterator[SizeLevel]:
    """Return one level a size, rising, each of its longest schedule."""
    for size in dict.fromkeys(one.size for one in bridge.sizes):
        yield bridge.of(size)


def _size(bridge: Bridge, one: SizeLevel, targets: Sequence[str], say: Language) -> dict[str, Any]:
    levels: list[Levels] = [one.levels.get(target, ()) for target in targets]
    return {
        "name": parameters(one.size),
        "size": one.size,
        "ratio": one.schedule / bridge.of_reference.schedule,
        "raised": [[[at * one.schedule for at, _ in knots], [level for _, level in knots]] for knots in levels],
        "error": [one.error.get(target, 0.0) for target in targets],
        "runs": 0 if one.exact or not one.observed else max(bridge.runs_of(one), 1),
        "note": "" if one.observed else say(said("Extrapolated over model sizes: rough.")),
    }
