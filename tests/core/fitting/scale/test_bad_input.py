"""What can't be bridged is refused or said: sizes missing or too small, anchors that contradict or lie outside."""

from __future__ import annotations

import numpy as np
import pytest

from bimix_tracking import fit_law
from bimix_tracking.errors import ObservationsError
from tests.core.fitting.scale.worlds import DOMAINS, Size, drawn, observe, table_of

SMALL = Size(1e6, drawn(8), schedule=5e6, level=dict.fromkeys(DOMAINS, 0.2))
LARGE = Size(2e7, drawn(8)[:2], schedule=2e7)


def test_runs_without_a_size_are_named() -> None:
    table = table_of([SMALL, LARGE])
    table.loc[table["run"] == "1e+06-3", "size"] = np.nan
    with pytest.raises(ObservationsError, match=r"1 of 10 runs have no model size: '1e\+06-3'"):
        observe(table)


def test_all_sizes_unknown_are_one_unknown_size() -> None:
    obs = observe(table_of([SMALL]).assign(size=np.nan))
    assert not obs.several_sizes
    fit = fit_law(obs, "bimix")
    assert fit.bridge is None
    assert fit.model_size is None
    with pytest.raises(ValueError, match="model size"):
        fit.at(1e6)


@pytest.mark.parametrize("size", [7, 0, -1e9, float("nan"), float("inf")])
def test_a_number_that_is_no_size_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match="7e9" if size == 7 else "positive"):
        fit_law(observe(table_of([SMALL, LARGE])), "bimix", model_size=size)


def test_a_target_below_the_smallest_size_is_refused() -> None:
    obs = observe(table_of([SMALL, LARGE]))
    with pytest.raises(ValueError, match=r"100k.*1M"):
        fit_law(obs, "bimix", model_size=1e5)
    with pytest.raises(ValueError, match=r"100k.*1M"):
        fit_law(obs, "bimix", model_size=2e7).at(1e5)


def test_a_size_that_no_run_has_is_refused_with_the_remedy() -> None:
    fit = fit_law(observe(table_of([SMALL, LARGE])), "bimix", model_size=2e7)
    with pytest.raises(ValueError, match=r"7B.*1M, 20M.*bimix plan --anchor"):
        fit.predict(np.array(drawn(1)), 1e7, model_size=7e9)


def test_anchors_that_contradict_one_another_are_named() -> None:
    table = table_of([SMALL, LARGE], noise=0.002)
    calm = fit_law(observe(table), "bimix", model_size=2e7).bridge
    assert calm is not None
    assert calm.contradict is None
    off = table.assign(**{f"l {d}": table[f"l {d}"] * np.where(table["run"] == "2e+07-1", 1.08, 1.0) for d in DOMAINS})
    bridge = fit_law(observe(off), "bimix", model_size=2e7).bridge
    assert bridge is not None
    assert bridge.contradict is not None
    assert "2e+07-1" in str(bridge.contradict)


def test_an_anchor_far_outside_the_sweep_is_marked() -> None:
    near = [[0.30, 0.30, 0.40], [0.32, 0.28, 0.40], [0.28, 0.31, 0.41], [0.31, 0.31, 0.38], [0.33, 0.29, 0.38]]
    small = Size(1e6, near, schedule=5e6, level=dict.fromkeys(DOMAINS, 0.2))
    bridge = fit_law(
        observe(table_of([small, Size(2e7, [near[0], [0.02, 0.95, 0.03]])])), "bimix", model_size=2e7
    ).bridge
    assert bridge is not None
    assert [one.far for one in bridge.anchors] == [False, True]
