"""Any law by its name, or the ensemble of them, fitted to a sweep: Observations + law → LawFit."""

from __future__ import annotations

from bimix_tracking.data.observations import Observations
from bimix_tracking.errors import ObservationsError
from bimix_tracking.fitting.alignment.aligning import align, bridged
from bimix_tracking.fitting.ensemble import fit_ensemble
from bimix_tracking.fitting.folds import divide, fit_held_out, floors
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.options import HUBER_DELTA, FitOptions, ZeroShare
from bimix_tracking.fitting.single_law import fit_single
from bimix_tracking.fitting.warmup import settled
from bimix_tracking.laws.registry import ENSEMBLE


def fit_law(
    obs: Observations,
    law: str = "bimix",
    *,
    huber_delta: float = HUBER_DELTA,
    zero_share: ZeroShare = "chosen",
    warmup: float | None = None,
    model_size: float | None = None,
) -> LawFit:
    """Fit a law to each target domain, on log losses, robustly, from several starts.

    θ_i = argmin Σ_n w_n ρ_δ(log L_in − log L_i(r_n, s_n; θ)), with w_n in proportion to the evaluation tokens where
    these differ, and a quadratic prior on what the law shrinks (see the law's `prior`).

    Args:
        obs: The sweep.
        law: `bimix` (arXiv 2405.14908v4, Eq. 3, with A = 1), `transfer`, `additive` (arXiv 2507.09404),
            `exponential` (arXiv 2403.16952), `ensemble` (a stack of these) or the name of an entry point.
        huber_delta: δ of the Huber loss, in log loss (a relative error).
        zero_share: In a law that is infinite at r = 0, a smaller own proportion counts as this. `chosen`: 0.001 where
            no own proportion is smaller, else the one of 0.001, 0.0001 and 0.00001 with which the law predicts
            held-out mixtures best; `LawFit.zero_share` is what it came to. None excludes such runs for the domain.
        warmup: Losses at no more than so many tokens don't count, because no power law holds in the warm-up.
            None: found from the residuals of `bimix` at the first evaluations (see `find_warmup`); 0: none.
        model_size: Whose losses the law is to have, in parameters; runs of several sizes are brought to its level (see
            `fitting.alignment.align`). None: the largest observed.

    Returns:
        Parameters, standard errors and outcome of each domain. A fit that fails is such an outcome, no exception.

    Raises:
        ObservationsError: No target domain is a domain of the mixtures, and the law needs one; or the size is smaller
            than all that were run.
        ValueError: No such law, or an option out of range.

    >>> import pandas as pd
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": 3 * a**-0.1 * (90 / s**0.5 + 0.7), "lb": 2.0 + 1 / s**0.3}
    ...         for a in (0.2, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> fit = fit_law(obs)
    >>> {name: round(value, 6) for name, value in fit.targets["a"].parameters.items()}
    {'alpha': 0.1, 'beta': 0.5, 'B': 270.0, 'C': 2.1}
    """
    alignment = align(obs, model_size, law)
    fit = fit_with(alignment.observations, law, FitOptions(huber_delta, zero_share, warmup))
    return bridged(fit, alignment, obs)


def fit_with(obs: Observations, law: str, options: FitOptions) -> LawFit:
    """Fit a law, or the ensemble, by options at hand: see `fit_law`."""
    options = settled(obs, options)
    if law == ENSEMBLE:
        return fit_ensemble(obs, options=options)
    if len(floors(obs, law, options)) > 1:
        try:
            return fit_held_out(obs, law, options, divide(obs, options.folds, options.seed))[0]
        except ObservationsError:  # too few mixtures to hold one out
            return fit_single(obs, law, options)
    return fit_single(obs, law, options)
