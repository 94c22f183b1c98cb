"""What a recommendation saves at equal loss, as far as the sweep's evaluations carry it, less what the pilot cost.

How many tokens a loss is worth is told by the fall of the losses along training, so a saving is at a data volume that
was observed. Beyond the largest one the laws part, and so do fits to all checkpoints and to late ones: to four times as
many tokens the range over both is told, and nothing beyond.

At a model size that proxies don't have, the fall is that of the anchors' curves. An error of the level moves the loss
of both mixtures alike, so at equal loss only what it differs between targets counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bimix_tracking.data.observations import Observations
from bimix_tracking.data.weights import objective_weights
from bimix_tracking.errors import BimixError
from bimix_tracking.fitting.fit import fit_with
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.fitting.scale.applied import aligned_by
from bimix_tracking.fitting.scale.bridge import Bridge
from bimix_tracking.fitting.scale.size_level import SizeLevel
from bimix_tracking.messages import few, said
from bimix_tracking.progress import Progress
from bimix_tracking.quantities import count, parameters, tokens
from bimix_tracking.recommendation.costs import Costs
from bimix_tracking.recommendation.equal_loss import (
    FARTHEST,
    EqualLoss,
    beta_held,
    late_part,
    mixtures_at_two_volumes,
)
from bimix_tracking.recommendation.investment.flops import compute_of
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import LEVEL

_LEAST_WEIGHT = 0.05
"""A law that has less of the ensemble, on average over the targets, doesn't stretch the range over laws."""


def worth(
    obs: Observations,
    fit: LawFit,
    rec: Recommendation,
    *,
    replicates: Replicates | None = None,
    laws: Mapping[str, LawFit] | None = None,
    costs: Costs | None = None,
    measured: Observations | None = None,
    level: float = LEVEL,
    progress: Progress | None = None,
) -> Worth:
    """Return what the recommended mixture saves: the s' at which it has the loss that the reference has at s.

        F(recommended, s') = F(reference, s),    saved = 1 − s' / s,    F(r, s) = Σ_i w_i L_i(r, s)

    s is the run's data volume, or the largest observed where that is less; s' is sought among the volumes observed, and
    up to four times the largest. Nothing is told where mixtures were evaluated at one volume each, where a law with a
    part in the fit has its β at a bound, or where s' is at the end of the search.

    Args:
        obs: The sweep that the law was fitted to.
        fit: Its fit.
        rec: From `recommend`.
        replicates: From `bootstrap`: gives the interval.
        laws: Fits of single laws, over which the range is told, such as `Selection.plausible`; by default those with a
            part in the ensemble, or the law itself.
        costs: GPU-hours and costs, as far as known.
        measured: All runs at their own sizes and tokens, anchors among them; `obs` where there is one size.
        level: Of the interval.
        progress: Is told how many laws of how many are fitted to the late evaluations.

    >>> import pandas as pd
    >>> from bimix_tracking import Mixture, fit_law, recommend
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": 1e4 * (a * s) ** -0.5, "lb": 1e4 * ((1 - a) * s) ** -0.5}
    ...         for a in (0.2, 0.5, 0.7) for s in (1e6, 4e6, 1.6e7, 6.4e7)]
    >>> losses = {"a": "la", "b": "lb"}
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses=losses, tokens="tokens")
    >>> fit = fit_law(obs)
    >>> rec = recommend(fit, 6.4e7, reference=Mixture({"a": 0.2, "b": 0.8}))
    >>> saved = worth(obs, fit, rec)
    >>> round(saved.fraction, 3)  # L = K (r_a^-½ + r_b^-½) s^-½: s'/s = (2.828 / 3.354)²
    0.289
    """
    working = objective_weights(rec.weights, fit.links)
    weights = {target: w for target, w in working.items() if w > 0 and target in fit.targets}
    ends = [fit.targets[target].tokens or fit.tokens for target in weights]
    smallest, largest = max(low for low, _ in ends), min(high for _, high in ends)
    measured, obs = measured or obs, aligned_by(obs, fit.bridge)
    own = _own_runs(measured, rec, fit)
    if own is not None and fit.bridge is not None:
        largest = min(largest, max(one.reached * one.schedule for one in _own_levels(fit.bridge)))
    at = min(rec.tokens, largest)
    single = _single_laws(fit, laws, weights)
    told = Worth(
        at,
        rec.tokens,
        None,
        runs=len(measured.runs),
        costs=costs or Costs(),
        compute=compute_of(measured.sizes, measured.last_tokens, rec.model_size, rec.tokens),
        anchors=0 if own is None else len(own.runs),
        level=level,
    )
    why = _size_unknown(rec, fit, own, list(weights)) or _untold(obs, single, weights, at, smallest)
    shares = np.stack([rec.mixture.array(fit.domains), rec.reference.array(fit.domains)])
    search = EqualLoss(shares, weights, smallest, largest)
    fraction = math.nan if why else search.saved(fit, at)
    if fraction == math.inf:
        why = said(
            "by the law the recommended mixture reaches the reference's loss at fewer tokens than the first evaluation "
            "that counts ({smallest}). Evaluate earlier",
            smallest=tokens(smallest),
        )
    if why:
        return replace(told, unknown=why)
    by_law = {name: search.saved(one, at) for name, one in single.items()}
    interval = None if replicates is None else search.interval(fit, replicates, at, level, rec.uncertainty)
    found = replace(told, fraction=fraction, by_law=by_law, interval=interval)
    span = found.span
    noisy = rec.inside_noise or rec.below_run_noise
    found = replace(found, demonstrated=bool(interval and span and span[0] > 0 and not noisy))
    return _at_target(obs, found, single, search, progress) if found.beyond else found


