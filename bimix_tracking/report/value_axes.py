"""Axes and values of targets in their own units: losses on a logarithmic axis, accuracies in percent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from bimix_tracking.data.links import Link
from bimix_tracking.data.observations import Observations
from bimix_tracking.data.targets import Kind
from bimix_tracking.display import svg
from bimix_tracking.messages import said
from bimix_tracking.report.language import Language

LEFT, RIGHT, TOP, BOTTOM = 52.0, 308.0, 44.0, 194.0
"""The frame of a panel, in pixels of its drawing."""
WIDE, HIGH = 320.0, 236.0
"""The drawing."""


def value_axis(link: Link, values: Sequence[float]) -> svg.Axis:
    """Return a vertical axis of a target's values: logarithmic for losses, linear for accuracies and scores."""
    if link.identity:
        return loss_axis(values)
    return svg.linear(values, BOTTOM, TOP, show=value_ticks(link))


def value_title(obs: Observations, target: str, say: Language) -> str:
    """Return what such an axis is of."""
    return say(
        {
            Kind.LOSS: said("loss"),
            Kind.BPB: said("bits per byte"),
            Kind.ACCURACY: said("accuracy"),
            Kind.SCORE: said("score"),
        }[Kind(obs.target(target).kind)]
    )


def _percent(value: float, places: int) -> str:
    return f"{100 * value:.{max(places - 2, 0)}f}%"


def _plain(value: float, places: int) -> str:
    return f"{value:.{places}f}".replace("-", "−")


def measured(obs: Observations, target: str) -> pd.DataFrame:
    """Return a target's rows, with its values in its own unit as `loss`."""
    mine = (obs.losses["domain"] == target).to_numpy()
    return obs.losses[mine].assign(loss=obs.measured[mine])


def loss_axis(losses: Sequence[float]) -> svg.Axis:
    """Return a vertical logarithmic axis whose ticks have as many decimals as tell them apart."""
    finite = [loss for loss in losses if math.isfinite(loss) and loss > 0] or [1.0]
    span = max(finite) - min(finite)
    decimals = min(max(0, 1 - math.floor(math.log10(span))), 3) if span > 1e-4 else 2
    return svg.logarithmic(losses, BOTTOM, TOP, lambda value: f"{value:.{decimals}f}")


def value_ticks(link: Link) -> Callable[[float, int], str]:
    """Return how a target's value is printed on a linear axis."""
    return _percent if link.kind is Kind.ACCURACY else _plain
