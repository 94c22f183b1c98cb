"""What both reports say, as plain text and numbers already printed; a renderer only sets and escapes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from bimix_tracking.diagnostics import Diagnostic
from bimix_tracking.extrapolation import Extrapolation
from bimix_tracking.law_fit import LawFit, Outcome
from bimix_tracking.observations import Observations
from bimix_tracking.pooling import Note
from bimix_tracking.recommendation import Recommendation
from bimix_tracking.report import noise
from bimix_tracking.report.numbers import MISSING, digits, listing, nats, percent, printable, shorten, tokens
from bimix_tracking.selection import Selection
from bimix_tracking.validation import Validation

_SOME_NOTES = 3
"""More notes of one kind become one line: every run of a large sweep may be evaluated before training."""

CAUTION = (
    "The gain is what the fitted law predicts, and no uncertainty is attached to it yet. "
    "Compare it with the difference between repeated seeds before acting on it."
)
FIT_NOTE = (
    "Errors are means of |predicted − observed| / observed. The fit error is on the very runs that were fitted; the "
    "held-out error is on mixtures that the fit has not seen, and beside it that of the mean of the other runs at the "
    "same token count, with no law at all. None of them says anything about token counts that were not tried. "
    "R² mostly sees the fall of the loss along training."
)
GLOSSARY = {
    "nats per token": "the loss: mean negative natural logarithm of the probability given to each next token; "
    "lower is better",
    "proportion": "the part of the training tokens that comes from a domain; those of a mixture add up to 100 %",
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


@dataclass(frozen=True)
class Fitted:
    """One domain in the table of fits; `failed` where there is something to do about it."""

    domain: str
    parameters: tuple[str, ...]
    error: str
    held_out: str
    baseline: str
    r2: str
    starts: str
    points: str
    outcome: str
    failed: bool


@dataclass(frozen=True)
class Score:
    """One law in the scoreboard."""

    law: str
    error: str
    above_best: str
    rank: str
    note: str
    chosen: bool


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
        answer=f"For {tokens(rec.tokens)} tokens: {listing(rec.mixture)}.",
        gain=_gain(rec, len(targets), weighted=weighted),
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
        parameters=_shown(fit),
        weights="The columns of laws are their weights in the ensemble." if fit.members else "",
        held_out=_held_out(result.validation)
        + ("" if result.extrapolation is None else f" {result.extrapolation.sentences()}"),
        choice="" if result.selection is None else result.selection.sentences(),
        scores=() if result.selection is None else tuple(_scores(result.selection)),
        bimix=() if result.selection is None or fit.law == "bimix" else tuple(_bimix(result.selection)),
        fitted=tuple(_fitted(fit, result.validation, domain) for domain in targets),
        remedies=(*_remedies(fit, targets), *_found(result.diagnostics)),
        spreads=tuple(_spread(obs, domain) for domain in targets),
        notes=tuple(grouped(fit.notes)),
        facts=_facts(result),
        domains=tuple(map(printable, obs.domains)),
        runs=_runs(obs),
    )


def _gain(rec: Recommendation, count: int, *, weighted: bool) -> str:
    summed = f"summed over {count} domains" if count > 1 else "in its one domain"
    weights = "weighted as in the table" if weighted else "weights 1"
    said = f"Predicted gain over the reference ({_reference(rec)}): {nats(rec.gain)} nats {summed} ({weights})."
    return said if rec.gain > 0 else f"{said} The law predicts nothing to win over the reference."


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
        tried=f"{100 * low:.2f} to {100 * high:.2f} %" if fitted else MISSING,
        outside=bool(fitted) and not low * 0.999 <= rec.mixture[domain] <= high * 1.001,
        predicted=nats(ours),
        on_reference=nats(theirs),
        change=nats(ours - theirs),
    )


def _held_out(validation: Validation | None) -> str:
    if validation is None:
        return "Nothing is known of mixtures the law has not seen: leaving one out takes at least three mixtures."
    return validation.sentences()


def _percent_or_missing(error: float) -> str:
    return f"{100 * error:.2f}" if np.isfinite(error) else MISSING


def _fitted(fit: LawFit, validation: Validation | None, domain: str) -> Fitted:
    found = fit.targets[domain]
    unseen, without = (
        (validation.error.get(domain, np.nan), validation.baseline_error.get(domain, np.nan))
        if validation is not None
        else (np.nan, np.nan)
    )
    return Fitted(
        domain=printable(domain),
        parameters=tuple(digits(found.parameters.get(name, np.nan)) for name in _shown(fit)),
        error=_percent_or_missing(found.error),
        held_out=_percent_or_missing(unseen),
        baseline=_percent_or_missing(without),
        r2=f"{found.r2:.4f}".replace("-", "−") if np.isfinite(found.r2) else MISSING,
        starts=f"{found.starts[0]} of {found.starts[1]}",
        points=f"{found.points} / {found.runs}",
        outcome=_name(found.outcome),
        failed=found.outcome is not Outcome.CONVERGED,
    )


def _shown(fit: LawFit) -> tuple[str, ...]:
    """Return the parameters there is room for: weights of an ensemble, and what isn't one a domain."""
    names = dict.fromkeys(name for fitted in fit.targets.values() for name in fitted.parameters)
    return tuple(name for name in names if "[" not in name)


