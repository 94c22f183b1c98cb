"""Numbers and names as a reader sees them: one way to print a quantity, for both reports."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping

from bimix_tracking.messages import Said, said

MISSING = "–"
"""Stands where there is no number."""

_ISOLATES = "\u2068\u2069"
_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def tokens(count: float) -> str:
    """Return a data volume in k, M, B or T, three digits.

    >>> tokens(30e9), tokens(999.9e6), tokens(512), tokens(2_500)
    ('30B', '1B', '512', '2.5k')
    """
    if not math.isfinite(count):
        return MISSING
    # Rounded before the prefix is chosen, or 999.9 million would print as 1e+03M.
    rounded = float(f"{count:.3g}")
    if rounded < 1e15:
        for size, prefix in _PREFIXES:
            if rounded >= size:
                return f"{rounded / size:.3g}{prefix}"
    return f"{rounded:.3g}"


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


def digits(value: float) -> str:
    """Return a number of unknown size with four digits.

    >>> digits(0.123456), digits(1234567.0), digits(float("nan"))
    ('0.1235', '1.235e+06', '–')
    """
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else MISSING


def printable(text: str) -> str:
    r"""Return text on one line and without control characters, which no name needs and a page can be broken with.

    >>> printable("a\nb\x00c")
    'a b�c'
    """
    if isinstance(text, Said):
        return Said(text.template, {n: printable(v) if isinstance(v, str) else v for n, v in text.values.items()})
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() or c in _ISOLATES else "�" for c in spaced)


def isolated(name: str) -> str:
    """Return a name so that a sentence around it keeps its order, if it is written from right to left.

    Without that, the number after such a name would be shown before it, as if it were the name's own.

    >>> isolated("code"), len(isolated("עברית"))
    ('code', 7)
    """
    clean = "".join(c for c in name if c not in _ISOLATES)
    leftward = any(unicodedata.bidirectional(c) in {"R", "AL"} for c in clean)
    return f"{_ISOLATES[0]}{clean}{_ISOLATES[1]}" if leftward else clean


def width(text: str) -> float:
    """Return about how wide a text is set, in widths of a digit: SVG cannot measure before it draws."""
    total = 0.0
    for character in text:
        if unicodedata.combining(character):
            continue
        if unicodedata.east_asian_width(character) in "WF":
            total += 1.9
        elif character in "mwMW@%—…":
            total += 1.65
        elif character in "ijlI.,:;|!'` ":
            total += 0.55
        else:
            total += 1.2 if character.isupper() else 1.0
    return total


def shorten(text: str, most: float) -> str:
    """Return text cut with an ellipsis to at most so many widths of a digit.

    >>> shorten("stackexchange", 20), shorten("stackexchange", 8)
    ('stackexchange', 'stacke…')
    """
    if width(text) <= most:
        return text
    kept = ""
    for character in text:
        if width(kept + character) + width("…") > most:
            break
        kept += character
    return kept.rstrip() + "…"


def listing(shares: Mapping[str, float], most: int = 6) -> str:
    """Return a mixture as a phrase, largest first; where there are many domains, the small ones together.

    >>> listing({"a": 0.2, "b": 0.8})
    '80 % b, 20 % a'
    """
    order = sorted(shares, key=lambda name: -shares[name])
    named = order if len(order) <= most + 1 else order[:most]
    phrase = ", ".join(f"{about(shares[name])} {isolated(shorten(printable(name), 40))}" for name in named)
    rest = order[len(named) :]
    if not rest:
        return phrase
    more = about(sum(shares[name] for name in rest))
    return said("{most} and {share} in {count} more", most=phrase, share=more, count=len(rest))
