"""Diagnostics of a sweep and its fit: which domain or run, which number, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bimix_tracking import quantities
from bimix_tracking.data.observations import Observations
from bimix_tracking.fitting.engine.grid import grid_of
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.levels import SAME_VOLUME
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.messages import said
from bimix_tracking.mixture import Mixture
from bimix_tracking.quantities import about, percent, signed
from bimix_tracking.selection.cross_validation import Validation

_FEW_SHARES = 3
_COLLINEAR = 0.95
_BAD_FACTOR, _BAD_ERROR = 3.0, 0.01
_OUTLIER, _OUTLIER_ERROR = 5.0, 0.01
_HORIZON = 1.05
_SAME_BATCH = 1.5
"""Tokens of a step that differ by more are not one batch size, whatever padding and short batches do."""


def outside_volumes(tokens: float, observed: tuple[float, float]) -> str:
    """Return that a data volume is beyond those observed; an empty text where it isn't."""
    low, high = observed
    if tokens > high * 1.001:
        return said(
            "the target of {tokens} tokens is {times} times the largest volume observed ({high}): its losses are "
            "extrapolated",
            tokens=quantities.tokens(tokens),
            times=quantities.count(tokens / high),
            high=quantities.tokens(high),
        )
    if tokens < low * 0.999:
        return said(
            "the target of {tokens} tokens is below the smallest volume observed ({low})",
            tokens=quantities.tokens(tokens),
            low=quantities.tokens(low),
        )
    return ""


def outside_tried(domain: str, share: float, tried: tuple[float, float]) -> str:
    """Return that a proportion is outside those tried."""
    smallest, largest = tried
    return said(
        "the proportion of domain {domain!r}, {share:.4g}, is outside those tried ({smallest:.4g} to {largest:.4g})",
        domain=domain,
        share=share,
        smallest=smallest,
        largest=largest,
    )


@dataclass(frozen=True)
class Diagnostic:
    """One thing to know before acting on a fit.

    Args:
        kind: A word for it, for code: `few shares`, `collinear`, `outcome`, `outside`, `bad fit`, `outlier run`,
            `schedules`, `tokens a step`.
        text: What is so, with the numbers.
        remedy: What to do about it.
        domain: Of which domain, if of one.
        run: Of which run, if of one.
    """

    kind: str
    text: str
    remedy: str
    domain: str | None = None
    run: str | None = None

    def __str__(self) -> str:
        return said("{text}. {remedy}", text=self.text, remedy=self.remedy)


def diagnose(
    obs: Observations,
    fit: LawFit,
    *,
    validation: Validation | None = None,
    mixture: Mixture | None = None,
    tokens: float | None = None,
) -> tuple[Diagnostic, ...]:
    """Return everything about a sweep and its fit that a reader should know before acting on it.

    Too few distinct proportions of a domain; domains whose proportions move together; fits with an outcome; domains
    that the law fits badly; outlier runs; runs that log fewer tokens per step; runs of different length, perhaps with
    schedules of their own; and, for a target, how far it is from what was tried.

    Args:
        obs: The sweep.
        fit: Its fit.
        validation: Its held-out predictions; where given, errors are held-out errors.
        mixture: A mixture somebody means to use.
        tokens: A data volume somebody means to train for.

    >>> import pandas as pd
    >>> from bimix_tracking import fit_law
    >>> rows = [{"a": a, "b": 1 - a, "tokens": s, "la": a**-0.1 * (90 / s**0.5 + 3)}
    ...         for a in (0.2, 0.4) for s in (1e3, 4e3, 1.6e4, 6.4e4)]
    >>> obs = Observations.from_wide(pd.DataFrame(rows), proportions=["a", "b"], losses={"a": "la"}, tokens="tokens")
    >>> [found.kind for found in diagnose(obs, fit_law(obs), tokens=1e6)]
    ['few shares', 'outside']
    """
    return (
        *_few_shares(obs, fit),
        *_collinear(obs),
        *_outcomes(fit),
        *_bad_fits(fit, validation),
        *_outlier_runs(obs, fit),
        *_tokens_a_step(obs),
        *_schedules(obs),
        *_outside(obs, fit, mixture, tokens),
    )