def _scores(selection: Selection) -> Iterator[Score]:
    for row in selection.scores.to_dict("records"):
        known = np.isfinite(row["above_best"])
        above = f"{100 * row['above_best']:.2f} ± {100 * row['standard_error']:.2f}".replace("-", "−")
        yield Score(
            law=printable(str(row["law"])),
            error=_percent_or_missing(row["error"]),
            above_best=above if known else MISSING,
            rank=f"{row['rank_correlation']:.2f}".replace("-", "−")
            if np.isfinite(row["rank_correlation"])
            else MISSING,
            note="chosen" if row["chosen"] else printable(str(row["note"])),
            chosen=bool(row["chosen"]),
        )


def _bimix(selection: Selection) -> Iterator[tuple[str, ...]]:
    """Return BiMix's parameters with standard errors: the law that is reported whichever was chosen."""
    if "bimix" in selection.fits:
        for domain, fitted in selection.fits["bimix"].targets.items():
            values = (
                f"{digits(value)} ± {digits(fitted.standard_errors.get(name, np.nan))}"
                for name, value in fitted.parameters.items()
            )
            yield (printable(domain), *values, _name(fitted.outcome))


def _found(diagnostics: Sequence[Diagnostic]) -> Iterator[str]:
    kinds: dict[str, list[Diagnostic]] = {}
    for found in diagnostics:
        if found.kind not in ("outcome", "outside"):  # said by domain above, and in the warnings
            kinds.setdefault(found.kind, []).append(found)
    for alike in kinds.values():
        yield from (printable(str(found)) for found in alike[:_SOME_NOTES])
        if len(alike) > _SOME_NOTES:
            yield f"{alike[0].kind}: {len(alike) - _SOME_NOTES} more, in validation.json"


def _remedies(fit: LawFit, targets: Sequence[str]) -> Iterator[str]:
    """Return what to do about each kind of failed fit, with the domains it concerns."""
    kinds: dict[Outcome, list[str]] = {}
    for domain in targets:
        found = fit.targets[domain]
        kinds.setdefault(found.outcome, []).append(printable(domain))
    for outcome, names in kinds.items():
        if outcome is not Outcome.CONVERGED:
            yield f"{_name(outcome)} (domain{'s' if len(names) > 1 else ''} {_some(names)}): {outcome.remedy}"


def _name(outcome: Outcome) -> str:
    return outcome.name.lower().replace("_", " ")


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
        if len(alike) <= _SOME_NOTES:
            yield from (printable(str(note)) for note in alike)
            continue
        where = [
            f"{len(names)} {what}{'s' if len(names) > 1 else ''}: {_some(list(names))}"
            for what in ("run", "domain")
            if (names := dict.fromkeys(name for note in alike if (name := getattr(note, what)) is not None))
        ]
        yield printable(f"{action}: {reason} ({'; '.join([*where, f'{sum(note.count for note in alike)}×'])})")


def _some(names: Sequence[str], most: int = 5) -> str:
    said = ", ".join(repr(shorten(name, 40)) for name in names[:most])
    return f"{said} and {len(names) - most} more" if len(names) > most else said


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
