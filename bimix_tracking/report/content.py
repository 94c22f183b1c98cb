"""What both reports say, as plain text and numbers already printed; a renderer only sets and escapes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bimix_tracking.diagnostics import Diagnostic
from bimix_tracking.extrapolation import Extrapolation
from bimix_tracking.law_fit import LawFit
from bimix_tracking.observations import Observations
from bimix_tracking.pooling import Note
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.report import decision, noise
from bimix_tracking.report.laws import (
    SOME_NOTES,
    Fitted,
    Score,
    bimix_rows,
    fitted_row,
    found_lines,
    held_out,
    remedies,
    score_rows,
    shown,
    some,
)
from bimix_tracking.report.numbers import MISSING, listing, nats, percent, printable, tokens
from bimix_tracking.selection import Selection
from bimix_tracking.validation import Validation
from bimix_tracking.worth import Worth

CAUTION = (
    "The gain is what the fitted law predicts of the expected loss. A single run is luckier or unluckier than that: "
    "compare it with the difference between repeated seeds before acting on it."
)
GLOSSARY = {
    "nats per token": "the loss: mean negative natural logarithm of the probability given to each next token; "
    "lower is better",
    "proportion": "the part of the training tokens that comes from a domain; those of a mixture add up to 100 %",
    "interval": "where the optimal proportion is, in nine of ten such sweeps, if the law's form is right",
    "nearly as good": "how far a proportion can move while the predicted sum of losses stays within one run's standard "
    "deviation of the best",
    "alpha": "BiMix's exponent: how strongly a domain's loss falls when its proportion grows; at 0 the proportion "
    "doesn't matter",
}


class Result(Protocol):
    """The part of `Analysis` that a report reads; named here so that `analysis` may import this package."""

    @property
    def observations(self) -> Observations:
        """The cleaned sweep."""

    @property
    def fit(self) -> LawFit:
        """The fitted law."""

    @property
    def recommendation(self) -> Recommendation:
        """The optimum and its reference."""

    @property
    def validation(self) -> Validation | None:
        """What the law predicts of mixtures it has not seen."""

    @property
    def created(self) -> str:
        """When, UTC."""

    @property
    def selection(self) -> Selection | None:
        """How the law was chosen."""

    @property
    def extrapolation(self) -> Extrapolation | None:
        """How well the law predicts more tokens."""

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What to know before acting."""

    @property
    def worth(self) -> Worth | None:
        """What it saves."""

    def lineage(self) -> dict[str, Any]:
        """Return runs, data hash and versions."""


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
    on_reference: str
    change: str
    interval: str
    extent: str


@dataclass(frozen=True)
class Spread:
    """One domain's losses at the last checkpoints: the figures in words."""

    domain: str
    lowest: str
    lowest_at: str
    highest: str
    highest_at: str


