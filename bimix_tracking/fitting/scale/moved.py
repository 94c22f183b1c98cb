"""The parts of a fit in the tokens and at the level of another model size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bimix_tracking.fitting.domain_fit import DomainFit
from bimix_tracking.fitting.held_out_errors import HeldOutErrors
from bimix_tracking.fitting.levels import Levels
from bimix_tracking.fitting.scale.size_level import SizeLevel


def moved_target(fitted: DomainFit, parameters: Mapping[str, float] | None, factor: float) -> DomainFit:
    """Return the fit of a target whose tokens are so many times as many.

    Args:
        fitted: As it is.
        parameters: Its parameters in the new tokens; None: as they are, for they have no unit of tokens.
        factor: Tokens there by tokens here.
    """
    tokens = None if fitted.tokens is None else (fitted.tokens[0] * factor, fitted.tokens[1] * factor)
    if parameters is None:
        return replace(fitted, tokens=tokens)
    known = {n: value if np.isfinite(fitted.parameters[n]) else np.nan for n, value in parameters.items()}
    errors = {
        name: error * known[name] / fitted.parameters[name] if fitted.parameters[name] else error
        for name, error in fitted.standard_errors.items()
    }
    return replace(fitted, parameters=known, standard_errors=errors, tokens=tokens)


def moved_levels(levels: Mapping[str, Levels], factor: float) -> dict[str, Levels]:
    """Return levels by volume whose volumes are so many times as large."""
    return {target: tuple((at * factor, level) for at, level in knots) for target, knots in levels.items()}


def raised_by(level: SizeLevel) -> dict[str, Levels]:
    """Return a size's level by its own tokens instead of its progress."""
    return moved_levels(level.levels, level.schedule)


def moved_errors(errors: HeldOutErrors | None, level: SizeLevel, factor: float) -> HeldOutErrors | None:
    """Return held-out errors at another size: relative errors are the same, nats are not."""
    if errors is None:
        return None
    times = {target: float(np.exp(level.at_end(target))) for target in level.levels}
    return HeldOutErrors(
        tuple(
            replace(
                one,
                tokens=one.tokens * factor,
                error={target: error * times.get(target, 1.0) for target, error in one.error.items()},
                sampling={target: error * times.get(target, 1.0) ** 2 for target, error in one.sampling.items()},
            )
            for one in errors.runs
        )
    )
