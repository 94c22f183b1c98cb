"""Levels of a size that no run has: extrapolated over three sizes, held against the largest, with honest errors."""

from __future__ import annotations

import numpy as np
import pytest

from bimix_tracking.fitting.scale.trend import EXPONENT, Trend

SIZES = np.array([1e8, 2.5e8, 6e8])


def trend(exponent: float, offset: float = 0.0) -> Trend:
    levels = 2.0 * (SIZES**-exponent - SIZES[-1] ** -exponent)
    levels[-1] += offset
    found = Trend.of(SIZES.tolist(), [1e10, 2e10, 4e10], {"web": levels.tolist()})
    assert found is not None
    return found


def true_level(exponent: float, size: float) -> float:
    return float(2.0 * (size**-exponent - SIZES[-1] ** -exponent))


def test_levels_of_its_own_exponent_are_extended_exactly() -> None:
    found = trend(EXPONENT)
    assert found.at("web", 2e9) == pytest.approx(true_level(EXPONENT, 2e9), abs=1e-12)
    assert found.left_out.error["web"] == pytest.approx(0.0, abs=1e-12)


def test_another_exponent_is_within_two_of_the_error_it_states() -> None:
    for exponent in (0.05, 0.1, 0.2, 0.3, 0.4):
        found = trend(exponent)
        for size in (2e9, 7e9):
            off = found.at("web", size) - true_level(exponent, size)
            assert abs(off) < 2 * found.error("web", size)


def test_the_error_grows_with_the_distance_and_with_what_the_largest_size_was_missed_by() -> None:
    calm, missed = trend(EXPONENT), trend(EXPONENT, offset=0.02)
    assert 0 < calm.error("web", 1e9) < calm.error("web", 2e9) < calm.error("web", 7e9)
    assert missed.left_out.error["web"] == pytest.approx(0.02)
    assert missed.error("web", 2e9) > max(calm.error("web", 2e9), 0.02)


def test_two_sizes_have_no_trend() -> None:
    assert Trend.of([1e8, 1e9], [1e10, 1e10], {"web": [0.1, 0.0]}) is None
