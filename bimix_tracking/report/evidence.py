"""What a report says of the sweep and the fit, whether or not a mixture can be recommended from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bimix_tracking.data import metric_names
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.pooling import Note
from bimix_tracking.display.texts import printable
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, digits, nats, parameters, percent, tokens
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
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.diagnostics import Diagnostic
from bimix_tracking.selection.extrapolation import Extrapolation
from bimix_tracking.selection.law_choice import Selection


class Findings(Protocol):
    """The part of an analysis that doesn't depend on a recommendation."""

    @property
    def observations(self) -> Observations:
        """The cleaned sweep."""

    @property
    def fitted(self) -> Observations:
        """What the law was fitted to: of several model sizes the runs brought to one level; else the sweep."""

    @property
    def fit(self) -> LawFit:
        """The fitted law."""

    @property
    def validation(self) -> Validation | None:
        """What the law predicts of held-out mixtures."""

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
    def lang(self) -> str:
        """The language of the pages."""

    def lineage(self) -> dict[str, Any]:
        """Return runs, data hash and versions."""


@dataclass(frozen=True)
class Spread:
    """One domain's losses at the last checkpoints: the figures in words."""

    domain: str
    lowest: str
    lowest_at: str
    highest: str
    highest_at: str


@dataclass(frozen=True)
class Measured(Spread):
    """The same of what an evaluation measures beside the loss."""

    quantity: str


