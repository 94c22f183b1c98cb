"""What both reports say, as sentences and numbers already printed; a renderer translates, sets and escapes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bimix_tracking.display.texts import listing, printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import few, joined, said
from bimix_tracking.quantities import MISSING, digits, nats, percent, tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.savings import Worth
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.report import decision, key_figures, run_noise
from bimix_tracking.report.evidence import Evidence, Findings, evidence

GLOSSARY = {
    said("nats per token"): said("mean negative log-likelihood of the next token; lower is better"),
    said("interval"): said("where nine of ten such sweeps put the optimum"),
    said("held-out"): said("predicted by a fit without that mixture"),
    said("rank correlation"): said("1: the right order; 0: chance"),
}
MOST_CAVEATS = 2
"""More of them are behind a summary: the first screen bears no more words."""


class Result(Findings, Protocol):
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
    def replicates(self) -> Replicates | None:
        """The fit's replicates, of a run-level bootstrap."""


@dataclass(frozen=True)
class Share:
    """One domain in the table of mixtures; `outside` where the recommended proportion was not tried."""

    domain: str
    weight: str
    recommended: str
    reference: str
    tried: str
    outside: bool
    predicted: str
    predicted_interval: str
    on_reference: str
    change: str
    interval: str
    extent: str


@dataclass(frozen=True)
class Page(Evidence):
    """Everything a report says; see `page`."""

    title: str
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
    total: tuple[str, str, str]


def page(result: Result) -> Page:
    """Return what the report of an analysis says.

    Args:
        result: An `Analysis`.
    """
    obs, fit, rec = result.observations, result.fit, result.recommendation
    targets = [target for target in fit.targets if target in fit.domains or rec.weights[target] > 0]
    counted = {target: rec.weights[target] for target in targets if rec.weights[target] > 0}
    weighted = any(rec.weights[target] != 1 for target in targets)
    warnings = tuple(map(printable, (*result.warnings, *held_lines(rec))))
    shown = evidence(result, warnings)
    worth = result.worth if result.verdict.usable else None  # nothing is saved by a law that fails its check
    return Page(
        **vars(shown),
        title=said("Data mixture for {tokens} tokens", tokens=tokens(rec.tokens)),
        verdict=result.verdict.sentence,
        kind=f"{result.verdict.decision} care" if result.verdict.caveats else str(result.verdict.decision),
        answer=joined(
            [
                result.verdict.sentence,
                said("For {tokens} tokens: {mixture}.", tokens=tokens(rec.tokens), mixture=listing(rec.mixture)),
            ],
        ),
        key_figures=tuple(key_figures.key_figures(rec, result.verdict, result.worth, result.validation)),
        caveats=tuple(caveat.text for caveat in result.verdict.beside),
        gain=_gain(rec, counted, weighted=weighted),
        sure=decision.sureness(rec),
        free=decision.freedom(rec),
        worth="" if worth is None else key_figures.savings(worth),
        certainty=tuple(decision.certainty(rec)),
        saved=() if worth is None else tuple(key_figures.rows(worth)),
        constraints=tuple(decision.constrained(rec)),
        by_law=tuple(decision.law_choices(rec)),
        noise=run_noise.measure(obs, counted).sentences(rec.gain),
        warnings=warnings,
        weighted=weighted,
        reference=_reference(rec),
        shares=(
            *(_share(fit, rec, domain) for domain in fit.domains),
            *(_outside(rec, target) for target in targets if target not in fit.domains),
        ),
        total=(
            nats(sum(weight * rec.predicted[target] for target, weight in counted.items())),
            nats(sum(weight * rec.reference_predicted[target] for target, weight in counted.items())),
            nats(-rec.gain),
        ),
    )


def held_lines(rec: Recommendation) -> Iterator[str]:
    """Return which domains the law holds, and why, a line each."""
    for domain, why in rec.held.items():
        yield said("domain {domain} {why}", domain=repr(domain), why=why)


def _gain(rec: Recommendation, counted: Mapping[str, float], *, weighted: bool) -> str:
    return said(
        "Predicted gain over the reference ({reference}) at {volume} tokens: {gain} nats, {weights} sum of {targets}.",
        reference=_reference(rec),
        gain=nats(rec.gain),
        volume=tokens(rec.volume),
        weights=said("weighted") if weighted else said("unweighted"),
        targets=few(map(printable, counted)),
    )


def _reference(rec: Recommendation) -> str:
    shares = list(rec.reference.values())
    return said("equal parts") if max(shares) - min(shares) < 1e-9 else listing(rec.reference, most=3)


def _share(fit: LawFit, rec: Recommendation, domain: str) -> Share:
    fitted = fit.targets.get(domain)
    low, high = fit.tried(domain)
    ours, theirs = rec.predicted.get(domain, float("nan")), rec.reference_predicted.get(domain, float("nan"))
    return Share(
        domain=printable(domain),
        weight=digits(rec.weights[domain]),
        recommended=percent(rec.mixture[domain]),
        reference=percent(rec.reference[domain]),
        tried=f"{100 * low:.1f}–{100 * high:.1f} %" if fitted or domain in fit.shares else MISSING,
        outside=not low * 0.999 <= rec.mixture[domain] <= high * 1.001,
        predicted=nats(ours),
        predicted_interval=_predicted(rec, domain),
        on_reference=nats(theirs),
        change=nats(ours - theirs),
        interval=decision.interval(rec, domain),
        extent=decision.extent(rec, domain),
    )


def _outside(rec: Recommendation, target: str) -> Share:
    """Return the row of a target that is no domain: it has losses, and no proportion."""
    ours, theirs = rec.predicted[target], rec.reference_predicted[target]
    return Share(
        domain=printable(target),
        weight=digits(rec.weights[target]),
        recommended=MISSING,
        reference=MISSING,
        tried=MISSING,
        outside=False,
        predicted=nats(ours),
        predicted_interval=_predicted(rec, target),
        on_reference=nats(theirs),
        change=nats(ours - theirs),
        interval=MISSING,
        extent=MISSING,
    )


def _predicted(rec: Recommendation, domain: str) -> str:
    if rec.uncertainty is None or domain not in rec.uncertainty.predicted.index:
        return MISSING
    low, high = between(rec.uncertainty.predicted, domain)
    return f"{nats(low)}–{nats(high)}"
