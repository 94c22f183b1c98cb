"""From a fit to a mixture: the team's constraints, where a law may be used, the optimum on the simplex, how certain it
is, and what it saves.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.recommendation.caveats.caveat import Caveat as Caveat
    from bimix_tracking.recommendation.constraints import Constraints as Constraints
    from bimix_tracking.recommendation.constraints import constrain as constrain
    from bimix_tracking.recommendation.costs import Costs as Costs
    from bimix_tracking.recommendation.guards import Guard as Guard
    from bimix_tracking.recommendation.guards import GuardResult as GuardResult
    from bimix_tracking.recommendation.guards import parse_guard as parse_guard
    from bimix_tracking.recommendation.investment.returns import Worth as Worth
    from bimix_tracking.recommendation.near_optimal import NearOptimal as NearOptimal
    from bimix_tracking.recommendation.recommendation import Recommendation as Recommendation
    from bimix_tracking.recommendation.recommending import recommend as recommend
    from bimix_tracking.recommendation.savings import worth as worth
    from bimix_tracking.recommendation.smallest_change import SmallestChange as SmallestChange
    from bimix_tracking.recommendation.uncertainty import Uncertainty as Uncertainty
    from bimix_tracking.recommendation.verdict import Decision as Decision
    from bimix_tracking.recommendation.verdict import Verdict as Verdict
    from bimix_tracking.recommendation.verdict import judge as judge

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "constraints": ["Constraints", "constrain"],
        "recommendation": ["Recommendation"],
        "recommending": ["recommend"],
        "costs": ["Costs"],
        "investment.returns": ["Worth"],
        "savings": ["worth"],
        "guards": ["Guard", "GuardResult", "parse_guard"],
        "near_optimal": ["NearOptimal"],
        "smallest_change": ["SmallestChange"],
        "uncertainty": ["Uncertainty"],
        "caveats.caveat": ["Caveat"],
        "verdict": ["Decision", "Verdict", "judge"],
    },
)
