"""What both reports say, as sentences and numbers already printed; a renderer translates, sets and escapes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bimix_tracking.display.texts import isolated, listing, printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import MISSING, nats, parameters, percent, tokens
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation, amount
from bimix_tracking.recommendation.smallest_change import SmallestChange
from bimix_tracking.recommendation.trade_offs.pareto import Pareto
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.report import decision, key_figures, run_noise
from bimix_tracking.report.evidence import Evidence, Findings, evidence
from bimix_tracking.report.gains import Gain, GuardLine, ends, gains, guard_lines, guard_sentence
from bimix_tracking.report.scale.section import Scale, Sized, scale_of

GLOSSARY = {
    said("nats per token"): said("mean negative log-likelihood of the next token; lower is better"),
    said("interval"): said("where nine of ten such sweeps put the optimum"),
    said("held-out"): said("predicted by a fit without that mixture"),
    said("rank correlation"): said("1: the right order; 0: chance"),
}
MOST_CAVEATS = 2
"""More of them are behind a summary: the first screen bears no more words."""


class Result(Findings, Sized, Protocol):
    """The part of `Analysis` that a report reads; named here so that `analysis` may import this package."""

    @property
    def recommendation(self) -> Recommendation:
        """The optimum and its reference."""

    @property
    def verdict(self) -> Verdict:
        """Whether to act on it, and what decides that."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before acting."""

    @property
    def worth(self) -> Worth | None:
        """What it saves."""

    @property
    def pareto(self) -> Pareto | None:
        """The optima between two groups of targets."""

    @property
    def replicates(self) -> Replicates | None:
        """The fit's replicates, of a run-level bootstrap."""


@dataclass(frozen=True)
class Share:
    """One domain in the table of mixtures; `outside` where the recommended proportion was not tried."""

    domain: str
    recommended: str
    reference: str
    tried: str
    outside: bool
    interval: str
    extent: str


@dataclass(frozen=True)
class Total:
    """The last row of the table of gains and losses."""

    name: str
    reference: str
    recommended: str
    change: str
    interval: str


@dataclass(frozen=True)
class Page(Evidence):
    """Everything a report says; see `page`."""

    title: str
    forecast: str
    scale: Scale | None
    verdict: str
    kind: str
    answer: str
    key_figures: tuple[key_figures.KeyFigure, ...]
    caveats: tuple[str, ...]
    gain: str
    sure: str
    free: str
    worth: str
    certainty: tuple[tuple[str, str], ...]
    saved: tuple[tuple[str, str], ...]
    constraints: tuple[str, ...]
    by_law: tuple[decision.LawChoice, ...]
    noise: str
    warnings: tuple[str, ...]
    weighted: bool
    reference: str
    shares: tuple[Share, ...]
    gains: tuple[Gain, ...]
    ends: tuple[str, str]
    grouped: bool
    guards: tuple[GuardLine, ...]
    guarded: str
    total: Total
    path: str
    trade: str


def page(result: Result) -> Page:
    """Return what the report of an analysis says.

    Args:
        result: An `Analysis`.
    """
    obs, fit, rec = result.fitted, result.fit, result.recommendation
    counted = {target: rec.weights[target] for target in fit.targets if rec.weights[target] > 0}
    weighted = any(rec.weights[target] != 1 for target in fit.targets if target in fit.domains or target in counted)
    changed = gains(rec, obs, fit.unfit)
    warnings = tuple(map(printable, (*result.warnings, *held_lines(rec))))
    shown, sizes = evidence(result, warnings), scale_of(result)
    worth = result.worth if result.verdict.usable else None  # nothing is saved by a law that fails its check
    return Page(
        **vars(shown),
        title=title(rec),
        forecast="" if sizes is None else sizes.headline,
        scale=sizes,
        verdict=result.verdict.sentence,
        kind=f"{result.verdict.decision} care" if result.verdict.caveats else str(result.verdict.decision),
        answer=joined(
            [
                result.verdict.sentence,
                recommended(rec),
            ],
        ),
        key_figures=tuple(key_figures.key_figures(rec, result.verdict, result.worth, result.validation, sizes)),
        caveats=tuple(caveat.text for caveat in result.verdict.beside),
        gain=_gain(rec, counted, "" if sizes is None else sizes.subject, weighted=weighted),
        sure=decision.sureness(rec),
        free=decision.freedom(rec),
        worth="" if worth is None else key_figures.savings(worth),
        certainty=tuple(decision.certainty(rec)),
        saved=() if worth is None else tuple(key_figures.rows(worth)),
        constraints=tuple(decision.constrained(rec)),
        by_law=tuple(decision.law_choices(rec)),
        noise=run_noise.measure(obs, counted).sentences(rec.gain, rec.amount),
        warnings=warnings,
        weighted=weighted,
        reference=_reference(rec),
        shares=tuple(_share(fit, rec, domain) for domain in fit.domains),
        gains=changed,
        ends=ends(changed),
        grouped=any(one.group for one in changed),
        guards=guard_lines(rec, changed),
        guarded=guard_sentence(rec, changed),
        total=_total(rec, counted, weighted=weighted),
        path="" if rec.path is None else _path(rec.path),
        trade="" if result.pareto is None else _trade(result.pareto),
    )


