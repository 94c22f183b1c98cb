"""Which data mixture to pretrain on: losses by domain logged, a law fitted, a mixture recommended.

Names are loaded when first used, so that a training process that needs only the recorder doesn't pay for SciPy
and pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bimix_tracking.analysis import analyze as analyze
    from bimix_tracking.analysis_result import Analysis as Analysis
    from bimix_tracking.counting import EntropySettings as EntropySettings
    from bimix_tracking.design import plan_pilot as plan_pilot
    from bimix_tracking.diagnostics import diagnose as diagnose
    from bimix_tracking.entropy import EntropyCounter as EntropyCounter
    from bimix_tracking.entropy import entropy_mixture as entropy_mixture
    from bimix_tracking.entropy_log import log_entropies as log_entropies
    from bimix_tracking.entropy_result import CorpusEntropies as CorpusEntropies
    from bimix_tracking.exports import export as export
    from bimix_tracking.exports import write_exports as write_exports
    from bimix_tracking.extrapolation import extrapolate as extrapolate
    from bimix_tracking.fitting import fit_law as fit_law
    from bimix_tracking.follow_up import next_runs as next_runs
    from bimix_tracking.foreign import ForeignRuns as ForeignRuns
    from bimix_tracking.groups import analyze_groups as analyze_groups
    from bimix_tracking.law_fit import LawFit as LawFit
    from bimix_tracking.measuring import corpus_entropies as corpus_entropies
    from bimix_tracking.mixture import Mixture as Mixture
    from bimix_tracking.observations import Observations as Observations
    from bimix_tracking.recommendation import Recommendation as Recommendation
    from bimix_tracking.recommendation import recommend as recommend
    from bimix_tracking.recorder import DomainLossRecorder as DomainLossRecorder
    from bimix_tracking.replaying import replay as replay
    from bimix_tracking.resampling import bootstrap as bootstrap
    from bimix_tracking.selection import Selection as Selection
    from bimix_tracking.selection import select_law as select_law
    from bimix_tracking.tracking import Wanted as Wanted
    from bimix_tracking.tracking import open_source as open_source
    from bimix_tracking.tracking import open_tracker as open_tracker
    from bimix_tracking.tracking import recommended_mixture as recommended_mixture
    from bimix_tracking.validation import cross_validate as cross_validate
    from bimix_tracking.verification import verify as verify
    from bimix_tracking.waiting import wait_for as wait_for
    from bimix_tracking.worth import Costs as Costs

_ROOMS = {
    "analysis": ("analyze",),
    "analysis_result": ("Analysis",),
    "replaying": ("replay",),
    "resampling": ("bootstrap",),
    "design": ("plan_pilot",),
    "diagnostics": ("diagnose",),
    "counting": ("EntropySettings",),
    "entropy": ("EntropyCounter", "entropy_mixture"),
    "entropy_log": ("log_entropies",),
    "entropy_result": ("CorpusEntropies",),
    "exports": ("export", "write_exports"),
    "extrapolation": ("extrapolate",),
    "fitting": ("fit_law",),
    "follow_up": ("next_runs",),
    "foreign": ("ForeignRuns",),
    "groups": ("analyze_groups",),
    "law_fit": ("LawFit",),
    "measuring": ("corpus_entropies",),
    "mixture": ("Mixture",),
    "observations": ("Observations",),
    "recommendation": ("Recommendation", "recommend"),
    "recorder": ("DomainLossRecorder",),
    "selection": ("Selection", "select_law"),
    "tracking": ("Wanted", "open_source", "open_tracker", "recommended_mixture"),
    "validation": ("cross_validate",),
    "verification": ("verify",),
    "waiting": ("wait_for",),
    "worth": ("Costs",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605  # the rooms are the one list


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"bimix_tracking.{_HOME[name]}"), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("bimix-tracking")
    raise AttributeError(f"module 'bimix_tracking' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
