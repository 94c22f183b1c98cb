"""What both reports say, as sentences and numbers already printed; a renderer translates, sets and escapes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.replicates import Replicates
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, nats, percent, tokens
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.savings import Worth
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.report import decision, run_noise
from bimix_tracking.report.evidence import Evidence, Findings, evidence
from bimix_tracking.report.texts import listing, printable

CAUTION = said(
    "The gain is what the fitted law predicts of the expected loss. A single run is luckier or unluckier than that: "
    "compare it with the difference between repeated seeds before acting on it."
)
GLOSSARY = {
    said("nats per token"): said(
        "the loss: mean negative natural logarithm of the probability given to each next token; lower is better"
    ),
    said("proportion"): said(
        "the part of the training tokens that comes from a domain; those of a mixture add up to 100 %"
    ),
    said("interval"): said("where the optimal proportion is, in nine of ten such sweeps, if the law's form is right"),
    said("nearly as good"): said(
        "how far a proportion can move while the predicted sum of losses stays within one run's standard deviation of "
        "the best"
    ),
    said("alpha"): said(
        "BiMix's exponent: how strongly a domain's loss falls when its proportion grows; at 0 the proportion doesn't "
        "matter"
    ),
}


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
class KeyFigure:
    """One number that a meeting is about: what it is, the number, what to know of it."""

    name: str
    value: str
    more: str


@dataclass(frozen=True)
class Page(Evidence):
    """Everything a report says; see `page`."""

    title: str
    answer: str
    key_figures: tuple[KeyFigure, ...]
    gain: str
    sure: str
    free: str
    worth: str
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
    shown = evidence(result)
    residual = said("{residual:.1e}, 0 at the exact optimum", residual=rec.kkt_residual)
    return Page(
        **vars(shown) | {"facts": (*shown.facts, (said("optimality residual"), residual))},
        title=said("Data mixture for {tokens} tokens", tokens=tokens(rec.tokens)),
        answer=joined(
            [
                result.verdict.sentence,
                said("For {tokens} tokens: {mixture}.", tokens=tokens(rec.tokens), mixture=listing(rec.mixture)),
            ],
        ),
        key_figures=tuple(_key_figures(result)),
        gain=_gain(rec, counted, weighted=weighted),
        sure=decision.sureness(rec),
        free=decision.freedom(rec),
        worth="" if result.worth is None else decision.savings(result.worth),
        constraints=tuple(decision.constrained(rec)),
        by_law=tuple(decision.law_choices(rec)),
        noise=run_noise.measure(obs, counted).sentences(rec.gain),
        warnings=tuple(map(printable, (*result.warnings, *held_lines(rec)))),
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


def _key_figures(result: Result) -> Iterator[KeyFigure]:
    rec, sure, unseen = result.recommendation, result.recommendation.uncertainty, result.validation
    against = said("nats, against {reference}", reference=_reference(rec))
    if sure is not None:
        low, high = (nats(end) for end in sure.gain)
        against = said(
            "nats against {reference}; {level:.0f} % interval {low} to {high}",
            reference=_reference(rec),
            level=100 * sure.level,
            low=low,
            high=high,
        )
    yield KeyFigure(said("predicted gain"), nats(rec.gain), against)
    if sure is not None:
        yield KeyFigure(
            said("how sure"),
            decision.probability(sure.probability),
            said("probability that its expected loss is below the reference's")
            if sure.form_error is not None
            else said("probability that its expected loss is below the reference's, if the law's form is right"),
        )
    if result.worth is not None:
        yield KeyFigure(said("tokens saved"), *decision.saved_figure(result.worth))
    if unseen is not None:
        yield KeyFigure(
            said("off on mixtures not seen"),
            percent(unseen.mean_error),
            said("with no law at all: {error}", error=percent(unseen.mean_baseline_error)),
        )


def _gain(rec: Recommendation, counted: Mapping[str, float], *, weighted: bool) -> str:
    count = len(counted)
    summed = said("summed over {count} domains", count=count) if count > 1 else said("in its one domain")
    if not set(counted) <= set(rec.mixture):
        summed = said("summed over {count} targets", count=count) if count > 1 else said("in its one target")
    told = {
        "reference": _reference(rec),
        "gain": nats(rec.gain),
        "summed": summed,
        "weights": said("weighted as in the table") if weighted else said("weights 1"),
        "volume": tokens(rec.volume),
    }
    if rec.volume != rec.tokens:
        return said(
            "Predicted gain over the reference ({reference}) at {volume} tokens, the only volume observed: {gain} nats "
            "{summed} ({weights}). At another volume nothing is predicted.",
            **told,
        )
    return said("Predicted gain over the reference ({reference}): {gain} nats {summed} ({weights}).", **told)


def _reference(rec: Recommendation) -> str:
    shares = list(rec.reference.values())
    return said("equal parts") if max(shares) - min(shares) < 1e-9 else listing(rec.reference, most=3)


def _share(fit: LawFit, rec: Recommendation, domain: str) -> Share:
    fitted = fit.targets.get(domain)
    low, high = fit.tried(domain)
    ours, theirs = rec.predicted.get(domain, float("nan")), rec.reference_predicted.get(domain, float("nan"))
    return Share(
        domain=printable(domain),
        weight=f"{rec.weights[domain]:g}",
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
        weight=f"{rec.weights[target]:g}",
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
