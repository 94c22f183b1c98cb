"""How the fit of a target can end, each with what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from bimix_tracking.messages import said


class Outcome(enum.Enum):
    """How a domain's fit ended, the worst last; the text is the remedy."""

    CONVERGED = said("converged")
    NEARLY_CONVERGED = said(
        "the fit stopped within a fifth of a standard error of its optimum. Its predictions can be used; for sharper "
        "parameters evaluate more often or add mixtures"
    )
    NO_FLOOR = said(
        "the loss falls as a power of the tokens, without a floor (C = 0). Far beyond the tokens observed, predictions "
        "are too low. Train a run longer to identify the floor"
    )
    STARTS_DISAGREE = said(
        "no two starts reached the best fit: its parameters are unreliable. Evaluate more often or add mixtures"
    )
    NOT_CONVERGED = said(
        "the fit did not converge, so its parameters are unreliable. Trust its predictions only if its held-out error "
        "is small. Evaluate more often or add mixtures"
    )
    AT_BOUND = said(
        "a parameter is at its bound: the data don't show where the curve bends. Evaluate earlier and later, over at "
        "least a factor of 4 in tokens"
    )
    ALPHA_NOT_POSITIVE = said(
        "the loss doesn't fall as the domain's proportion grows. Add runs with smaller and larger proportions of it. "
        "If that persists, other domains drive its loss, which this law cannot model"
    )
    TOO_FEW_CHECKPOINTS = said(
        "fewer than 3 token counts: no floor is identifiable. Predictions hold only within the tokens observed. "
        "Evaluate at least 3 times per run"
    )
    LOSS_RISES = said(
        "the loss rises along training, which these laws cannot model. Check for divergence, forgetting at a small "
        "proportion, or a metric that isn't a loss, and exclude such runs"
    )
    CONSTANT_LOSS = said(
        "all losses of the domain are equal. Check whether a stale value is logged, and evaluate the domain at every "
        "checkpoint"
    )
    SINGLE_MIXTURE = said(
        "the domain's proportion is the same in all runs, so its effect (alpha) is not identifiable. Add at least one "
        "run with another proportion of it"
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
