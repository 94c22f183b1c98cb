"""Something that decides whether to act on a recommendation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caveat:
    """Something that decides whether to act.

    Args:
        kind: `no_skill`, `rank`, `unranked`, `few_mixtures`, `no_signal`, `guards`, `one_volume`, `later`,
            `extrapolation` or `scale`.
        short: In a few words, as the verdict has it.
        text: One sentence, with its numbers.
        refuses: Whether it alone makes the mixture unusable.
    """

    kind: str
    short: str
    text: str
    refuses: bool = False
