"""Which laws can answer a question at all: those that have the effect of every target that counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bimix_tracking.laws.registry import ENSEMBLE
from bimix_tracking.laws.registry import law as find_law
from bimix_tracking.messages import few, said


def unfit(law: str, obs_targets: Collection[str], domains: Collection[str], weight: Mapping[str, float]) -> str:
    """Return why a law is not eligible for a question; an empty text where it is.

    Args:
        law: Its name.
        obs_targets: What losses are of.
        domains: Of the mixtures.
        weight: Of the targets.
    """
    if law == ENSEMBLE:
        return ""
    outside = [t for t, w in weight.items() if w > 0 and t in obs_targets and t not in domains]
    if find_law(law).traits.needs_own and outside:
        return said(
            "it needs a target's own proportion, and targets {targets} have none in the mixtures", targets=few(outside)
        )
    silent = [d for d in domains if d not in obs_targets]
    if find_law(law).traits.own_only and silent:
        return said("it sees only a domain's own proportion, and domains {domains} have no losses", domains=few(silent))
    return ""


def not_evaluated(domains: Sequence[str], of: int) -> str:
    """Return in a line how domains count that were not evaluated, of so many."""
    if len(domains) == of:
        return said("no domain is a target: each counts by its effect on the targets")
    if len(domains) == 1:
        return said("domain {domain!r} was not evaluated: it counts by its effect on targets", domain=domains[0])
    return said("{count} domains were not evaluated: they count by their effect on targets", count=len(domains))
