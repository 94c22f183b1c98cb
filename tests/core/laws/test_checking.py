"""A law that isn't whole says what it lacks before anything is fitted with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bimix_tracking.laws import BUILT_IN, check_law, law
from bimix_tracking.laws.bimix import BiMix
from bimix_tracking.laws.protocol import Array, Blocks, ByShare, Index, Inputs


@pytest.mark.parametrize("name", BUILT_IN)
def test_our_laws_are_whole(name: str) -> None:
    check_law(law(name))


class WrongSlope(BiMix):
    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        found = super().blocks(theta, own, x)
        found.volume[..., 2] *= 1.01
        return found


class WrongGradient(BiMix):
    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        found = super().by_share(theta, own, x)
        return ByShare(found.log_loss, -found.gradient, found.factor, found.diagonal)


class WrongLevel(BiMix):
    def by_share(self, theta: Array, own: Index, x: Inputs) -> ByShare:
        found = super().by_share(theta, own, x)
        return ByShare(found.log_loss + 0.01, found.gradient, found.factor, found.diagonal)


class WrongUnits(BiMix):
    def internal(self, parameters: Mapping[str, float], scale: float, own: int, domains: Sequence[str]) -> Array:
        return super().internal(parameters, 2 * scale, own, domains)


class WrongNames(BiMix):
    def parameters(self, domains: Sequence[str]) -> tuple[str, ...]:
        return "alpha", "beta", "C", "B"


class Unsure(BiMix):
    def blocks(self, theta: Array, own: Index, x: Inputs) -> Blocks:
        found = super().blocks(theta, own, x)
        return replace(found, volume=np.full_like(found.volume, np.nan))


class OneStart(BiMix):
    def starts(self, own: Index, x: Inputs, log_loss: Array, weight: Array) -> Array:
        return super().starts(own, x, log_loss, weight)[:, 0]


class Unwatched(BiMix):
    traits = replace(BiMix.traits, watched={"beta": 0})


class NotItsOwn(BiMix):
    traits = replace(BiMix.traits, own_only=False)


class Ending(BiMix):
    @property
    def page_script(self) -> str:
        return "(t) => '</SCRIPT>'"


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (WrongSlope, r"blocks' derivative by θ\[2\] differs by .* from differences"),
        (WrongGradient, r"by_share's gradient by r\[0\] differs by .* from differences"),
        (WrongLevel, r"by_share's log_loss differs by 0\.0\d+ from blocks"),
        (WrongUnits, r"log L at internal\(report\(θ\)\) differs by .* from log L at θ"),
        (WrongNames, "report names alpha, beta, B, C, and parameters alpha, beta, C, B"),
        (Unsure, r"blocks' derivative by θ\[0\] differs by nan from differences"),
        (OneStart, r"starts has shape \(3, 4\), not \(problems, starts, parameters\)"),
        (Unwatched, "own_only is said, and watched lacks the parameter at effect"),
        (NotItsOwn, "power_of_own is said of a law that isn't own_only"),
        (Ending, "page_script would end the script of the page"),
    ],
)
def test_what_a_law_gets_wrong_is_named(broken: type[BiMix], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        check_law(broken())


def test_what_a_law_lacks_is_named() -> None:
    lacking: Any = type(
        "Lacking", (), {name: value for name, value in vars(BiMix).items() if name not in {"identifiable", "traits"}}
    )()

    with pytest.raises(TypeError, match=r"^it lacks identifiable, traits$"):
        check_law(lacking)