@dataclass(frozen=True)
class Run:
    """One run in the provenance."""

    name: str
    id: str
    tokens: str
    shares: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """Everything a report says, top to bottom; see `page`."""

    title: str
    answer: str
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
    parameters: tuple[str, ...]
    weights: str
    held_out: str
    choice: str
    scores: tuple[Score, ...]
    bimix: tuple[tuple[str, ...], ...]
    fitted: tuple[Fitted, ...]
    remedies: tuple[str, ...]
    spreads: tuple[Spread, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    domains: tuple[str, ...]
    runs: tuple[Run, ...]


def page(result: Result) -> Page:
    """Return what the report of an analysis says.

    Args:
        result: An `Analysis`.
    """
    obs, fit, rec = result.observations, result.fit, result.recommendation
    targets = [target for target in fit.targets if target in fit.domains]
    weighted = any(rec.weights.get(d, 1.0) != 1 for d in targets)
    return Page(
        title=f"Data mixture for {tokens(rec.tokens)} tokens",
        answer=f"{decision.verdict(rec)}For {tokens(rec.tokens)} tokens: {listing(rec.mixture)}.",
        gain=_gain(rec, len(targets), weighted=weighted),
        sure=decision.sureness(rec),
        free=decision.freedom(rec),
        worth="" if result.worth is None else decision.savings(result.worth),
        constraints=tuple(decision.constrained(rec)),
        by_law=tuple(decision.law_choices(rec)),
        noise=noise.measure(obs, {d: rec.weights.get(d, 1.0) for d in targets}).sentences(rec.gain),
        warnings=tuple(
            printable(text) for text in (*rec.warnings, *(f"domain {d!r} {why}" for d, why in rec.held.items()))
        ),
        weighted=weighted,
        reference=_reference(rec),
        shares=tuple(_share(fit, rec, domain) for domain in fit.domains),
        total=(
            nats(sum(rec.weights.get(d, 1.0) * rec.predicted[d] for d in targets)),
            nats(sum(rec.weights.get(d, 1.0) * rec.reference_predicted[d] for d in targets)),
            nats(-rec.gain),
        ),
        parameters=shown(fit),
        weights="The columns of laws are their weights in the ensemble." if fit.members else "",
        held_out=held_out(result.validation)
        + ("" if result.extrapolation is None else f" {result.extrapolation.sentences()}"),
        choice="" if result.selection is None else result.selection.sentences(),
        scores=() if result.selection is None else tuple(score_rows(result.selection)),
        bimix=() if result.selection is None or fit.law == "bimix" else tuple(bimix_rows(result.selection)),
        fitted=tuple(fitted_row(fit, result.validation, domain) for domain in targets),
        remedies=(*remedies(fit, targets), *found_lines(result.diagnostics)),
        spreads=tuple(_spread(obs, domain) for domain in targets),
        notes=tuple(grouped(fit.notes)),
        facts=_facts(result),
        domains=tuple(map(printable, obs.domains)),
        runs=_runs(obs),
    )


def _gain(rec: Recommendation, count: int, *, weighted: bool) -> str:
    summed = f"summed over {count} domains" if count > 1 else "in its one domain"
    weights = "weighted as in the table" if weighted else "weights 1"
    return f"Predicted gain over the reference ({_reference(rec)}): {nats(rec.gain)} nats {summed} ({weights})."


def _reference(rec: Recommendation) -> str:
    shares = list(rec.reference.values())
    return "equal parts" if max(shares) - min(shares) < 1e-9 else listing(rec.reference, most=3)


def _share(fit: LawFit, rec: Recommendation, domain: str) -> Share:
    fitted = fit.targets.get(domain)
    low, high = fitted.shares if fitted else (float("nan"), float("nan"))
    ours, theirs = rec.predicted.get(domain, float("nan")), rec.reference_predicted.get(domain, float("nan"))
    return Share(
        domain=printable(domain),
        weight=f"{rec.weights.get(domain, 1.0):g}",
        recommended=percent(rec.mixture[domain]),
        reference=percent(rec.reference[domain]),
        tried=f"{100 * low:.1f}–{100 * high:.1f} %" if fitted else MISSING,
        outside=bool(fitted) and not low * 0.999 <= rec.mixture[domain] <= high * 1.001,
        predicted=nats(ours),
        on_reference=nats(theirs),
        change=nats(ours - theirs),
        interval=decision.interval(rec, domain),
        extent=decision.extent(rec, domain),
    )


def _spread(obs: Observations, domain: str) -> Spread:
    table = obs.losses[obs.losses["domain"] == domain].drop_duplicates("run", keep="last")  # in order of tokens
    losses = table["loss"].to_numpy(float)
    shares = obs.mixtures[domain].reindex(table["run"]).to_numpy(float)
    low, high = int(losses.argmin()), int(losses.argmax())
    return Spread(printable(domain), nats(losses[low]), percent(shares[low]), nats(losses[high]), percent(shares[high]))


def grouped(notes: Sequence[Note]) -> Iterator[str]:
    """Return notes as lines; more than a few of one kind are one line that names some of their runs and domains."""
    kinds: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        kinds.setdefault((note.action, note.reason), []).append(note)
    for (action, reason), alike in kinds.items():
        if len(alike) <= SOME_NOTES:
            yield from (printable(str(note)) for note in alike)
            continue
        where = [
            f"{len(names)} {what}{'s' if len(names) > 1 else ''}: {some(list(names))}"
            for what in ("run", "domain")
            if (names := dict.fromkeys(name for note in alike if (name := getattr(note, what)) is not None))
        ]
        yield printable(f"{action}: {reason} ({'; '.join([*where, f'{sum(note.count for note in alike)}×'])})")


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    obs, fit = result.observations, result.fit
    low, high = fit.tokens
    facts = {
        "source": obs.source,
        "proxy runs": str(len(obs.runs)),
        "training tokens observed": f"{tokens(low)} to {tokens(high)}",
        **{name.replace("_", " "): value for name, value in obs.shared.items()},
        "data hash": fit.data_hash,
        "law": f"{fit.law}: {fit.formula}",
        **({"warm-up set aside": f"up to {tokens(fit.warmup)} tokens"} if fit.warmup else {}),
        "Huber delta": f"{fit.huber_delta:g}, in log loss: a larger relative error pulls no harder",
        "smallest proportion in the law": percent(fit.floor),
        "optimality residual": f"{result.recommendation.kkt_residual:.1e}, 0 at the exact optimum",
        "versions": ", ".join(f"{name} {version}" for name, version in result.lineage()["versions"].items()),
        "created": result.created,
    }
    return tuple((name, printable(value)) for name, value in facts.items())


def _runs(obs: Observations) -> tuple[Run, ...]:
    last = obs.losses.groupby("run", sort=False)["tokens"].max()
    shares = obs.mixtures.to_numpy(float)
    return tuple(
        Run(
            name=printable(run),
            id=printable(obs.run_ids.get(run, "")),
            tokens=tokens(float(last[run])),
            shares=tuple(f"{100 * share:.2f}" for share in row),
        )
        for run, row in zip(obs.runs, shares, strict=True)
    )
