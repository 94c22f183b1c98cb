"""Numbers as a reader sees them: one way to print a quantity, in messages, reports, notes and on the command line."""

from __future__ import annotations

import math
import re

from bimix_tracking.messages import said

MISSING = "–"
"""Stands where there is no number."""
LEAST_PARAMETERS = 1000
"""A model has at least so many parameters: a smaller number is one in billions or millions."""

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_MYRIADS = ((1e12, "兆"), (1e8, "億"), (1e4, "万"))
_EXPONENTS = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12, "万": 4, "億": 8, "兆": 12}
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)"
"""Thousands may be in groups, as `count` and Python have them."""
_COUNT = re.compile(rf"({_DIGITS}(?:\.\d+)?|\.\d+)\s?([kmbt万億兆])", re.IGNORECASE)
_PLAIN = re.compile(rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)


def tokens(count: float) -> str:
    """Return a data volume in k, M, B or T, three digits; a catalogue may have it by myriads (50万) instead.

    >>> tokens(30e9), tokens(999.9e6), tokens(512), tokens(2_500)
    ('30B', '1B', '512', '2.5k')
    >>> [tokens(number).values["myriads"] for number in (500e3, 1.2e12, 2_500)]
    ['50万', '1.2兆', '2,500']
    """
    if not math.isfinite(count):
        return MISSING
    # Rounded before the prefix is chosen, or 999.9 million would print as 1e+03M.
    rounded = float(f"{count:.3g}")
    return said("{count}", count=_scaled(rounded, _PREFIXES), myriads=_scaled(rounded, _MYRIADS))


def _scaled(rounded: float, units: tuple[tuple[float, str], ...]) -> str:
    if rounded < 1e15:
        for size, unit in units:
            if rounded >= size:
                in_units = rounded / size
                return f"{in_units:.3g}{unit}" if in_units < 1000 else f"{in_units:,.0f}{unit}"
    return f"{rounded:,.0f}" if 1000 <= rounded < 1e15 else f"{rounded:.3g}"


def parameters(count: float) -> str:
    """Return a model size in k, M, B or T, three digits, the same in every language.

    >>> parameters(7e9), parameters(122.4e6), parameters(999.9e6), parameters(60_000)
    ('7B', '122M', '1B', '60k')
    """
    return _scaled(float(f"{count:.3g}"), _PREFIXES) if math.isfinite(count) else MISSING


