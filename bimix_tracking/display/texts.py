"""Names and phrases as a page sets them: on one line, cut to a width, in their own direction of writing."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from bimix_tracking.messages import Said, joined, said
from bimix_tracking.quantities import about

WIDE = "\u3001-\u30ff\u4e00-\u9fff\uff01-\uff60"
"""Within brackets of a regular expression: kana, kanji, and the punctuation as wide as they are."""
_ISOLATES = "\u2068\u2069"


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
    phrase = joined(
        [
            said("{share} {name}", share=about(shares[name]), name=isolated(shorten(printable(name), 40)))
            for name in named
        ],
        ", ",
    )
    rest = order[len(named) :]
    if not rest:
        return phrase
    more = about(sum(shares[name] for name in rest))
    return said("{most} and {share} in {count} more", most=phrase, share=more, count=len(rest))
