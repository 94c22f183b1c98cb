"""The mark of a run in a panel: its shape is its model size, so that sizes are told apart without colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bimix_tracking.data.observations import Observations
from bimix_tracking.display import svg
from bimix_tracking.quantities import parameters

MOST_TIPS = 4000
"""A tooltip a point is most of the file; beyond this many points they are for a run, or left out."""
_SHAPES = ("circle", "square", "triangle", "diamond")


class Marks:
    """Which shape each run has: circles of the largest size, then squares, triangles and diamonds.

    Args:
        obs: The runs, with their model sizes.
    """

    def __init__(self, obs: Observations) -> None:
        sizes = list(reversed(obs.model_sizes))
        shown = dict(zip(sizes, [*_SHAPES, *[_SHAPES[-1]] * len(sizes)], strict=False))
        self.sizes = shown if len(sizes) > 1 else {}
        self._of_run = {run: shown[size] for run, size in obs.sizes.items() if size in self.sizes}

    def shape(self, run: object) -> str:
        """Return the shape of a run's mark."""
        return self._of_run.get(str(run), "circle")

    def one(self, x: float, y: float, radius: float, cls: str, tip: str, run: object) -> str:
        """Return the mark of one point of a run."""
        return svg.mark(x, y, radius, cls, tip, self.shape(run))

    def many(self, points: Sequence[tuple[float, float]], cls: str, tip: str, run: object = "") -> str:
        """Return all points of a run as one element, with one tooltip."""
        shape = self.shape(run)
        if shape == "circle":
            return dots(points, cls, tip)
        path = "".join(svg.outline(x, y, 2.4, shape) for x, y in points)
        return f'<path class="{cls.replace("dots", "dot")}" d="{path}"><title>{escape(tip)}</title></path>'

    def key(self) -> list[tuple[str, str]]:
        """Return what the shapes are: a small picture and a model size each; nothing of one size."""
        return [(_sample(shape), parameters(size)) for size, shape in self.sizes.items()]


def _sample(shape: str) -> str:
    mark = svg.mark(6, 6, 4, "dot own", "", shape)
    return f'<svg class="sample" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">{mark}</svg>'


def dots(points: Sequence[tuple[float, float]], cls: str, tip: str) -> str:
    """Return dots of one kind, with one tooltip."""
    # Strokes of no length with round ends are dots: a tenth of the bytes of as many circles.
    path = "".join(f"M{svg.number(x)} {svg.number(y)}h0" for x, y in points)
    return f'<path class="{cls}" d="{path}"><title>{escape(tip)}</title></path>'