def _few_shares(obs: Observations, fit: LawFit) -> Iterator[Diagnostic]:
    for domain in fit.domains:
        shares = np.unique(np.round(obs.mixtures[domain].to_numpy(float), 4))
        if domain in fit.targets and len(shares) < _FEW_SHARES:
            tried = {"domain": domain, "count": len(shares), "shares": ", ".join(f"{share:g}" for share in shares)}
            yield Diagnostic(
                "few shares",
                said("domain {domain!r} was tried at only {count} proportions ({shares})", **tried)
                if len(shares) > 1
                else said("domain {domain!r} was tried at only 1 proportion ({shares})", **tried),
                said("Add runs until it has at least three: any curve fits two points"),
                domain=domain,
            )


def _collinear(obs: Observations) -> Iterator[Diagnostic]:
    shares = np.log(np.maximum(obs.mixtures.to_numpy(float), 1e-3))
    if len(np.unique(np.round(shares, 6), axis=0)) < 4 or shares.shape[1] < 3:
        return
    varied = np.flatnonzero(shares.std(0) > 1e-6)
    correlation = np.corrcoef(shares[:, varied].T)
    for i in range(len(varied)):
        for j in range(i + 1, len(varied)):
            if abs(correlation[i, j]) > _COLLINEAR:
                a, b = obs.domains[varied[i]], obs.domains[varied[j]]
                yield Diagnostic(
                    "collinear",
                    said(
                        "the proportions of {one!r} and {other!r} move together (correlation of their logarithms "
                        "{correlation})",
                        one=a,
                        other=b,
                        correlation=signed(correlation[i, j]),
                    ),
                    said("Their effects are not identifiable: add runs that raise one and lower the other"),
                    domain=a,
                )


def _outcomes(fit: LawFit) -> Iterator[Diagnostic]:
    for domain, fitted in fit.targets.items():
        if fitted.outcome is not Outcome.CONVERGED:
            yield Diagnostic(
                "outcome",
                f"target {domain!r}: {fitted.outcome.name.lower().replace('_', ' ')}",
                fitted.outcome.remedy[0].upper() + fitted.outcome.remedy[1:],
                domain=domain,
            )


def _bad_fits(fit: LawFit, validation: Validation | None) -> Iterator[Diagnostic]:
    errors = {d: f.error for d, f in fit.targets.items() if np.isfinite(f.error)}
    what = said("fit error")
    if validation is not None:
        errors, what = validation.error, said("held-out error")
    usual = float(np.median(list(errors.values()))) if errors else 0.0
    for domain, error in errors.items():
        if error > max(_BAD_ERROR, _BAD_FACTOR * usual):
            figures = {"error": percent(error), "what": what, "usual": percent(usual)}
            yield Diagnostic(
                "bad fit",
                said("domain {named!r} has a {what} of {error}, against a median of {usual}", named=domain, **figures)
                if domain in fit.domains
                else said(
                    "target {named!r} has a {what} of {error}, against a median of {usual}", named=domain, **figures
                ),
                said("Check its curve and the size of its evaluation set, and give it a smaller weight"),
                domain=domain,
            )


def _outlier_runs(obs: Observations, fit: LawFit) -> Iterator[Diagnostic]:
    grid = grid_of(obs)
    places = [i for i, target in enumerate(grid.targets) if target in fit.targets]
    at = [list(fit.targets).index(grid.targets[i]) for i in places]
    residual = grid.log_loss[places] - np.log(fit.surface(grid.shares, np.exp(grid.log_u) * grid.scale)[at])
    counts = (grid.weight[places] > 0) & (np.exp(grid.log_u) * grid.scale > fit.warmup) & np.isfinite(residual)
    number = counts.sum((0, 2))
    total = np.where(counts, residual, 0.0).sum((0, 2))
    means = pd.Series(total / np.maximum(number, 1), index=list(obs.runs))[number > 0]
    if len(means) < 5:
        return
    middle = float(means.median())
    spread = 1.4826 * float((means - middle).abs().median())
    for run, mean in means.items():
        if abs(mean - middle) > max(_OUTLIER * spread, _OUTLIER_ERROR):
            yield Diagnostic(
                "outlier run",
                said(
                    "run {run!r} is {distance} {side} the law over all its targets; the usual spread of runs is "
                    "{spread}",
                    run=str(run),
                    distance=percent(abs(mean - middle)),
                    side=said("above") if mean > middle else said("below"),
                    spread=percent(spread),
                ),
                said("If it was trained with other settings, resumed or cut off, exclude it and fit again"),
                run=str(run),
            )


