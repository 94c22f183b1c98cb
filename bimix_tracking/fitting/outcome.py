"""How the fit of a target can end, each with what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from bimix_tracking.messages import said


class Outcome(enum.Enum):
    """How a domain's fit ended, the worst last; the text is the remedy."""

    CONVERGED = said("converged")
    NEARLY_CONVERGED = said(
        "the fit stopped a little before its end, by less than a fifth of its parameters' standard errors. Its "
        "predictions can be used; to pin the parameters down, evaluate more often or add mixtures"
    )
    NO_FLOOR = said(
        "the loss still falls like a power of the tokens, with no floor in sight (C = 0). Within the tokens observed "
        "that is fine; far beyond them the predictions are too low. Train a run longer to see the floor"
    )
    STARTS_DISAGREE = said(
        "no two starts reached the best fit: its parameters may be chance. Evaluate more often or add mixtures"
    )
    NOT_CONVERGED = said(
        "the fit stopped before its end, so its parameters may be off. Its predictions count as far as its held-out "
        "error is small; to pin it down, evaluate more often or add mixtures"
    )
    AT_BOUND = said(
        "a parameter is at its bound: the data don't show where the curve bends. Evaluate earlier and later in "
        "training, over at least a factor of 4 in tokens"
    )
    ALPHA_NOT_POSITIVE = said(
        "the loss doesn't fall when the domain's proportion grows. Add runs with a smaller and a larger "
        "proportion of it; if it stays so, other domains teach it and this law cannot see that"
    )
    TOO_FEW_CHECKPOINTS = said(
        "fewer than 3 token counts: no floor can be told from the curve. Predictions hold only within the token counts "
        "observed; evaluate at least 3 times a run"
    )
    LOSS_RISES = said(
        "the loss rises along training, which no law of this kind does. Has training diverged, is the domain "
        "forgotten for want of a share, or is something else logged as a loss? Look at such runs and set them aside"
    )
    CONSTANT_LOSS = said(
        "all losses of the domain are one number. Is a stale value logged again and again? Evaluate the domain anew at "
        "every checkpoint"
    )
    SINGLE_MIXTURE = said(
        "the domain's proportion is the same in all runs, so alpha is not identifiable and the effect of the mixture "
        "is unknown. Add at least one run with another proportion of it"
    )
    TOO_FEW_POINTS = said("fewer losses than parameters. Evaluate more often, or add runs")

    @property
    def usable(self) -> bool:
        """Whether the fit predicts the effect of the domain's proportion."""
        return self not in (Outcome.SINGLE_MIXTURE, Outcome.TOO_FEW_POINTS, Outcome.CONSTANT_LOSS)

    @property
    def remedy(self) -> str:
        """What to do about it."""
        remedy: str = self.value
        return remedy

    @classmethod
    def worst(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """Return the most doubtful of several, `CONVERGED` of none.

        >>> Outcome.worst([Outcome.NO_FLOOR, Outcome.TOO_FEW_CHECKPOINTS]).name
        'TOO_FEW_CHECKPOINTS'
        """
        return max(outcomes, key=list(cls).index, default=cls.CONVERGED)