def title(rec: Recommendation) -> str:
    """Return what the page is called: which run the mixture is for."""
    if rec.model_size is None:
        return said("Data mixture for {tokens} tokens", tokens=tokens(rec.tokens))
    return said(
        "Data mixture for a {size} model and {tokens} tokens",
        size=parameters(rec.model_size),
        tokens=tokens(rec.tokens),
    )


def recommended(rec: Recommendation) -> str:
    """Return the mixture in words, with the run that it is for."""
    if rec.model_size is None:
        return said("For {tokens} tokens: {mixture}.", tokens=tokens(rec.tokens), mixture=listing(rec.mixture))
    return said(
        "For a {size} model and {tokens} tokens: {mixture}.",
        size=parameters(rec.model_size),
        tokens=tokens(rec.tokens),
        mixture=listing(rec.mixture),
    )


def held_lines(rec: Recommendation) -> Iterator[str]:
    """Return which domains the law holds, and why, a line each."""
    for domain, why in rec.held.items():
        yield said("domain {domain} {why}", domain=repr(domain), why=why)


def _gain(rec: Recommendation, counted: Mapping[str, float], subject: str, *, weighted: bool) -> str:
    known = {
        "reference": _reference(rec),
        "gain": rec.amount(rec.gain),
        "weights": said("weighted") if weighted else said("unweighted"),
        "targets": few(map(printable, counted)),
    }
    if subject:
        return said(
            "Predicted gain over the reference ({reference}), {subject}: {gain}, {weights} sum of {targets}.",
            subject=subject,
            **known,
        )
    return said(
        "Predicted gain over the reference ({reference}) at {volume} tokens: {gain}, {weights} sum of {targets}.",
        volume=tokens(rec.volume),
        **known,
    )


def _reference(rec: Recommendation) -> str:
    shares = list(rec.reference.values())
    return said("equal parts") if max(shares) - min(shares) < 1e-9 else listing(rec.reference, most=3)


def _share(fit: LawFit, rec: Recommendation, domain: str) -> Share:
    fitted = fit.targets.get(domain)
    low, high = fit.tried(domain)
    return Share(
        domain=printable(domain),
        recommended=percent(rec.mixture[domain]),
        reference=percent(rec.reference[domain]),
        tried=f"{100 * low:.1f}–{100 * high:.1f} %" if fitted or domain in fit.shares else MISSING,
        outside=not low * 0.999 <= rec.mixture[domain] <= high * 1.001,
        interval=decision.interval(rec, domain),
        extent=decision.extent(rec, domain),
    )


def _total(rec: Recommendation, counted: Mapping[str, float], *, weighted: bool) -> Total:
    """Return the last row of the table of gains and losses.

    Of accuracies, which count by their logit, and of several units there is no sum to show: only the gain.
    """
    ends = None if rec.uncertainty is None else rec.uncertainty.gain
    if any(target in rec.links for target in counted):
        interval = MISSING if ends is None else said("{low} to {high}", **decision.span_in_unit(rec, ends))
        return Total(said("gain of the objective"), MISSING, MISSING, rec.amount(rec.gain), interval)
    ours, theirs = (
        nats(sum(weight * of[target] for target, weight in counted.items()))
        for of in (rec.predicted, rec.reference_predicted)
    )
    interval = MISSING if ends is None else said("{low} to {high}", low=nats(-ends[1]), high=nats(-ends[0]))
    return Total(said("weighted sum") if weighted else said("sum"), theirs, ours, nats(-rec.gain), interval)


def _path(path: SmallestChange) -> str:
    start = [said("But {sentence}.", sentence=path.start)] if path.start else []
    return joined([said("Smallest change: {sentence}.", sentence=path.sentence), *start])


def _trade(found: Pareto) -> str:
    one, other = (isolated(printable(name)) for name in found.names)
    first, last = found.points[0], found.points[-1]
    return said(
        "From all weight on {one} to all on {other}: {one} gains {best} down to {least}, {other} {low} up to {high}.",
        one=one,
        other=other,
        best=amount(found.units[0], first.first),
        least=amount(found.units[0], last.first),
        low=amount(found.units[1], first.second),
        high=amount(found.units[1], last.second),
    )
