"""The four numbers that a meeting is about, in agreement with the verdict, and what is saved at equal loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bimix_tracking.messages import joined, said
from bimix_tracking.quantities import about, count, parameters, signed, tokens
from bimix_tracking.recommendation.equal_loss import FARTHEST
from bimix_tracking.recommendation.investment.returns import Worth
from bimix_tracking.recommendation.recommendation import Recommendation
from bimix_tracking.recommendation.verdict import Verdict
from bimix_tracking.report.decision import probability, span_in_unit
from bimix_tracking.report.scale.section import Scale
from bimix_tracking.selection.cross_validation import Validation

Span = tuple[float, float]


@dataclass(frozen=True)
class KeyFigure:
    """What it is, the number, what to know of it."""

    name: str
    value: str
    more: str


def key_figures(
    rec: Recommendation,
    verdict: Verdict,
    worth: Worth | None,
    validation: Validation | None,
    scale: Scale | None = None,
) -> Iterator[KeyFigure]:
    """Return gain, probability, investment and held-out error; of an unusable law only the last has a number.

    Where a model size was asked for, what that model will lose comes first.

    Args:
        rec: The optimum and its reference.
        verdict: Whether to act on it.
        worth: What it saves.
        validation: What the law predicts of held-out mixtures.
        scale: What the report says of model sizes.
    """
    figures = [*([] if scale is None or scale.tile is None else [KeyFigure(*scale.tile)])]
    figures += [_gain(rec), _probability(rec), *([] if worth is None else [KeyFigure(*tile(worth))])]
    if not verdict.usable:
        figures = [KeyFigure(one.name, said("not reliable"), said("the law fails its check")) for one in figures]
    yield from figures
    yield _held_out(validation, rec)


def _gain(rec: Recommendation) -> KeyFigure:
    sure = rec.uncertainty
    if sure is None:
        more = said("no interval: no replicates")
    else:
        more = said("{level:.0f} % interval {low} to {high}", level=100 * sure.level, **span_in_unit(rec, sure.gain))
    if rec.of_another_size and rec.level_size is not None:
        more = joined([more, said("{size} model", size=parameters(rec.level_size))], ", ")
    elif rec.volume != rec.tokens:
        more = joined([more, said("at {tokens} tokens", tokens=tokens(rec.volume))], ", ")
    return KeyFigure(said("predicted gain"), rec.amount(rec.gain), more)


def _probability(rec: Recommendation) -> KeyFigure:
    sure, name = rec.uncertainty, said("probability of a gain")
    if sure is None:
        return KeyFigure(name, said("unknown"), said("no replicates"))
    losses = str(rec.unit) == "nats per token"
    included = said("expected loss below the reference's") if losses else said("better than the reference")
    excluded = said("excludes model misspecification")
    return KeyFigure(name, probability(sure.probability), included if sure.form_error is not None else excluded)


def _held_out(found: Validation | None, rec: Recommendation) -> KeyFigure:
    name = said("held-out error")
    if found is None:
        return KeyFigure(name, said("unknown"), said("too few mixtures to hold one out"))
    counted, rank = found.counted, found.rank_correlation
    error, without = counted.shown_mean_error(), counted.shown_mean_error(baseline=True)
    if str(rec.unit) != "accuracy":
        without = about(counted.mean_baseline_error)
    if math.isnan(rank):
        return KeyFigure(name, error, said("no law {error}; rank unknown", error=without))
    more = said("rank correlation {rank}; no law {error}", rank=signed(rank), error=without)
    return KeyFigure(name, error, more)


def savings(found: Worth) -> str:
    """Return what is saved in one line, for a terminal or a note."""
    return joined((said("{name}: {value}", name=name, value=value) for name, value in rows(found)), "; ")


def rows(found: Worth) -> Iterator[tuple[str, str]]:
    """Return what is saved at equal loss, how far that is shown, and how it compares with the pilot: names and values.

    Args:
        found: Of `worth`.
    """
    yield said("tokens saved at equal loss"), _saved(found)
    if found.beyond and found.fraction is not None:
        at = said("saved at {tokens} tokens", tokens=tokens(found.target))
        if found.at_target is None:
            yield at, said("unknown: {why}", why=found.unknown_at_target)
        else:
            yield at, said("{range}, over laws and fit windows", range=percents(found.at_target))
    if found.steps_saved is not None:
        yield said("steps saved"), span(found.steps_saved)
    if found.costs.target_gpu_hours is not None:
        hours = found.gpu_hours_saved
        yield said("compute saved"), no_figure(found) if hours is None else _hours(found, hours)
    if found.compute is not None:
        share = about(found.compute.share)
        yield said("compute of all runs"), said("{share} of the target run's, by 6 N D", share=share)
    pilot = found.pilot_gpu_hours
    if pilot is None:
        if found.return_on_compute is not None:
            yield said("return on compute"), times(found.return_on_compute)
        return
    runs = said("{hours} for {runs} runs", hours=_hours(found, (pilot, pilot)), runs=found.runs)
    yield said("pilot cost"), runs
    if found.net_gpu_hours is not None:
        yield said("net saving"), _hours(found, found.net_gpu_hours)
    if found.return_on_investment is not None:
        yield said("return on investment"), times(found.return_on_investment)
    yield said("break-even"), _break_even(found) or no_figure(found)


def tile(found: Worth) -> tuple[str, str, str]:
    """Return the key figure: its name, its value, and what to know of it.

    The return on investment where both costs are known, the break-even where the pilot's is, else the tokens saved.
    """
    even, back = _break_even(found), found.return_on_investment
    pilot = found.pilot_gpu_hours
    if pilot is None:
        name = said("tokens saved at equal loss")
        if found.fraction is None:
            return name, said("unknown"), _reason(found)
        if found.interval is None or found.span is None:
            return name, said("not demonstrated"), said("no replicates")
        shown = about(found.fraction) if found.demonstrated else said("not demonstrated")
        return name, shown, said("{range} at {tokens} tokens", range=percents(found.span), tokens=tokens(found.tokens))
    cost = _hours(found, (pilot, pilot))
    if found.costs.target_gpu_hours is None:
        value = even if found.for_target is not None else no_figure(found)
        return said("break-even"), value, said("the pilot cost {cost}", cost=cost)
    paid = said("break-even {hours}", hours=even) if even else _reason(found)
    if back is None:
        return said("return on investment"), no_figure(found), paid
    return said("return on investment"), times(back), said("net saving ÷ {cost}; {paid}", cost=cost, paid=paid)


def _reason(found: Worth) -> str:
    """Return in a few words why there is no figure; the whole reason is among the `rows`."""
    times = found.target / found.tokens
    if found.fraction is not None and times > FARTHEST:
        return said("the run has {times}× the tokens observed", times=count(times))
    return said("reason below")


def no_figure(found: Worth) -> str:
    """Return what stands where a saving has no figure: it isn't known, or isn't shown beyond the noise."""
    if found.fraction is None or (found.beyond and found.at_target is None):
        return said("unknown")
    return said("not demonstrated")


def _saved(found: Worth) -> str:
    if found.fraction is None:
        return said("unknown: {why}", why=found.unknown)
    laws = list(found.by_law.values())
    parts = [about(found.fraction) if found.fraction > 0 else said("none")]
    if found.interval is not None:
        known = {"level": 100 * found.level, "interval": percents(found.interval)}
        parts.append(said("{level:.0f} % interval {interval}", **known))
    if laws and laws != [found.fraction]:
        parts.append(said("by law {laws}", laws=percents((min(laws), max(laws)))))
    if found.anchors:
        parts.append(said("by the curves of {count} runs of that size", count=found.anchors))
    if found.beyond:
        parts.append(said("at {tokens} tokens, the largest volume observed", tokens=tokens(found.tokens)))
    if found.fraction > 0 and not found.demonstrated:
        parts.append(said("not demonstrated") if found.interval is not None else said("no replicates, no interval"))
    return joined(parts, ", ")


def _break_even(found: Worth) -> str:
    even = found.break_even_gpu_hours
    if even is None:
        return ""
    if math.isinf(even[1]):
        return said("no earlier than a run of {hours}", hours=_hours(found, (even[0], even[0])))
    return said("from a run of {hours}", hours=_hours(found, even))


def _hours(found: Worth, hours: Span) -> str:
    cost = found.money(hours)
    if cost is None:
        return said("{hours} GPU-hours", hours=span(hours))
    if not found.costs.currency:
        return said("{hours} GPU-hours (cost {cost})", hours=span(hours), cost=span(cost))
    known = {"hours": span(hours), "currency": found.costs.currency, "cost": span(cost)}
    return said("{hours} GPU-hours ({currency} {cost})", **known)


def times(ends: Span) -> str:
    """Return a range of multiples.

    >>> times((5.666, 19.0))
    '5.67 to 19×'
    """
    return said("{range}×", range=span(ends))


def span(ends: Span, shown: Callable[[float], str] = count) -> str:
    """Return a range of numbers; one that has no upper end says so.

    >>> span((400, 1200)), span((24, 24)), span((400, math.inf))
    ('400 to 1,200', '24', '400 or more')
    """
    if math.isinf(ends[1]):
        return said("{low} or more", low=shown(ends[0]))
    low, high = map(shown, ends)
    return low if low == high else said("{low} to {high}", low=low, high=high)


def percents(ends: Span) -> str:
    """Return a range of what is saved, in percent; an end that the search didn't reach is open.

    >>> percents((-0.124, 0.154)), percents((0.1, math.inf))
    ('−12.4 to 15.4 %', '10.0 % or more')
    """
    low, high = ends
    if low == high and math.isfinite(low):
        return f"{100 * low:.1f} %".replace("-", "−")
    if math.isinf(low) and math.isinf(high):
        return said("unknown") if low == high else said("without bounds")
    known = {"low": f"{100 * low:.1f}".replace("-", "−"), "high": f"{100 * high:.1f}".replace("-", "−")}
    if math.isinf(high):
        return said("{low} % or more", **known)
    if math.isinf(low):
        return said("{high} % or less", **known)
    return said("{low} to {high} %", **known)
