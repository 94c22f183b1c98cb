"""Hand-written SVG: axes with readable ticks, and text that cannot leave its element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bimix_tracking.display.texts import printable, shorten, width

DIGIT = 7.0
"""Width of a digit in pixels at the size of the labels (11 px), in the widest font systems come with."""


def number(value: float) -> str:
    """Return a coordinate to the tenth of a pixel, which no eye tells from more and a file is small with.

    >>> number(12.34), number(12.0), number(-0.01)
    ('12.3', '12', '0')
    """
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def label(
    x: float, y: float, content: str, *, cls: str = "tick", anchor: str = "start", most: float = math.inf, turn: int = 0
) -> str:
    """Return a text element; one that is too long ends in an ellipsis and tells the whole on hovering.

    Args:
        x: Position of the anchor.
        y: Baseline.
        content: Anyone's text.
        cls: CSS class.
        anchor: `start`, `middle` or `end`.
        most: Widest, in widths of a digit.
        turn: Degrees about the anchor.
    """
    whole = printable(content)
    shown = shorten(whole, most)
    tip = f"<title>{escape(whole)}</title>" if shown != whole else ""
    at = f' text-anchor="{anchor}"' if anchor != "start" else ""
    at += f' transform="rotate({turn} {number(x)} {number(y)})"' if turn else ""
    return f'<text class="{cls}" x="{number(x)}" y="{number(y)}"{at}>{tip}{escape(shown)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """Return a straight line."""
    ends = zip(("x1", "y1", "x2", "y2"), (x1, y1, x2, y2), strict=True)
    return f'<line class="{cls}" ' + " ".join(f'{name}="{number(value)}"' for name, value in ends) + "/>"


def circle(x: float, y: float, radius: float, cls: str, tip: str = "") -> str:
    """Return a dot, with a tooltip if one is given."""
    head = f'<circle class="{cls}" cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"'
    return f"{head}><title>{escape(tip)}</title></circle>" if tip else f"{head}/>"


def mark(x: float, y: float, radius: float, cls: str, tip: str = "", shape: str = "circle") -> str:
    """Return a dot, or a mark of another shape and the same weight to the eye.

    Args:
        x: Of its middle.
        y: Of its middle.
        radius: Of a circle.
        cls: CSS class.
        tip: Of a tooltip, if there is one.
        shape: `circle`, `square`, `triangle` or `diamond`.

    >>> mark(5, 5, 2, "dot", shape="diamond")
    '<path class="dot" d="M5 2.2L7.8 5L5 7.8L2.2 5Z"/>'
    """
    if shape == "circle":
        return circle(x, y, radius, cls, tip)
    head = f'<path class="{cls}" d="{outline(x, y, radius, shape)}"'
    return f"{head}><title>{escape(tip)}</title></path>" if tip else f"{head}/>"


def outline(x: float, y: float, radius: float, shape: str) -> str:
    """Return the path of a mark that is no circle; empty where its middle is not finite."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return ""
    corners = {
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0.0, -1.25), (1.2, 0.85), (-1.2, 0.85)),
        "diamond": ((0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)),
    }[shape]
    return f"M{'L'.join(f'{number(x + radius * dx)} {number(y + radius * dy)}' for dx, dy in corners)}Z"


