"""What a report says of the laws: how far each is off, which was chosen, and what to do about a failed fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bimix_tracking.data.links import Link
from bimix_tracking.display.texts import printable, shorten
from bimix_tracking.fitting.law_fit import LawFit
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.messages import said
from bimix_tracking.quantities import MISSING, digits, signed
from bimix_tracking.selection.cross_validation import Validation
from bimix_tracking.selection.diagnostics import Diagnostic
from bimix_tracking.selection.law_choice import Selection

SOME_NOTES = 3
"""More notes of one kind become one line: every run of a large sweep may be evaluated before training."""

FIT_NOTE = said("Errors: mean |predicted − observed| / observed.")
FIT_NOTE_OWN = said("Errors: mean |predicted − observed|, relative for losses and bits per byte.")


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


def held_out(validation: Validation | None) -> str:
    """Return in words how far the law can be trusted on held-out mixtures."""
    if validation is None:
        return said("Not checked on held-out mixtures: that takes at least three.")
    return validation.counted.sentences()


def _percent_or_missing(error: float) -> str:
    return f"{100 * error:.2f}" if np.isfinite(error) else MISSING


def _error(link: Link, error: float) -> str:
    """Return a relative error in percent, bare; of an accuracy or a score, one in its own unit with that unit."""
    if link.identity or not np.isfinite(error):
        return _percent_or_missing(error)
    return link.shown_change(error).removeprefix("+")


def fit_note(fit: LawFit) -> str:
    """Return what the errors in the table of fits are."""
    return FIT_NOTE_OWN if any(not link.identity for link in fit.links.values()) else FIT_NOTE


def fitted_row(fit: LawFit, validation: Validation | None, domain: str) -> Fitted:
    """Return a domain's row in the table of fits."""
    found, link = fit.targets[domain], fit.link(domain)
    unseen, without = (
        (validation.error.get(domain, np.nan), validation.baseline_error.get(domain, np.nan))
        if validation is not None
        else (np.nan, np.nan)
    )
    return Fitted(
        domain=printable(domain),
        parameters=tuple(digits(found.parameters.get(name, np.nan)) for name in shown(fit)),
        error=_error(link, found.error if link.identity else found.error * link.unit),  # of L near 1, as L is
        held_out=_error(link, unseen),
        baseline=_error(link, without),
        r2=signed(found.r2, 4),
        starts=f"{found.starts[0]}/{found.starts[1]}",
        points=f"{found.points}/{found.runs}",
        outcome=_name(found.outcome),
        failed=found.outcome is not Outcome.CONVERGED,
    )


def shown(fit: LawFit) -> tuple[str, ...]:
    """Return the parameters there is room for: weights of an ensemble, and what isn't one a domain."""
    names = dict.fromkeys(name for fitted in fit.targets.values() for name in fitted.parameters)
    return tuple(name for name in names if "[" not in name)


def score_rows(selection: Selection) -> Iterator[Score]:
    """Return the scoreboard, the simplest law first."""
    for row in selection.scores.to_dict("records"):
        known = np.isfinite(row["above_best"])
        above = f"{100 * row['above_best']:.2f}±{100 * row['standard_error']:.2f}".replace("-", "−")
        yield Score(
            law=printable(str(row["law"])),
            error=_percent_or_missing(row["error"]),
            above_best=above if known else MISSING,
            rank=signed(row["rank_correlation"]),
            # A table keeps plain strings: the sentences are beside it.
            note=said("chosen")
            if row["chosen"]
            else printable({**selection.notes, **selection.ineligible}.get(str(row["law"]), "")),
            chosen=bool(row["chosen"]),
        )


def bimix_rows(selection: Selection) -> Iterator[tuple[str, ...]]:
    """Return BiMix's parameters with standard errors: the law that is reported whichever was chosen."""
    if "bimix" in selection.fits:
        for domain, fitted in selection.fits["bimix"].targets.items():
            values = (
                _with_error(value, fitted.standard_errors.get(name, np.nan))
                for name, value in fitted.parameters.items()
            )
            yield (printable(domain), *values, _name(fitted.outcome))


def _with_error(value: float, error: float) -> str:
    return f"{digits(value)}±{digits(error)}" if np.isfinite(error) else digits(value)


def found_lines(diagnostics: Sequence[Diagnostic]) -> Iterator[str]:
    """Return what was diagnosed, a few of each kind."""
    kinds: dict[str, list[Diagnostic]] = {}
    for found in diagnostics:
        if found.kind not in ("outcome", "outside"):  # said by domain above, and in the warnings
            kinds.setdefault(found.kind, []).append(found)
    for alike in kinds.values():
        yield from (printable(str(found)) for found in alike[:SOME_NOTES])
        if len(alike) > SOME_NOTES:
            yield said("{kind}: {count} more, in validation.json", kind=alike[0].kind, count=len(alike) - SOME_NOTES)


def remedies(fit: LawFit, targets: Sequence[str], already: Sequence[str] = ()) -> Iterator[str]:
    """Return what to do about each kind of failed fit, with the domains it concerns, unless it is said already."""
    kinds: dict[Outcome, list[str]] = {}
    for domain in targets:
        found = fit.targets[domain]
        kinds.setdefault(found.outcome, []).append(printable(domain))
    for outcome, names in kinds.items():
        if outcome is not Outcome.CONVERGED and not any(outcome.remedy in text for text in already):
            told = {"outcome": _name(outcome), "domains": some(names), "remedy": outcome.remedy}
            if len(names) > 1:
                yield said("{outcome} (domains {domains}): {remedy}", **told)
            else:
                yield said("{outcome} (domain {domains}): {remedy}", **told)


_NAMES = {
    Outcome.CONVERGED: said("converged"),
    Outcome.AT_BOUND: said("at bound"),
    Outcome.NO_FLOOR: said("no floor"),
    Outcome.STARTS_DISAGREE: said("starts disagree"),
    Outcome.ALPHA_NOT_POSITIVE: said("alpha not positive"),
    Outcome.TOO_FEW_CHECKPOINTS: said("too few checkpoints"),
    Outcome.CONSTANT_LOSS: said("constant loss"),
    Outcome.LOSS_RISES: said("loss rises"),
    Outcome.NEARLY_CONVERGED: said("nearly converged"),
    Outcome.NOT_CONVERGED: said("not converged"),
    Outcome.SINGLE_MIXTURE: said("single mixture"),
    Outcome.TOO_FEW_POINTS: said("too few points"),
}


def _name(outcome: Outcome) -> str:
    return _NAMES[outcome]


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first names and how many more there are."""
    first = ", ".join(repr(shorten(name, 40)) for name in names[:most])
    return said("{names} and {count} more", names=first, count=len(names) - most) if len(names) > most else first
