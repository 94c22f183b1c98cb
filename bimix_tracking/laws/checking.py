"""`check_law(law)`: whether a law is what fitting, predicting, optimising and the report's page need."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, get_type_hints

import numpy as np

from bimix_tracking.laws.protocol import Array, Index, Inputs, Law, Traits

_DOMAINS = ("a", "b", "c")
_STEP = 1e-6
_TOLERANCE = 1e-4
"""Of a derivative, against differences: far above their rounding, far below a wrong sign or factor."""
_SCALE = 1e7


def check_law(law: Law) -> None:
    """Raise where a law isn't whole, or contradicts itself; whether it is right, only data show.

    Every package's law is asked this when it is first used. It compares shapes on a small sweep of three domains, the
    derivatives with differences, and `internal` with `report`.

    Args:
        law: The law.

    Raises:
        TypeError: An attribute or a method is missing.
        ValueError: Something it returns has another shape or value than the protocol says.

    >>> from bimix_tracking.laws.bimix import BiMix
    >>> check_law(BiMix())
    >>> class Sloppy(BiMix):
    ...     def identifiable(self, shares, mixtures, volumes, domains):
    ...         return np.ones(3, bool)
    >>> check_law(Sloppy())
    Traceback (most recent call last):
    ValueError: identifiable has shape (3,), not (4,)
    """
    wanted = {*get_type_hints(Law), *(name for name in vars(Law) if not name.startswith("_"))}
    if lacks := sorted(name for name in wanted if not hasattr(law, name)):
        raise TypeError(f"it lacks {', '.join(lacks)}")
    if not isinstance(law.traits, Traits):
        raise TypeError(f"its traits must be Traits, not {type(law.traits).__name__}")
    if law.traits.power_of_own and not law.traits.own_only:
        raise ValueError("power_of_own is said of a law that isn't own_only")
    if law.traits.own_only and law.traits.effect not in law.traits.watched.values():
        raise ValueError("own_only is said, and watched lacks the parameter at effect")
    if re.search(r"<(/script|!--)", law.page_script or "", re.IGNORECASE):
        raise ValueError("page_script would end the script of the page")
    own = np.array([0, 1, 2] if law.traits.needs_own else [0, 1, -1], np.intp)
    _numbers(law, own)


def checked(found: Any, name: str) -> Law:
    """Return the law of an entry point, an object or its class, if it is one.

    Args:
        found: What the entry point names.
        name: The entry point's.
    """
    law: Law = found() if isinstance(found, type) else found
    check_law(law)
    if law.name != name:
        raise ValueError(f"it calls itself {law.name!r}, and its entry point {name!r}")
    return law


def _numbers(law: Law, own: Index) -> None:
    grid, log_loss, weight = _sweep(len(own))
    starts = np.asarray(law.starts(own, grid, log_loss, weight), float)
    if starts.ndim != 3 or starts.shape[0] != len(own):
        raise ValueError(f"starts has shape {starts.shape}, not (problems, starts, parameters)")
    size, domains = starts.shape[2], len(_DOMAINS)
    box, prior = law.box(own, grid, log_loss, weight), law.prior(own, domains)
    theta = np.clip(starts[:, 0], box.lower, box.upper)
    rows = Inputs.rows(grid.shares, grid.log_u[0], grid.floor)  # each mixture at a volume of its own
    asked = {"on a grid": grid, "with volumes of each mixture": rows}
    if not law.traits.separable:
        del asked["on a grid"]
    found = {where: law.blocks(theta, own, x) for where, x in asked.items()}
    by_share, blocks = law.by_share(theta, own, rows), found["with volumes of each mixture"]
    mixtures = len(grid.shares)
    shapes = {
        "the box's lower bounds": (box.lower, (len(own), size)),
        "the box's upper bounds": (box.upper, (len(own), size)),
        "what the box holds": (box.held, (size,)),
        "the prior's mean": (prior.mean, (len(own), size)),
        "the prior's precision": (prior.precision, (len(own), size, size)),
        "blocks' log_loss": (blocks.log_loss, (len(own), mixtures, 1)),
        "blocks' parts of θ": (np.empty(blocks.volume.shape[3] + blocks.mixture.shape[2]), (size,)),
        "by_share's log_loss": (by_share.log_loss, (len(own), mixtures)),
        "by_share's gradient": (by_share.gradient, (len(own), mixtures, domains)),
        "by_share's factor": (by_share.factor, (len(own), mixtures)),
        "by_share's diagonal": (by_share.diagonal, (len(own), mixtures, domains)),
        "identifiable": (law.identifiable(4, 4, 4, domains), (size,)),
    }
    for what, (array, shape) in shapes.items():
        if np.shape(array) != shape:
            raise ValueError(f"{what} has shape {np.shape(array)}, not {shape}")
    _agree("by_share's log_loss", by_share.log_loss, "blocks", blocks.log_loss[..., 0])
    for x in asked.values():
        _derivatives(law, own, x, theta)
    _gradient(law, own, rows, theta, by_share.gradient)
    for one, place in zip(theta, own.tolist(), strict=True):
        reported = law.report(one, _SCALE, place, _DOMAINS)
        if tuple(reported) != tuple(law.parameters(_DOMAINS)):
            raise ValueError(
                f"report names {', '.join(reported)}, and parameters {', '.join(law.parameters(_DOMAINS))}"
            )
        again = law.internal(reported, _SCALE, place, _DOMAINS)
        row = own[own == place][:1]
        _agree(
            "log L at internal(report(θ))",
            law.blocks(np.asarray(again, float)[None], row, rows).log_loss,
            "log L at θ",
            law.blocks(one[None], row, rows).log_loss,
        )


def _sweep(problems: int) -> tuple[Inputs, Array, Array]:
    """Return four mixtures at four volumes, and losses that fall with both."""
    shares = np.array([[0.2, 0.3, 0.5], [0.5, 0.2, 0.3], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]])
    log_u = np.array([-2.0, -0.5, 0.5, 2.0])
    fall = 0.4 * np.exp(-0.3 * log_u)
    losses = np.stack([1.5 + 0.2 * k + fall - 0.1 * shares[:, [k]] for k in range(3)])
    return Inputs(shares, log_u[None], 1e-3), np.log(losses[:problems]), np.ones((problems, 4, 4))


def _derivatives(law: Law, own: Index, x: Inputs, theta: Array) -> None:
    slopes = law.blocks(theta, own, x).jacobian()
    for k in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, k] = _STEP
        ahead, behind = law.blocks(theta + step, own, x).log_loss, law.blocks(theta - step, own, x).log_loss
        _agree(f"blocks' derivative by θ[{k}]", slopes[..., k], "differences", (ahead - behind) / (2 * _STEP))


def _gradient(law: Law, own: Index, x: Inputs, theta: Array, gradient: Array) -> None:
    for j in range(x.shares.shape[1]):
        step = np.zeros_like(x.shares)
        step[:, j] = _STEP
        sides = [law.blocks(theta, own, replace(x, shares=x.shares + by)).log_loss[..., 0] for by in (step, -step)]
        _agree(f"by_share's gradient by r[{j}]", gradient[..., j], "differences", (sides[0] - sides[1]) / (2 * _STEP))


def _agree(what: str, one: Array, other_what: str, other: Array) -> None:
    difference = float(np.max(np.abs(one - other) / (1 + np.abs(other))))
    if not difference < _TOLERANCE:  # NaN too
        raise ValueError(f"{what} differs by {difference:.2g} from {other_what}")