def parse_tokens(text: str) -> float:
    """Return a data volume that a person wrote: the inverse of `tokens`, to its three digits.

    Takes `100B`, `1.2T`, `500k`, `20M` (in either case), `5e9`, `1_000_000`, `1,000,000` and `50万`.

    Args:
        text: A positive number of tokens.

    Raises:
        ValueError: It is none; the text says how one is written.

    >>> parse_tokens("100B"), parse_tokens("1.2T"), parse_tokens("5e9"), parse_tokens("1_000_000")
    (100000000000.0, 1200000000000.0, 5000000000.0, 1000000.0)
    >>> parse_tokens(tokens(19_680))
    19700.0
    >>> parse_tokens("many")
    Traceback (most recent call last):
    ValueError: 'many' is not a number of tokens, such as 100B, 5e9 or 1_000_000
    """
    number = _number(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{text!r} is not a number of tokens, such as 100B, 5e9 or 1_000_000")
    return number


def parse_parameters(text: str) -> float:
    """Return a model size that a person wrote: the inverse of `parameters`, to its three digits.

    Takes what `parse_tokens` takes. A number below 1,000 is no model's: whoever writes 7 means 7B.

    Args:
        text: A number of parameters, at least 1,000.

    Raises:
        ValueError: It is none; the text says how one is written, or what was meant.

    >>> parse_parameters("7B"), parse_parameters("122M"), parse_parameters("1.2e9")
    (7000000000.0, 122000000.0, 1200000000.0)
    >>> parse_parameters("7")
    Traceback (most recent call last):
    ValueError: '7' is not a number of parameters; did you mean 7B (7e9)?
    >>> parse_parameters("large")
    Traceback (most recent call last):
    ValueError: 'large' is not a number of parameters, such as 7B, 122M or 1.2e9
    """
    number = _number(text)
    if math.isfinite(number) and number >= LEAST_PARAMETERS:
        return number
    raise ValueError(f"{text!r} is not a number of parameters{size_meant(number)}")


def size_meant(number: float) -> str:
    """Return what follows a number that is no model size in an error: the size that was probably meant.

    Up to 100 it is in billions, as sizes are spoken; from there it may as well be in millions.

    >>> print("a model of 7 parameters" + size_meant(7))
    a model of 7 parameters; did you mean 7B (7e9)?
    >>> size_meant(0.5), size_meant(122), size_meant(-1)
    ('; did you mean 500M (5e8)?', '; did you mean 122M (1.22e8)?', ', such as 7B, 122M or 1.2e9')
    """
    if not 0.001 <= number < LEAST_PARAMETERS:
        return ", such as 7B, 122M or 1.2e9"
    meant = float(f"{number * (1e9 if number < 100 else 1e6):.3g}")
    mantissa, _, exponent = f"{meant:e}".partition("e")
    return f"; did you mean {parameters(meant)} ({mantissa.rstrip('0').rstrip('.')}e{int(exponent)})?"


def _number(text: str) -> float:
    """Return a number as people write it, with or without a prefix; NaN where it is none."""
    given = text.strip()
    scaled = _COUNT.fullmatch(given)
    if scaled:
        # The exponent is read, not multiplied by: 1.1 · 1e9 isn't the number nearest to 1.1e9
        return float(f"{_ungrouped(scaled[1])}e{_EXPONENTS[scaled[2].casefold()]}")
    return float(_ungrouped(given)) if _PLAIN.fullmatch(given) else math.nan


def parse_share(text: str) -> float:
    """Return a proportion that a person wrote, `0.2` or `20%`.

    Args:
        text: From 0 to 1, or from 0 % to 100 %.

    Raises:
        ValueError: It is none; the text says how one is written.

    >>> parse_share("0.2"), parse_share("20%"), parse_share("12.5 %")
    (0.2, 0.2, 0.125)
    >>> parse_share("20")
    Traceback (most recent call last):
    ValueError: '20' is not a proportion from 0 to 1, such as 0.2 or 20%
    """
    given = text.strip()
    number = given.removesuffix("%").rstrip()
    share = float(number) if _PLAIN.fullmatch(number) else math.nan
    share = share / 100 if number != given else share
    if not 0 <= share <= 1:
        raise ValueError(f"{text!r} is not a proportion from 0 to 1, such as 0.2 or 20%")
    return share


def _ungrouped(number: str) -> str:
    return number.replace(",", "").replace("_", "")


def count(number: float) -> str:
    """Return a number of things, such as GPU-hours: thousands in groups, small ones with three digits.

    >>> count(19680.4), count(412.0), count(3.14159), count(-0.02), count(float("nan"))
    ('19,680', '412', '3.14', '−0.02', '–')
    """
    if not math.isfinite(number):
        return MISSING
    text = f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return text.replace("-", "−")


def signed(number: float, digits: int = 2) -> str:
    """Return a number with so many decimals and a true minus, such as a correlation.

    >>> signed(-0.8), signed(0.931, 2), signed(float("nan"))
    ('−0.80', '0.93', '–')
    """
    return f"{number:.{digits}f}".replace("-", "−") if math.isfinite(number) else MISSING


def percent(share: float) -> str:
    """Return a proportion in percent, to the hundredth.

    >>> percent(0.41237), percent(float("nan"))
    ('41.24 %', '–')
    """
    return f"{100 * share:.2f} %" if math.isfinite(share) else MISSING


def about(share: float) -> str:
    """Return a proportion in percent, with as many digits as a sentence bears.

    >>> about(0.41237), about(0.0341), about(0.0004), about(0.0)
    ('41 %', '3.4 %', '<0.1 %', '0 %')
    """
    if not math.isfinite(share):
        return MISSING
    if 0 < share < 0.0005:
        return "<0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def nats(loss: float) -> str:
    """Return a loss, or a difference of losses, to the tenth of a millinat.

    >>> nats(2.34567), nats(-0.00001), nats(-0.5)
    ('2.3457', '0.0000', '−0.5000')
    """
    if not math.isfinite(loss):
        return MISSING
    text = f"{loss:.4f}"
    return "0.0000" if text == "-0.0000" else text.replace("-", "−")


def accuracy(share: float) -> str:
    """Return an accuracy in percent, to the tenth.

    >>> accuracy(0.41237)
    '41.2 %'
    """
    return f"{100 * share:.1f} %" if math.isfinite(share) else MISSING


def points(change: float) -> str:
    """Return a change of an accuracy in percentage points, with its sign.

    >>> points(0.0123), points(-0.004), points(0.0)
    ('+1.2 pp', '−0.4 pp', '0.0 pp')
    """
    if not math.isfinite(change):
        return MISSING
    text = f"{100 * change:.1f}"
    if text in ("0.0", "-0.0"):
        return "0.0 pp"
    return f"+{text} pp" if change > 0 else f"{text} pp".replace("-", "−")


def digits(value: float) -> str:
    """Return a number of unknown size with four digits.

    >>> digits(0.123456), digits(1234567.0), digits(float("nan"))
    ('0.1235', '1.235e+06', '–')
    """
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else MISSING


def flops(number: float) -> str:
    """Return floating-point operations as papers have them, two digits and a power of ten.

    >>> flops(4.23e22), flops(1e20), flops(float("nan"))
    ('4.2e22', '1e20', '–')
    """
    return f"{number:.1e}".replace(".0e", "e").replace("e+", "e") if math.isfinite(number) else MISSING


def parse_flops(text: str) -> float:
    """Return floating-point operations that a person wrote: the inverse of `flops`.

    Args:
        text: A positive number, such as 1e20.

    Raises:
        ValueError: It is none; the text says how one is written.

    >>> parse_flops("1e20"), parse_flops("4.2e22")
    (1e+20, 4.2e+22)
    >>> parse_flops("1 exaflop")
    Traceback (most recent call last):
    ValueError: '1 exaflop' is not a number of FLOPs, such as 1e20
    """
    given = text.strip()
    number = float(_ungrouped(given)) if _PLAIN.fullmatch(given) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{text!r} is not a number of FLOPs, such as 1e20")
    return number
