"""An analysis in the terminal: whether to act, the mixture, and the few numbers that the decision rests on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bimix_tracking.analysis.result import Analysis
from bimix_tracking.cli.console import Column, print_notes, print_table, say
from bimix_tracking.cli.summary.changes import change_lines, has_changes, print_changes
from bimix_tracking.cli.summary.model_sizes import next_command, notes_of, print_broken, size_lines, title
from bimix_tracking.display.texts import isolated, printable
from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import MISSING, about, nats, percent, signed
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.uncertainty import between
from bimix_tracking.report.decision import extent, interval, probability
from bimix_tracking.report.key_figures import rows, tile
from bimix_tracking.selection.cross_validation import Validation

_MOST = 10
"""Lines below the table, besides those of model sizes."""
_CAREFUL = "bold yellow"
_STYLES = {"act": "bold green", "inside_noise": _CAREFUL, "unchecked": _CAREFUL, "unusable": "bold red"}
_COLUMNS: Sequence[Column] = (
    (said("domain"), "left"),
    (said("recommended"), "right"),
    (said("interval"), "right"),
    (said("near-optimal range"), "right"),
    (said("reference"), "right"),
    (said("tried"), "right"),
    (said("predicted loss"), "right"),
    (said("on the reference"), "right"),
    (said("held-out error"), "right"),
)
_SAID = ("outcome", "outside")
"""Diagnostics that the recommendation's warnings have too."""
_BY_THE_LAW = ("interval", "near-optimal range", "predicted loss", "on the reference")
"""Columns that only a law which passes its check can fill."""
_OPTIONAL = ("tried", "on the reference", "interval", "predicted loss", "held-out error")
"""Columns that go where there is no room, the least important first."""


def print_analysis(found: Analysis) -> None:
    """Print the verdict and what decides, the mixture, the targets that are no domains, and at most ten lines."""
    print_notes(found.fit.notes)
    verdict = found.verdict
    careful = verdict.decision == "act" and verdict.caveats
    say(verdict.sentence, _CAREFUL if careful else _STYLES[verdict.decision])
    for caveat in verdict.caveats if verdict.usable else verdict.beside:
        say(joined([said("Warning:"), caveat.text]), "yellow")
    say()
    rec = found.recommendation
    say(title(found))
    table = list(_rows(found))
    kept = [
        i
        for i, (heading, _) in enumerate(_COLUMNS)
        if any(row[i] != MISSING for row in table) and (verdict.usable or heading not in _BY_THE_LAW)
    ]
    print_table([_COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in table], _OPTIONAL)
    if verdict.usable and has_changes(rec):
        say()
        print_changes(rec)
    print_broken(found)
    say()
    of_sizes = list(size_lines(found))
    most = _MOST + len(of_sizes)
    lines = [*((line, "") for line in (*of_sizes, *_lines(found))), *((line, "yellow") for line in _warnings(found))]
    for line, style in lines if len(lines) <= most else lines[: most - 1]:
        say(line, style)
    if len(lines) > most:
        say(said("{count} more lines are in the report.", count=len(lines) - most + 1))
    for line in next_command(found):
        say(line, whole=True)  # to be copied


def _rows(found: Analysis) -> Iterator[tuple[str, ...]]:
    rec, fit, checks = found.recommendation, found.fit, found.validation
    for name in fit.domains:
        known = name in fit.targets or name in fit.shares
        yield (
            isolated(printable(name)),
            percent(rec.mixture[name]),
            interval(rec, name),
            extent(rec, name),
            percent(rec.reference[name]),
            _span(*fit.tried(name)) if known else MISSING,
            nats(rec.predicted.get(name, math.nan)),
            nats(rec.reference_predicted.get(name, math.nan)),
            percent(math.nan if checks is None else checks.error.get(name, math.nan)),
        )