def _by_size(of_run: pd.Series, obs: Observations) -> Iterator[pd.Series]:
    """Yield the values of the runs of each model size: other sizes have other batches and other schedules."""
    sizes = pd.Series({run: obs.sizes.get(run, 0.0) for run in map(str, of_run.index)}, dtype=float)
    for _, values in of_run.groupby(sizes.to_numpy(float)):
        yield values


def _tokens_a_step(obs: Observations) -> Iterator[Diagnostic]:
    of_step = obs.losses[obs.losses["step"] > 0]
    if of_step.empty:
        return
    for rate in _by_size((of_step["tokens"] / of_step["step"]).groupby(of_step["run"], sort=False).median(), obs):
        high = float(rate.max())
        fewer = rate[rate < high / _SAME_BATCH]
        if not len(fewer):
            continue
        yield Diagnostic(
            "tokens a step",
            said(
                "{count} of {runs} runs log fewer tokens per step than the others, run {first!r} the fewest: {low} "
                "instead of {high} ({times} times fewer)",
                count=len(fewer),
                runs=len(rate),
                low=quantities.tokens(float(fewer.min())),
                high=quantities.tokens(high),
                first=str(fewer.idxmin()),
                times=quantities.count(high / float(fewer.min())),
            ),
            said(
                "If these are one process's tokens, multiply them by the number of processes. If the batches were "
                "smaller, analyse these runs apart"
            ),
            run=str(fewer.idxmin()),
        )


def _schedules(obs: Observations) -> Iterator[Diagnostic]:
    for last in _by_size(obs.losses.groupby("run", sort=False)["tokens"].max(), obs):
        low, high = float(last.min()), float(last.max())
        if high <= _HORIZON * low:
            continue
        yield Diagnostic(
            "schedules",
            said(
                "{short} of {runs} runs end before the longest ({high} tokens), the first, {first!r}, at {low}",
                short=int((last < high / _HORIZON).sum()),
                runs=len(last),
                low=quantities.tokens(low),
                high=quantities.tokens(high),
                first=str(last.idxmin()),
            ),
            said(
                "If the learning rate decays, their losses at equal tokens aren't comparable. Train all runs for the "
                "same tokens, or compare only runs that end together"
            ),
        )


def _outside(obs: Observations, fit: LawFit, mixture: Mixture | None, tokens: float | None) -> Iterator[Diagnostic]:
    low, high = fit.tokens
    if tokens is not None and high <= SAME_VOLUME * low and not low / SAME_VOLUME <= tokens <= high * SAME_VOLUME:
        yield Diagnostic(
            "outside",
            said(
                "the target has {tokens} tokens; {volume} is the only volume observed, so nothing is predicted there",
                tokens=quantities.tokens(tokens),
                volume=quantities.tokens(high),
            ),
            said("Evaluate at several points of training"),
        )
    elif tokens is not None and not low * 0.999 <= tokens <= high * 1.001:
        yield Diagnostic(
            "outside",
            outside_volumes(tokens, fit.tokens),
            said("Check the error of the extrapolation, or train one run longer"),
        )
    if mixture is None:
        return
    at = mixture.array(obs.domains)
    shares = obs.mixtures.to_numpy(float)
    for domain, share, column in zip(obs.domains, at, shares.T, strict=True):
        if not column.min() * 0.999 <= share <= column.max() * 1.001:
            yield Diagnostic(
                "outside",
                outside_tried(domain, float(share), (float(column.min()), float(column.max()))),
                said("Add a run with a proportion near it"),
                domain=domain,
            )
    moved = 0.5 * np.abs(shares - at).sum(1)
    between = 0.5 * np.abs(shares[:, None] - shares[None]).sum(-1)
    between[between < 1e-9] = np.inf
    usual = float(np.median(between.min(1)))
    if np.isfinite(usual) and moved.min() > 2 * usual:
        nearest = obs.runs[int(moved.argmin())]
        yield Diagnostic(
            "outside",
            said(
                "the mixture differs from the nearest run, {nearest!r}, by {moved} of its tokens; neighbours in the "
                "sweep by {usual}",
                nearest=nearest,
                moved=about(float(moved.min())),
                usual=about(usual),
            ),
            said("Add a run near it before the large one"),
        )
