"""What is written on the command line: tokens, sizes, shares, `DOMAIN=NUMBER` entries, guards, names of a known set.

All of it is refused before anything is read; the error names the option, the text and how it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

import typer

from bimix_tracking.errors import BimixError, did_you_mean, shown
from bimix_tracking.quantities import parse_flops, parse_parameters, parse_share, parse_tokens

S = TypeVar("S", bound=str)
T = TypeVar("T")


def tokens_of(text: str, option: str) -> float:
    """Return a number of tokens.

    >>> tokens_of("1.2T", "--tokens")
    1200000000000.0
    """
    return _parsed(parse_tokens, text, option)


def parameters_of(text: str, option: str = "--model-size") -> float:
    """Return a model size.

    >>> parameters_of("7B")
    7000000000.0
    """
    return _parsed(parse_parameters, text, option)


def flops_of(text: str, option: str = "--budget-flops") -> float:
    """Return a number of floating-point operations.

    >>> flops_of("1e20")
    1e+20
    """
    return _parsed(parse_flops, text, option)


def share_of(text: str, option: str) -> float:
    """Return a part of a whole, above 0.

    >>> share_of("50%", "--anchor-part")
    0.5
    """
    share = _parsed(parse_share, text, option)
    if not share > 0:
        raise typer.BadParameter(f"{text!r} is not above 0, such as 50%", param_hint=option)
    return share


def tokens_by_domain(pairs: Sequence[str] | None, option: str = "--available") -> dict[str, float] | None:
    """Return `DOMAIN=TOKENS` entries as a mapping; None where there is none.

    >>> tokens_by_domain(["code=5B", "a=b=1e9"])
    {'code': 5000000000.0, 'a=b': 1000000000.0}
    """
    return _by_domain(pairs, option, "DOMAIN=TOKENS, such as code=5B", parse_tokens)


def weights_by_target(pairs: Sequence[str] | None, option: str = "--weight") -> dict[str, float] | None:
    """Return `TARGET=NUMBER` entries, of targets and groups of them, as a mapping; None where there is none."""
    return _by_domain(pairs, option, "TARGET=NUMBER, such as code=2", _weight, "target")


def bounds_by_domain(
    pairs: Sequence[str] | None, option: str = "--bound"
) -> dict[str, float | tuple[float, float]] | None:
    """Return `DOMAIN=LOW:HIGH` entries as bounds and `DOMAIN=SHARE` entries as pins; None where there is none.

    >>> bounds_by_domain(["code=5%:40%", "web=0.3"])
    {'code': (0.05, 0.4), 'web': 0.3}
    """
    return _by_domain(pairs, option, "DOMAIN=LOW:HIGH or DOMAIN=SHARE, such as code=5%:40%", _bound)


def epochs_by_domain(
    entries: Sequence[str] | None, available: Iterable[str] | None, default: float, option: str = "--max-epochs"
) -> float | dict[str, float]:
    """Return how often tokens may be repeated: a number for all, or by domain.

    Args:
        entries: `NUMBER`, at most once, and `DOMAIN=NUMBER`.
        available: Domains whose tokens are known: those that the number is for.
        default: The number where none is given.
        option: Named in an error.

    >>> epochs_by_domain(["2", "code=8"], ["code", "web"], default=4.0)
    {'code': 8.0, 'web': 2.0}
    """
    if entries and available is None:
        raise typer.BadParameter("needs --available, the distinct tokens of each domain", param_hint=option)
    everywhere = [entry for entry in entries or () if "=" not in entry]
    named = [entry for entry in entries or () if "=" in entry]
    if len(everywhere) > 1:
        raise typer.BadParameter(f"one number for all domains, got {', '.join(everywhere)}", param_hint=option)
    rest = _parsed(_epochs, everywhere[0], option) if everywhere else default
    by_domain = _by_domain(named, option, "NUMBER or DOMAIN=NUMBER, such as code=2", _epochs)
    return rest if by_domain is None else dict.fromkeys(available or (), rest) | by_domain


def guards_of(texts: Sequence[str] | None, option: str = "--guard") -> tuple[str, ...]:
    """Return guards as they were written, each of which is one.

    >>> guards_of(["code<=+0.5%", "mmlu>=-0.5pp"])
    ('code<=+0.5%', 'mmlu>=-0.5pp')
    """
    from bimix_tracking.recommendation.guards import parse_guard  # noqa: PLC0415  # --help must not wait for NumPy

    found: dict[str, str] = {}
    for text in texts or ():
        if not any(sign in text for sign in "<>≤≥"):
            # An unquoted `mmlu>=-0.5pp` is `mmlu`, and the answer is in a file `=-0.5pp`.
            raise typer.BadParameter(
                f"{text!r} has no <= or >=. Put a guard in quotes, {text + '<=+0.5%'!r}: without them, a shell takes < "
                "and > for files",
                param_hint=option,
            )
        try:
            target = parse_guard(text).target
        except BimixError as error:
            raise typer.BadParameter(str(error), param_hint=option) from error
        if target in found:
            raise typer.BadParameter(
                f"target {target!r} has two guards, {found[target]!r} and {text!r}: keep one", param_hint=option
            )
        found[target] = text
    return tuple(found.values())


def probability_of(text: str, option: str = "--guard-probability") -> float:
    """Return a probability between 0 and 1.

    >>> probability_of("90%")
    0.9
    """
    share = _parsed(parse_share, text, option)
    if not 0 < share < 1:
        raise typer.BadParameter(f"{text!r} is not between 0 and 1, such as 0.9", param_hint=option)
    return share


def change_of(text: str, measure: str, option: str = "--max-change") -> float:
    """Return how far a mixture may be from the reference: a part of the tokens, or nats of divergence.

    >>> change_of("10%", "tv"), change_of("1.5", "kl")
    (0.1, 1.5)
    """
    if measure == "tv":
        return _parsed(parse_share, text, option)
    nats = _number(text)
    if not (math.isfinite(nats) and nats >= 0):
        raise typer.BadParameter(f"{text!r} is not a number of nats, 0 or more", param_hint=option)
    return nats


def one_of(value: str, known: Collection[S], option: str, what: str) -> S:
    """Return a value that must be one of a known set.

    Args:
        value: As it is given.
        known: What it may be.
        option: Named in an error.
        what: What it is one of, in a word.
    """
    for each in known:
        if each == value:
            return each
    raise typer.BadParameter(f"no {what} {shown(value)}; {did_you_mean(value, known)}", param_hint=option)


def _by_domain(
    pairs: Sequence[str] | None, option: str, form: str, parse: Callable[[str], T], what: str = "domain"
) -> dict[str, T] | None:
    """Return the entries of a mapping; names may hold `=`."""
    found: dict[str, T] = {}
    for pair in pairs or ():
        domain, equals, value = pair.rpartition("=")
        if not (equals and domain.strip() and value.strip()):
            raise typer.BadParameter(f"{pair!r} is not {form}", param_hint=option)
        if domain in found:
            raise typer.BadParameter(f"{what} {domain!r} is given twice: keep one", param_hint=option)
        try:
            found[domain] = parse(value)
        except ValueError as error:
            raise typer.BadParameter(f"{pair!r}: {error}", param_hint=option) from error
    return found or None


def _parsed(parse: Callable[[str], float], text: str, option: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _weight(text: str) -> float:
    number = _number(text)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{text!r} is not a weight, 0 or more")
    return number


def _epochs(text: str) -> float:
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{text!r} is not a positive number of epochs")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bound(text: str) -> float | tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        return parse_share(low)
    ends = parse_share(low), parse_share(high)
    if ends[0] > ends[1]:
        raise ValueError(f"the least, {low.strip()}, is above the most, {high.strip()}")
    return ends
