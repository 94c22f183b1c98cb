"""What decides about a mixture for another model size: ranks, levels, and anchor runs."""

from __future__ import annotations

from collections.abc import Iterator

from bimix_tracking.data.model_sizes import nearest
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import about, count, parameters, percent
from bimix_tracking.recommendation.caveats.caveat import Caveat
from bimix_tracking.selection.rank_transfer import RankTransfer
from bimix_tracking.selection.size_ranks import Transfer

_WHOLE = 0.95
"""Anchors that end before this part of their schedule don't give the level at its end."""
KIND = "scale"


def scale_caveats(fit: LawFit, ranks: RankTransfer | None) -> Iterator[Caveat]:
    """Yield what decides about a recommendation for a model size, the most serious first; nothing without sizes.

    Args:
        fit: The fit that was optimised.
        ranks: Whether ranks hold between the sizes; None where runs have one size.
    """
    bridge = fit.bridge
    if ranks is not None:
        yield from _ranks(ranks)
    if bridge is None:
        return
    if bridge.contradict:
        yield Caveat(KIND, said("anchor runs contradict one another"), _sentence(bridge.contradict))
    if bridge.asked is not None:
        yield from _level(bridge, bridge.asked, one_size=len(bridge.observed) < 2)
    if bridge.far:
        yield Caveat(KIND, said("an anchor run is far outside the sweep"), _sentence(bridge.far))


def _ranks(ranks: RankTransfer) -> Iterator[Caveat]:
    verdict = ranks.verdict
    broken = said("Targets whose rank breaks between sizes: {targets}.", targets=few(ranks.breaking))
    text = joined([ranks.sentence, broken if ranks.breaking else ""])
    if verdict is Transfer.FAILS:
        remedy = said("Analyse the larger size alone: `--group-by model_size`.")
        yield Caveat(KIND, said("ranks do not carry over between model sizes"), joined([text, remedy]), refuses=True)
    elif verdict is Transfer.DOUBTFUL:
        yield Caveat(KIND, said("ranks between model sizes are doubtful"), text)
    # Two anchors that are predicted from one another are evidence too.
    elif verdict is Transfer.UNKNOWN and ranks.anchors is None:
        yield Caveat(KIND, said("ranks between model sizes not checked"), text)
    elif ranks.breaking:
        yield Caveat(KIND, said("some targets' ranks break between model sizes"), broken)


def _level(bridge: Bridge, asked: float, *, one_size: bool) -> Iterator[Caveat]:
    known = {"asked": parameters(asked), "largest": parameters(bridge.observed[-1])}
    observed = nearest(asked, bridge.observed)
    if observed is not None:
        reached = bridge.of(observed).reached
        if reached < _WHOLE:
            known |= {"size": parameters(observed), "reached": about(reached)}
            yield Caveat(
                KIND,
                said("runs at {size} end at {reached} of their schedule", **known),
                said("Runs at {size} end at {reached} of their schedule: beyond it, their level is extended.", **known),
            )
        return
    known |= {"times": count(asked / bridge.observed[-1])}
    if not bridge.known:
        known |= {"size": parameters(bridge.reference)}
        yield Caveat(
            KIND,
            said("losses are those of {size}", **known),
            joined(
                [
                    said("{asked} is {times}× the largest size observed, and no run has it.", **known),
                    said("Losses, gain and saving are those of {size}: one anchor run would give the level.", **known),
                    said("With runs of one size, whether ranks carry over is not checked.") if one_size else "",
                ]
            ),
        )
        return
    left_out = bridge.left_out
    known |= {"sizes": str(len(bridge.observed)), "error": percent(float("nan") if left_out is None else left_out.mean)}
    yield Caveat(
        KIND,
        said("levels at {asked} are extrapolated", **known),
        joined(
            [
                said("Levels at {asked}, {times}× the largest size observed, are extrapolated from {sizes} sizes.", **known),
                said("With {largest} held out, its levels are predicted with an error of {error}.", **known),
            ]
        ),
    )


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else said("{text}.", text=text)