@dataclass(frozen=True)
class Run:
    """One run in the provenance."""

    name: str
    id: str
    size: str
    tokens: str
    shares: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What the sweep and the fit show, as sentences and printed numbers; see `evidence`."""

    parameters: tuple[str, ...]
    weights: str
    held_out: str
    checks: str
    choice: str
    scores: tuple[Score, ...]
    bimix: tuple[tuple[str, ...], ...]
    fitted: tuple[Fitted, ...]
    remedies: tuple[str, ...]
    spreads: tuple[Spread, ...]
    measured: tuple[Measured, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    domains: tuple[str, ...]
    runs: tuple[Run, ...]
    several_sizes: bool


def evidence(found: Findings, already: Sequence[str] = ()) -> Evidence:
    """Return what the sweep and the fit show.

    Args:
        found: An `Analysis`, or what there is of one.
        already: What the page says of it elsewhere, and need not say again.
    """
    obs, fit = found.fitted, found.fit
    targets = list(fit.targets)
    return Evidence(
        parameters=shown(fit),
        weights=said("Law columns: weights in the ensemble.") if fit.members else "",
        held_out=joined(
            [
                held_out(found.validation),
                "" if found.extrapolation is None else found.extrapolation.sentences(),
            ]
        ),
        checks=joined(_checks(found)),
        choice="" if found.selection is None else found.selection.sentences(),
        scores=() if found.selection is None else tuple(score_rows(found.selection)),
        bimix=() if found.selection is None or fit.law == "bimix" else tuple(bimix_rows(found.selection)),
        fitted=tuple(fitted_row(fit, found.validation, domain) for domain in targets),
        remedies=(*remedies(fit, targets, already), *found_lines(found.diagnostics)),
        spreads=tuple(_spread(obs, domain) for domain in targets if domain in fit.domains),
        measured=tuple(_measured(obs, [target for target in targets if target in fit.domains])),
        notes=tuple(grouped(fit.notes)),
        facts=_facts(found),
        domains=tuple(map(printable, obs.domains)),
        runs=_runs(found.observations),
        several_sizes=len(found.observations.model_sizes) > 1,
    )


def _checks(found: Findings) -> Iterator[str]:
    if found.validation is None:
        yield held_out(None)
    else:
        yield said(
            "{folds} folds, {runs} runs ranked.", folds=found.validation.folds, runs=len(found.validation.last_sums())
        )
    later = found.extrapolation
    if later is not None:
        yield said(
            "Later losses, at {at} tokens by a fit up to {until}: error {error}; last loss carried forward {carried}.",
            at=tokens(later.at),
            until=tokens(later.until),
            error=percent(later.mean_error),
            carried=percent(later.mean_carried_error),
        )


def _spread(obs: Observations, domain: str) -> Spread:
    table = obs.losses[obs.losses["domain"] == domain].drop_duplicates("run", keep="last")  # in order of tokens
    losses = table["loss"].to_numpy(float)
    shares = obs.mixtures[domain].reindex(table["run"]).to_numpy(float)
    low, high = int(losses.argmin()), int(losses.argmax())
    return Spread(printable(domain), nats(losses[low]), percent(shares[low]), nats(losses[high]), percent(shares[high]))


def _measured(obs: Observations, targets: Sequence[str]) -> Iterator[Measured]:
    for quantity in metric_names.shown():
        for domain in targets:
            known = obs.losses[(obs.losses["domain"] == domain) & obs.losses[quantity.name].notna()]
            if known.empty:
                continue
            table = known.drop_duplicates("run", keep="last")  # in order of tokens
            values = table[quantity.name].to_numpy(float)
            shares = obs.mixtures[domain].reindex(table["run"]).to_numpy(float)
            low, high = int(values.argmin()), int(values.argmax())
            ends = (digits(values[low]), percent(shares[low]), digits(values[high]), percent(shares[high]))
            yield Measured(printable(domain), *ends, quantity.shown)


def grouped(notes: Sequence[Note]) -> Iterator[str]:
    """Return notes as lines; more than a few of one kind are one line that names some of what they are of."""
    kinds: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        kinds.setdefault((note.action, note.reason), []).append(note)
    for (action, reason), alike in kinds.items():
        if len(alike) <= SOME_NOTES:
            yield from (printable(str(note)) for note in alike)
            continue
        where = [
            said(
                "{count} {what}: {names}",
                count=len(names),
                what=what if len(names) > 1 else one,
                names=some(list(names)),
            )
            for found, one, what in (
                ([note.run for note in alike], said("run"), said("runs")),
                ([note.domain for note in alike if not note.target], said("domain"), said("domains")),
                ([note.domain for note in alike if note.target], said("target"), said("targets")),
            )
            if (names := dict.fromkeys(name for name in found if name is not None))
        ]
        times = f"{sum(note.count for note in alike)}×"
        yield printable(
            said("{action}: {reason} ({where})", action=action, reason=reason, where=joined([*where, times], "; "))
        )


def _facts(found: Findings) -> tuple[tuple[str, str], ...]:
    obs, fit = found.observations, found.fit
    low, high = fit.tokens
    facts: dict[str, str] = {
        said("source"): obs.source,
        said("proxy runs"): str(len(obs.runs)),
        **({said("model sizes"): ", ".join(map(parameters, obs.model_sizes))} if obs.model_sizes else {}),
        said("training tokens observed"): said("{low} to {high}", low=tokens(low), high=tokens(high)),
        **{name.replace("_", " "): value for name, value in obs.shared.items()},
        said("data hash"): fit.data_hash,
        said("law"): fit.law if fit.members else f"{fit.law}: {fit.formula}",
        **({said("warm-up excluded"): said("up to {tokens} tokens", tokens=tokens(fit.warmup))} if fit.warmup else {}),
        said("proportion floor"): percent(fit.floor),
        said("versions"): ", ".join(f"{name} {version}" for name, version in found.lineage()["versions"].items()),
        said("created"): found.created,
    }
    return tuple((name, printable(value)) for name, value in facts.items())


def _runs(obs: Observations) -> tuple[Run, ...]:
    last = obs.losses.groupby("run", sort=False)["tokens"].max()
    shares = obs.mixtures.to_numpy(float)
    return tuple(
        Run(
            name=printable(run),
            id=printable(obs.run_ids.get(run, "")),
            size=parameters(obs.sizes[run]) if run in obs.sizes else MISSING,
            tokens=tokens(float(last[run])),
            shares=tuple(f"{100 * share:.2f}" for share in row),
        )
        for run, row in zip(obs.runs, shares, strict=True)
    )
