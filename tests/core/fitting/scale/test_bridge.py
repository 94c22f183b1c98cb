"""The scale bridge: known levels come back, it has the symmetries it should, and its error bars are honest."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import LawFit, Mixture, bootstrap, fit_law, select_law
from bimix_tracking.fitting.alignment import align
from bimix_tracking.selection.repeats import noise_floor
from tests.core.fitting.scale.worlds import DOMAINS, Array, Size, drawn, observe, table_of, truth

LEVEL = {"code": 0.21, "math": 0.34, "web": 0.12}
SMALL = Size(1e6, drawn(8), schedule=5e6, level=LEVEL)
MIDDLE = Size(4e6, drawn(5, 1), schedule=1e7, level={name: level / 2 for name, level in LEVEL.items()})
UNSEEN = np.array(drawn(6, 9))


def large(anchors: int, reached: float = 1.0) -> Size:
    return Size(2e7, SMALL.mixtures[:anchors], schedule=2e7, reached=reached)


def predicted(fit: LawFit, size: float, tokens: float, mixtures: Array = UNSEEN) -> Array:
    return fit.predict(mixtures, tokens, model_size=size)[list(DOMAINS)].to_numpy(float)


@pytest.mark.parametrize("sizes", [(SMALL, large(1)), (SMALL, large(3)), (SMALL, large(6)), (SMALL, MIDDLE, large(1))])
def test_known_levels_come_back(sizes: tuple[Size, ...]) -> None:
    fit = fit_law(observe(table_of(sizes)), "bimix", model_size=2e7)

    assert fit.bridge is not None
    assert fit.bridge.known
    assert not fit.bridge.rough
    assert fit.model_size == fit.bridge.reference == 2e7
    for one in sizes:
        at = predicted(fit, one.size, 0.6 * one.schedule), predicted(fit, one.size, one.schedule)
        wanted = [truth(UNSEEN, p, one, 2e7) for p in (0.6, 1.0)]
        assert np.concatenate(at) == pytest.approx(np.concatenate(wanted), rel=1e-4)
        for target in DOMAINS:
            assert float(fit.bridge.level_at(one.size, target, 1.0)) == pytest.approx(one.delta(target, 1.0), abs=1e-4)


def test_without_an_anchor_the_figures_are_the_largest_sizes() -> None:
    fit = fit_law(observe(table_of([SMALL, MIDDLE])), "bimix", model_size=2e7)

    assert fit.bridge is not None
    assert not fit.bridge.known
    assert fit.model_size == 4e6
    with pytest.raises(ValueError, match=r"20M.*is unknown.*anchor"):
        fit.at(2e7)
    middle = truth(UNSEEN, 1.0, MIDDLE, 1e7) / truth(UNSEEN, 1.0, Size(4e6, [], 1e7), 1e7)
    assert (predicted(fit, 1e6, 5e6) / predicted(fit, 4e6, 1e7)).mean(0) == pytest.approx(
        np.exp([LEVEL[t] / 2 for t in DOMAINS]), rel=1e-4
    )
    assert middle.shape == UNSEEN.shape


def test_the_level_of_balanced_pairs_is_that_of_two_way_means() -> None:
    noisy = observe(table_of([SMALL, Size(2e7, SMALL.mixtures, schedule=2e7)], noise=0.01))
    table = noisy.to_wide()
    last = table[table["tokens"] == table.groupby("run")["tokens"].transform("max")]
    size = last["model_size"].to_numpy(float)
    bridge = align(noisy, model_size=2e7).bridge
    assert bridge is not None
    for target in DOMAINS:
        logs = np.log(last[f"loss/{target}"].to_numpy(float))
        means = logs[size == 1e6].mean() - logs[size == 2e7].mean()
        assert float(bridge.level_at(1e6, target, 1.0)) == pytest.approx(means, abs=0.004)


def test_levels_of_noisy_anchors_are_within_their_errors() -> None:
    off = []
    for seed in range(12):
        obs = observe(table_of([SMALL, large(2)], noise=0.005, seed=seed))
        fit = fit_law(obs, "bimix", model_size=2e7)
        drawn = bootstrap(obs, fit, replicates=60, seed=seed)
        low, high = (end.to_numpy(float) for end in drawn.interval(UNSEEN, 2e7))
        expected = truth(UNSEEN, 1.0, large(0), 2e7)
        off.append((low <= expected) & (expected <= high))
    assert 0.8 <= np.mean(off) <= 0.995


def test_intervals_are_wider_with_fewer_anchors() -> None:
    widths = {}
    for anchors in (1, 3, 8):
        each = []
        for seed in range(4):  # anchors that differ by chance widen the intervals of one sweep
            obs = observe(table_of([SMALL, large(anchors)], noise=0.005, seed=seed))
            fit = select_law(obs, ["bimix", "transfer"], model_size=2e7).fit
            low, high = bootstrap(obs, fit, replicates=40).interval(UNSEEN, 2e7)
            each.append(float(np.log(high.to_numpy(float) / low.to_numpy(float)).mean()))
        widths[anchors] = float(np.mean(each))
    assert widths[1] > 1.05 * widths[3]
    assert widths[3] > widths[8]


def test_curves_line_up_by_progress_and_not_by_tokens() -> None:
    sizes = [SMALL, large(1)]
    as_long = [Size(**{**vars(one), "tilt": 0.0}) for one in sizes]
    table = table_of(as_long)
    right = fit_law(observe(table), "bimix", model_size=2e7)
    wrong = fit_law(observe(table.assign(schedule=2e7)), "bimix", model_size=2e7)
    wanted = truth(UNSEEN, 1.0, as_long[1], 2e7)
    errors = [np.abs(np.log(predicted(fit, 2e7, 2e7) / wanted)).max() for fit in (right, wrong)]
    assert errors[0] < 1e-4
    assert errors[1] > 0.01


@pytest.mark.parametrize("tilt", [0.0, 0.03])
def test_an_anchor_cut_at_half_gives_the_end_better_than_its_last_level(tilt: float) -> None:
    small = Size(1e6, drawn(8), schedule=5e6, level=LEVEL, tilt=tilt)
    anchor = large(1, reached=0.65)
    fit = fit_law(observe(table_of([small, anchor])), "bimix", model_size=2e7)
    assert fit.bridge is not None
    error = np.abs(np.log(predicted(fit, 2e7, 2e7) / truth(UNSEEN, 1.0, anchor, 2e7))).mean()
    constant = tilt * abs(np.log(0.6))
    assert error <= max(0.8 * constant, 1e-4)


# --- what must not change ----------------------------------------------------------------------------------------


def noisy_table(seed: int, anchors: int = 2) -> pd.DataFrame:
    return table_of([SMALL, large(anchors)], noise=0.01, seed=seed)


def fitted(table: pd.DataFrame, size: float = 2e7) -> LawFit:
    return fit_law(observe(table), "bimix", model_size=size)


@settings(max_examples=3)
@given(seed=st.integers(0, 99))
def test_the_order_of_runs_changes_nothing(seed: int) -> None:
    table = noisy_table(seed)
    order = np.random.default_rng(seed).permutation(table["run"].unique())
    shuffled = pd.concat([table[table["run"] == run] for run in order])
    assert predicted(fitted(shuffled), 2e7, 2e7) == pytest.approx(predicted(fitted(table), 2e7, 2e7), rel=1e-5)


@settings(max_examples=3)
@given(seed=st.integers(0, 99), suffix=st.sampled_from(["-x", "é", " (2)"]))
def test_names_change_nothing(seed: int, suffix: str) -> None:
    table = noisy_table(seed)
    renamed = table.assign(run=[f"{99 - int(run.split('-')[1])}{run}{suffix}" for run in table["run"]])
    assert predicted(fitted(renamed), 2e7, 2e7) == pytest.approx(predicted(fitted(table), 2e7, 2e7), rel=1e-6)


@settings(max_examples=3)
@given(seed=st.integers(0, 99), times=st.sampled_from([0.1, 1 / np.log(2), 4.0]))
def test_a_targets_unit_scales_its_losses_alone(seed: int, times: float) -> None:
    table = noisy_table(seed)
    scaled = table.assign(**{"l math": times * table["l math"]})
    wanted = predicted(fitted(table), 2e7, 2e7) * np.where(np.array(DOMAINS) == "math", times, 1.0)
    assert predicted(fitted(scaled), 2e7, 2e7) == pytest.approx(wanted, rel=1e-5)


@settings(max_examples=3)
@given(seed=st.integers(0, 99), times=st.sampled_from([0.5, 3.0, 1e3]))
def test_sizes_are_labels_where_levels_are_observed(seed: int, times: float) -> None:
    table = noisy_table(seed)
    scaled = table.assign(size=times * table["size"])
    found = predicted(fitted(scaled, times * 2e7), times * 2e7, 2e7)
    assert found == pytest.approx(predicted(fitted(table), 2e7, 2e7), rel=1e-9)


@settings(max_examples=3)
@given(seed=st.integers(0, 99), times=st.sampled_from([1 / 524_288, 1e4]))
def test_the_unit_of_tokens_changes_nothing(seed: int, times: float) -> None:
    table = noisy_table(seed)
    scaled = table.assign(tokens=times * table["tokens"], schedule=times * table["schedule"])
    found = predicted(fitted(scaled), 2e7, times * 2e7)
    assert found == pytest.approx(predicted(fitted(table), 2e7, 2e7), rel=1e-5)


@settings(max_examples=3)
@given(seed=st.integers(0, 99), further=st.floats(-0.5, 0.5))
def test_a_level_moves_the_prediction_by_just_that(seed: int, further: float) -> None:
    table = noisy_table(seed)
    moved = table.assign(**{"l code": table["l code"] * np.where(table["size"] == 2e7, np.exp(further), 1.0)})
    before, after = predicted(fitted(table), 2e7, 2e7), predicted(fitted(moved), 2e7, 2e7)
    assert np.log(after / before) == pytest.approx(np.array([further, 0, 0]) + np.zeros((len(UNSEEN), 1)), abs=2e-4)


def test_runs_of_one_size_and_aligned_runs_are_themselves() -> None:
    one = observe(table_of([SMALL], noise=0.01))
    found = align(one)
    assert found.observations is one
    assert found.bridge is not None
    assert (found.bridge.reference, found.bridge.anchors, found.bridge.trend) == (1e6, (), None)
    bare = fit_law(one, "bimix").predict(UNSEEN, 5e6)
    pd.testing.assert_frame_equal(bare, fit_law(one, "bimix", model_size=1e6).predict(UNSEEN, 5e6))
    both = align(observe(noisy_table(0)), model_size=2e7)
    assert both.observations.reference == 2e7
    assert not both.observations.several_sizes
    again = align(both.observations).observations
    pd.testing.assert_frame_equal(again.losses, both.observations.losses)


def test_at_a_size_the_fit_predicts_its_level_times_the_law() -> None:
    fit = fitted(noisy_table(0))
    assert fit.bridge is not None
    reference = fit.at(2e7)
    assert reference.model_size == 2e7
    pd.testing.assert_frame_equal(reference.predict(UNSEEN, 2e7), fit.predict(UNSEEN, 2e7))
    small = fit.at(1e6)
    assert small.model_size == 1e6
    for progress in (0.4, 1.0):
        found = small.predict(UNSEEN, progress * 5e6)
        pd.testing.assert_frame_equal(found, fit.predict(UNSEEN, progress * 5e6, model_size=1e6))
        delta = [float(fit.bridge.level_at(1e6, str(t), progress)) for t in found]
        assert (found / fit.predict(UNSEEN, progress * 2e7)).to_numpy(float) == pytest.approx(
            np.exp(delta) + np.zeros(found.shape), rel=1e-9
        )


def test_the_bridge_is_kept_in_json() -> None:
    fit = fitted(noisy_table(0))
    again = LawFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert fit.bridge is not None
    assert again.bridge == fit.bridge
    assert again.model_size == fit.model_size
    for size, tokens in ((1e6, 3e6), (2e7, 2e7)):
        assert predicted(again, size, tokens) == pytest.approx(predicted(fit, size, tokens), rel=1e-12)


def test_the_best_mixture_is_shared_where_effects_are() -> None:
    fit = fitted(noisy_table(0))
    mixtures = [Mixture.normalized(dict(zip(DOMAINS, row, strict=True))) for row in drawn(20, 4)]
    losses = [
        fit.predict(mixtures, tokens, model_size=n)["web"].to_numpy(float) for n, tokens in ((1e6, 5e6), (2e7, 2e7))
    ]
    assert list(np.argsort(losses[0])) == list(np.argsort(losses[1]))


def test_a_mixture_run_at_two_sizes_is_no_repeat() -> None:
    obs = observe(table_of([SMALL, Size(2e7, SMALL.mixtures, schedule=2e7)], noise=0.01))
    aligned = align(obs, model_size=2e7).observations
    assert len(aligned.runs) == len(obs.runs)
    assert noise_floor(aligned) is None


def test_runs_of_one_size_are_by_tokens_whatever_their_lengths() -> None:
    short = table_of([Size(1e6, drawn(6), schedule=5e6)])
    long = table_of([Size(1e6, drawn(6, seed=3), schedule=2e7)])
    long["run"] = "long-" + long["run"]
    obs = observe(pd.concat([short, long]))
    sized = fit_law(obs, "bimix")
    assert sized.bridge is not None
    assert (sized.bridge.axis, len(sized.bridge.sizes), sized.bridge.anchors) == ("tokens", 1, ())
    plain = fit_law(replace(obs, sizes={}, schedules={}), "bimix")
    assert plain.bridge is None
    pd.testing.assert_frame_equal(sized.predict(UNSEEN, 1e7), plain.predict(UNSEEN, 1e7))
    drawn_sized, drawn_plain = (bootstrap(obs, fit, replicates=20) for fit in (sized, plain))
    pd.testing.assert_frame_equal(drawn_sized.interval(UNSEEN, 1e7)[0], drawn_plain.interval(UNSEEN, 1e7)[0])