def _own_levels(bridge: Bridge) -> list[SizeLevel]:
    """Return the levels of the size whose losses the law has, one for each length of schedule."""
    return [one for one in bridge.sizes if one.size == bridge.reference]


def _own_runs(measured: Observations, rec: Recommendation, fit: LawFit) -> Observations | None:
    """Return the runs at the model size that was asked for; None where none was, or no run has it."""
    bridge = fit.bridge
    if rec.model_size is None or bridge is None or not bridge.known or not bridge.of_reference.observed:
        return None
    named = {run for one in _own_levels(bridge) for run in one.runs}
    return measured.only(sorted(named)) if named & set(measured.runs) else None


def _size_unknown(rec: Recommendation, fit: LawFit, own: Observations | None, targets: list[str]) -> str:
    """Return why nothing is known of savings at the model size that was asked for; nothing where something is.

    Args:
        rec: The recommendation.
        fit: The law.
        own: The runs at that size.
        targets: Those that count.
    """
    asked, bridge = rec.model_size, fit.bridge
    if asked is None:
        return ""
    size = {"size": parameters(asked)}
    if bridge is None or not bridge.known:
        return said("the level of the losses at {size} parameters is unknown. One anchor run gives it", **size)
    if bridge.rough:
        return said(
            "losses at {size} parameters are extrapolated over sizes, too roughly for a saving. One anchor run gives "
            "their level",
            **size,
        )
    if own is None or not mixtures_at_two_volumes(own, targets):
        return said(
            "runs of {size} parameters were evaluated once each, so the tokens that a loss is worth there are unknown. "
            "Evaluate them at several points of training",
            **size,
        )
    return ""


def _single_laws(fit: LawFit, laws: Mapping[str, LawFit] | None, weights: Mapping[str, float]) -> dict[str, LawFit]:
    """Return the laws over which the range is told; the one that was fitted, where there are no others."""
    part = {name: sum(fit.targets[t].parameters.get(name, 0.0) for t in weights) / len(weights) for name in fit.members}
    among = laws or {name: one for name, one in fit.members.items() if part[name] >= _LEAST_WEIGHT}
    told = {
        name: one
        for name, one in among.items()
        if all(t in one.targets and one.targets[t].outcome.usable for t in weights)
    }
    return told or {fit.law: fit}


def _untold(
    obs: Observations, laws: Mapping[str, LawFit], weights: Mapping[str, float], at: float, smallest: float
) -> str:
    """Return why nothing is told of savings, in words; nothing where something is."""
    if not mixtures_at_two_volumes(obs, list(weights)):
        return said(
            "one token volume was observed for each mixture, so the tokens that a loss is worth are unknown. "
            "Evaluate at several points of training"
        )
    if at <= SAME_VOLUME * smallest:
        return said(
            "the run of {tokens} tokens is no longer than the first evaluation that counts ({smallest})",
            tokens=tokens(at),
            smallest=tokens(smallest),
        )
    held = {name: [t for t in weights if beta_held(fit, t)] for name, fit in laws.items()}
    for law, targets in held.items():
        if targets:
            return said(
                "{law} doesn't identify how the loss of {targets} falls with the tokens (its β is at a bound). "
                "Evaluate at more points of training",
                law=law,
                targets=few(targets),
            )
    return ""


def _at_target(
    obs: Observations, found: Worth, laws: Mapping[str, LawFit], search: EqualLoss, progress: Progress | None
) -> Worth:
    """Add what is told of the run itself, which has more tokens than were observed."""
    times = found.target / found.tokens
    if times > FARTHEST:
        return replace(
            found,
            unknown_at_target=said(
                "it has {times} times the tokens observed, and beyond about {farthest} times laws and fit windows part",
                times=count(times),
                farthest=count(FARTHEST),
            ),
        )
    late = late_part(obs, found.tokens)
    if late is None:
        return replace(
            found,
            unknown_at_target=said(
                "too few late evaluations to fit a second window, which would show how far it holds"
            ),
        )
    fractions = [search.saved(one, found.target) for one in laws.values()]
    for number, (name, one) in enumerate(laws.items()):
        if progress:
            progress("fitting late evaluations", number, len(laws))
        try:
            again = fit_with(late, name, replace(one.options, warmup=0.0))
        except BimixError:
            again = None
        told = again is not None and all(
            t in again.targets and again.targets[t].outcome.usable and not beta_held(again, t) for t in search.weights
        )
        fractions.append(search.saved(again, found.target) if again is not None and told else math.nan)
    if progress:
        progress("fitting late evaluations", len(laws), len(laws))
    if not all(map(math.isfinite, fractions)):
        return replace(
            found,
            unknown_at_target=said("the laws, or their fits to the late evaluations, don't identify it"),
        )
    return replace(found, at_target=(min(fractions), max(fractions)))