def _lines(found: Analysis) -> Iterator[str]:
    rec = found.recommendation
    if not found.verdict.usable:
        yield said("Gain, near-optimal range and saving: not reliable, the law fails its check.")
        yield from _law(found)
        return
    yield from _gain(rec)
    yield from change_lines(rec)
    yield from _freedom(rec)
    yield from _saving(found.worth)
    yield from _held_out(found.validation, rec)
    yield from _law(found)
    for domain, why in rec.binding.items():
        if str(rec.unit) == "nats per token":
            yield said("Constraint: domain {domain} is {why} nats.", domain=repr(domain), why=why)
        else:
            yield said("Constraint: domain {domain} is {why}.", domain=repr(domain), why=why)
    for domain, why in rec.held.items():
        yield said("Held: domain {domain} {why}.", domain=repr(domain), why=why)


def _warnings(found: Analysis) -> Iterator[str]:
    diagnosed = (one.text for one in found.diagnostics if one.kind not in _SAID)
    for text in (*found.warnings[len(found.verdict.caveats) :], *notes_of(found), *diagnosed):
        yield joined([said("Warning:"), text])


def _gain(rec: Recommendation) -> Iterator[str]:
    sure = rec.uncertainty
    if sure is None:
        yield said("Gain over the reference: {gain}, without an interval.", gain=rec.amount(rec.gain))
        return
    low, high = sure.gain
    numbers = {
        "gain": rec.amount(rec.gain),
        "level": 100 * sure.level,
        "low": rec.number(low),
        "high": rec.number(high),
    }
    if sure.form_error is None:
        yield said(
            "Gain over the reference: {gain} ({level:.0f} % interval {low} to {high}); P(better) {probability}. "
            "Excludes model misspecification.",
            **numbers,
            probability=probability(sure.probability),
        )
    else:
        yield said(
            "Gain over the reference: {gain} ({level:.0f} % interval {low} to {high}); P(better) {probability}.",
            **numbers,
            probability=probability(sure.probability),
        )


def _freedom(rec: Recommendation) -> Iterator[str]:
    if rec.near_optimal is None:
        return
    ends = {domain: between(rec.near_optimal.extent, domain) for domain in rec.mixture}
    widest = max(ends, key=lambda domain: ends[domain][1] - ends[domain][0])
    low, high = ends[widest]
    yield said(
        "Near-optimal range: within {tolerance} of the best, the residual standard deviation of a run; widest for "
        "{domain}, {low} to {high}.",
        tolerance=rec.amount(rec.near_optimal.tolerance),
        domain=isolated(printable(widest)),
        low=about(low),
        high=about(high),
    )


def _saving(worth: Worth | None) -> Iterator[str]:
    if worth is None:
        return
    _, saved = next(rows(worth))
    yield said("Tokens saved at equal loss: {value}.", value=saved)
    if worth.pilot_gpu_hours is None:
        return
    _, value, more = tile(worth)
    if worth.costs.target_gpu_hours is None:
        yield said("Break-even: {value}; {more}.", value=value, more=more)
    else:
        yield said("Return on investment: {value}; {more}.", value=value, more=more)


def _held_out(checks: Validation | None, rec: Recommendation | None = None) -> Iterator[str]:
    if checks is None:
        yield said("Held-out error: unknown, too few mixtures to hold one out.")
        return
    rank = checks.rank_correlation
    numbers: dict[str, object] = {"error": percent(checks.mean_error), "without": percent(checks.mean_baseline_error)}
    if math.isnan(rank):
        yield said("Held-out error: {error} (without a law {without}); rank correlation unknown.", **numbers)
        return
    numbers |= {"rank": signed(rank), "runs": len(checks.last_sums())}
    if rec is not None and not all(link.identity for link in rec.links.values()):
        yield said(
            "Held-out error: {error} of the working losses (without a law {without}); rank correlation {rank} over "
            "{runs} runs.",
            **numbers,
        )
        return
    yield said(
        "Held-out error: {error} (without a law {without}); rank correlation {rank} over {runs} runs.", **numbers
    )


def _law(found: Analysis) -> Iterator[str]:
    if found.selection is None:
        yield said("Law: {law}, as asked.", law=found.fit.law)
    else:
        yield said("Law {reason}", reason=found.selection.reason())


def _span(low: float, high: float) -> str:
    return f"{100 * low:.1f}–{100 * high:.1f} %"
