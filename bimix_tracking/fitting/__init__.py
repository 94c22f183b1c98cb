"""A law fitted to a sweep: the problem as arrays, a batched robust least-squares solver, the fit of one law, its
fits without a fold, the ensemble that is stacked on these, and the run-level bootstrap.
"""

from typing import TYPE_CHECKING

from bimix_tracking.lazy import attach

if TYPE_CHECKING:
    from bimix_tracking.fitting.domain_fit import DomainFit as DomainFit
    from bimix_tracking.fitting.ensemble import fit_ensemble as fit_ensemble
    from bimix_tracking.fitting.fit import fit_law as fit_law
    from bimix_tracking.fitting.law_fit import LawFit as LawFit
    from bimix_tracking.fitting.outcome import Outcome as Outcome
    from bimix_tracking.fitting.replicates import Replicates as Replicates
    from bimix_tracking.fitting.resampling import bootstrap as bootstrap
    from bimix_tracking.fitting.warmup import find_warmup as find_warmup

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ensemble": ["fit_ensemble"],
        "fit": ["fit_law"],
        "domain_fit": ["DomainFit"],
        "law_fit": ["LawFit"],
        "outcome": ["Outcome"],
        "replicates": ["Replicates"],
        "resampling": ["bootstrap"],
        "warmup": ["find_warmup"],
    },
)