def rectangle(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """Return a filled rectangle between two corners, the second below and to the right."""
    size = f'width="{number(max(x2 - x1, 0.0))}" height="{number(max(y2 - y1, 0.0))}"'
    return f'<rect class="{cls}" x="{number(x1)}" y="{number(y1)}" {size}/>'


def polyline(points: Sequence[tuple[float, float]], cls: str) -> str:
    """Return a curve through the points, interrupted where one is not finite; empty if none is."""
    path, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        path.append(f"{pen}{number(x)} {number(y)}")
        pen = "L"
    return f'<path class="{cls}" d="{"".join(path)}"/>' if len(path) > 1 else ""


def polygon(points: Sequence[tuple[float, float]], cls: str) -> str:
    """Return a filled shape through the points; empty where one is not finite."""
    if not all(math.isfinite(value) for point in points for value in point):
        return ""
    return f'<path class="{cls}" d="M{"L".join(f"{number(x)} {number(y)}" for x, y in points)}Z"/>'


def picture(wide: float, high: float, name: str, parts: Sequence[str]) -> str:
    """Return the figure: it scales to its column and has a name for who cannot see it.

    Args:
        wide: Width of the drawing.
        high: Height of the drawing.
        name: What it shows, in a sentence.
        parts: Its elements.
    """
    return (
        f'<svg class="figure" viewBox="0 0 {number(wide)} {number(high)}" role="img" '
        f'aria-label="{escape(printable(name))}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class Axis:
    """Data → pixels, with ticks.

    Args:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel of `low`.
        end: Pixel of `high`.
        ticks: Values that get a tick.
        show: How a tick's value is printed.
        log: Whether equal factors are equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    show: Callable[[float], str]
    log: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of a value; NaN of what is not finite or has no logarithm."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        low, high, value = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def linear(
    values: Sequence[float],
    start: float,
    end: float,
    *,
    most: int = 5,
    inside: tuple[float, float] = (-math.inf, math.inf),
    show: Callable[[float, int], str] = lambda value, decimals: f"{value:.{decimals}f}",
) -> Axis:
    """Return a linear axis a little longer than its values, with ticks at 1, 2 or 5 times a power of ten.

    Args:
        values: What must fit; not finite ones are passed over.
        start: Pixel of the low end.
        end: Pixel of the high end.
        most: About how many ticks.
        inside: The axis ends here even where there is room left, as proportions do at 0 and 1.
        show: Prints a value with so many decimals.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = max(low - pad, inside[0]), min(high + pad, inside[1])
    step = _step((high - low) / most)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    ticks = tuple((first + i) * step for i in range(count))
    return Axis(low, high, start, end, ticks, lambda value: show(value, decimals))


def logarithmic(values: Sequence[float], start: float, end: float, show: Callable[[float], str]) -> Axis:
    """Return a logarithmic axis with as many ticks as have room beside each other.

    Args:
        values: What must fit; only positive ones count.
        start: Pixel of the low end.
        end: Pixel of the high end.
        show: Prints a tick's value.
    """
    finite = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(finite), max(finite)
    if high / low < 1 + 1e-9:
        return Axis(low / 1.5, high * 1.5, start, end, (low,), show, log=True)
    pad = (high / low) ** 0.05
    low, high = low / pad, high * pad
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[10.0**d * m for d in decades for m in steps] for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10))]
    choices.append(list(linear([low, high], start, end, most=4).ticks))
    inside = [[tick for tick in choice if low <= tick <= high] for choice in choices]
    ticks = next((choice for choice in inside if len(choice) >= 3), inside[-1])
    axis = Axis(low, high, start, end, tuple(ticks), show, log=True)
    return Axis(low, high, start, end, _apart(axis), show, log=True)


def _apart(axis: Axis) -> tuple[float, ...]:
    """Return the ticks whose labels don't touch the one before."""
    kept: list[float] = []
    edge = -math.inf
    for tick in sorted(axis.ticks, key=axis.at):
        half = DIGIT if axis.start > axis.end else width(axis.show(tick)) * DIGIT / 2  # one above the other, or beside
        if axis.at(tick) - half > edge + DIGIT:
            kept.append(tick)
            edge = axis.at(tick) + half
    return tuple(kept)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))


def frame(x: Axis, y: Axis, x_title: str, y_title: str) -> list[str]:
    """Return grid, ticks and titles of a panel.

    Args:
        x: The horizontal axis.
        y: The vertical axis; its `start` is the bottom.
        x_title: Quantity and unit.
        y_title: Quantity and unit.
    """
    parts = []
    for tick in y.ticks:
        at = y.at(tick)
        parts += [line(x.start, at, x.end, at, "grid"), label(x.start - 6, at + 3.5, y.show(tick), anchor="end")]
    for tick in x.ticks:
        at = x.at(tick)
        half = width(x.show(tick)) * DIGIT / 2
        parts.append(line(at, y.start, at, y.start + 4, "axis"))
        # At the very ends a label would touch the vertical axis's lowest one, or be cut off by the edge of the drawing.
        middle = min(max(at, x.start - 2 + half), x.end + 10 - half)
        parts.append(label(middle, y.start + 16, x.show(tick), anchor="middle"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(label((x.start + x.end) / 2, y.start + 32, x_title, cls="unit", anchor="middle"))
    parts.append(label(12, (y.start + y.end) / 2, y_title, cls="unit", anchor="middle", turn=-90))
    return parts
