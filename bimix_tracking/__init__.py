"""Which data mixture to pretrain on: losses by domain logged, a law fitted, a mixture recommended.

From the ground up: `files`, `laws` and `data`; `tracking` and `recording`, which are all that a training process loads;
`fitting`, `selection`, `recommendation` and `design`; `exports`, `report` and `entropy`; `analysis`, the whole way;
`cli`. A package imports only what is below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.analysis.groups import analyze_groups as analyze_groups
    from bimix_tracking.analysis.pipeline import analyze as analyze
    from bimix_tracking.analysis.result import Analysis as Analysis
    from bimix_tracking.analysis.verifying import verify as verify
    from bimix_tracking.data.observations import Observations as Observations
    from bimix_tracking.design.follow_up import next_runs as next_runs
    from bimix_tracking.design.pilot import plan_pilot as plan_pilot
    from bimix_tracking.entropy.counter import EntropyCounter as EntropyCounter
    from bimix_tracking.entropy.counter import entropy_mixture as entropy_mixture
    from bimix_tracking.entropy.domain_counts import EntropySettings as EntropySettings
    from bimix_tracking.entropy.log import log_entropies as log_entropies
    from bimix_tracking.entropy.measuring import corpus_entropies as corpus_entropies
    from bimix_tracking.entropy.result import CorpusEntropies as CorpusEntropies
    from bimix_tracking.exports.formats import export as export
    from bimix_tracking.exports.formats import write_exports as write_exports
    from bimix_tracking.fitting.fit import fit_law as fit_law
    from bimix_tracking.fitting.law_fit import LawFit as LawFit
    from bimix_tracking.fitting.resampling import bootstrap as bootstrap
    from bimix_tracking.mixture import Mixture as Mixture
    from bimix_tracking.recommendation.costs import Costs as Costs
    from bimix_tracking.recommendation.recommendation import Recommendation as Recommendation
    from bimix_tracking.recommendation.recommending import recommend as recommend
    from bimix_tracking.recording.recorder import DomainLossRecorder as DomainLossRecorder
    from bimix_tracking.recording.replaying import replay as replay
    from bimix_tracking.selection.cross_validation import cross_validate as cross_validate
    from bimix_tracking.selection.diagnostics import diagnose as diagnose
    from bimix_tracking.selection.extrapolation import extrapolate as extrapolate
    from bimix_tracking.selection.law_choice import Selection as Selection
    from bimix_tracking.selection.law_choice import select_law as select_law
    from bimix_tracking.selection.rank_transfer import rank_transfer as rank_transfer
    from bimix_tracking.tracking.other_tools.runs import ForeignRuns as ForeignRuns
    from bimix_tracking.tracking.ports import Wanted as Wanted
    from bimix_tracking.tracking.ports import open_source as open_source
    from bimix_tracking.tracking.ports import open_tracker as open_tracker
    from bimix_tracking.tracking.ports import recommended_mixture as recommended_mixture
    from bimix_tracking.tracking.waiting import wait_for as wait_for

_public, __dir__, __all__ = attach(
    __name__,
    {
        "analysis.groups": ["analyze_groups"],
        "analysis.pipeline": ["analyze"],
        "analysis.result": ["Analysis"],
        "analysis.verifying": ["verify"],
        "data.observations": ["Observations"],
        "design.follow_up": ["next_runs"],
        "design.pilot": ["plan_pilot"],
        "entropy.counter": ["EntropyCounter", "entropy_mixture"],
        "entropy.domain_counts": ["EntropySettings"],
        "entropy.log": ["log_entropies"],
        "entropy.measuring": ["corpus_entropies"],
        "entropy.result": ["CorpusEntropies"],
        "exports.formats": ["export", "write_exports"],
        "fitting.fit": ["fit_law"],
        "fitting.law_fit": ["LawFit"],
        "fitting.resampling": ["bootstrap"],
        "mixture": ["Mixture"],
        "recommendation.recommendation": ["Recommendation"],
        "recommendation.recommending": ["recommend"],
        "recommendation.costs": ["Costs"],
        "recording.recorder": ["DomainLossRecorder"],
        "recording.replaying": ["replay"],
        "selection.cross_validation": ["cross_validate"],
        "selection.diagnostics": ["diagnose"],
        "selection.extrapolation": ["extrapolate"],
        "selection.law_choice": ["Selection", "select_law"],
        "selection.rank_transfer": ["rank_transfer"],
        "tracking.other_tools.runs": ["ForeignRuns"],
        "tracking.ports": ["Wanted", "open_source", "open_tracker", "recommended_mixture"],
        "tracking.waiting": ["wait_for"],
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # a third of the import, for one name

        return version("bimix-tracking")
    return _public(name)
