"""Runs chosen among given mixtures, and the box that a plan keeps to unless it is asked for another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bimix_tracking import Mixture, plan_pilot
from bimix_tracking.design.fisher import Information
from bimix_tracking.design.pool import read_mixtures
from bimix_tracking.design.practical_box import practical
from bimix_tracking.design.run_files import PlannedRuns
from bimix_tracking.design.space_filling import distances, scattered, separation, usable
from bimix_tracking.errors import ConstraintError, MixtureError
from bimix_tracking.recommendation.constraints import constrain

NAMES = ("code", "web", "books", "math")


def drawn(count: int, seed: int = 0, names: Sequence[str] = NAMES) -> list[Mixture]:
    shares = np.random.default_rng(seed).dirichlet(np.full(len(names), 2.0), count)
    return [Mixture(dict(zip(names, row.tolist(), strict=True))) for row in shares]


@pytest.mark.parametrize("method", ["informative", "space-filling"])
def test_runs_are_members_of_the_pool_each_once_the_nearest_to_the_reference_first(method: str) -> None:
    pool = drawn(30)

    plan = plan_pilot(NAMES[::-1], 9, pool=pool, method=method)  # type: ignore[arg-type]  # of the two

    assert set(plan.mixtures) <= set(pool)
    assert len(set(plan.mixtures)) == len(plan) == 9
    assert plan.domains == NAMES[::-1]
    off = distances(plan.shares, np.full((1, 4), 0.25))[:, 0]
    assert off[0] == off.min()
    assert set(plan.seeds) == {0}
    assert not plan.notes


def test_a_pool_is_taken_from_a_table_and_from_the_files_that_a_plan_writes(tmp_path: Path) -> None:
    pool = drawn(12)
    planned = PlannedRuns(tuple(f"m{i}" for i in range(12)), tuple(pool), (0,) * 12)
    planned.write(tmp_path)
    table = pd.read_csv(tmp_path / "plan.csv")

    chosen = plan_pilot(NAMES, 6, pool=pool).mixtures

    assert read_mixtures(tmp_path / "plan.jsonl") == read_mixtures(tmp_path / "plan.csv") == pool
    assert plan_pilot(NAMES, 6, pool=table).mixtures == chosen
    plain = table.rename(columns=lambda name: name.removeprefix("proportion/"))
    assert plan_pilot(NAMES, 6, pool=plain).mixtures == chosen


def test_what_of_a_pool_may_not_be_run_is_excluded_and_counted() -> None:
    pool = drawn(30)
    over = [mixture for mixture in pool if mixture["web"] > 0.4]
    assert over

    plan = plan_pilot(NAMES, 6, pool=[*pool, pool[0], pool[0]], bounds={"web": (0.0, 0.4)})

    assert not set(over) & set(plan.mixtures)
    twice = 0 if pool[0] in over else 2
    breaking = len(over) + 2 - twice
    assert f"{breaking + twice} of 32 mixtures of the pool were excluded: {breaking} breaking a constraint" in str(
        plan.notes
    )
    assert "above its upper limit of 0.4" in str(plan.notes)


def test_candidates_are_run_beside_those_of_the_pool() -> None:
    mine, pool = Mixture(dict(zip(NAMES, (0.85, 0.05, 0.05, 0.05), strict=True))), drawn(20)

    plan = plan_pilot(NAMES, 5, pool=[mine, *pool], candidates=[mine], repeats=1)

    assert mine in plan.mixtures
    assert len(set(plan.mixtures)) == 4
    assert plan.mixtures[-1] == plan.mixtures[0]
    assert plan.seeds == (0, 0, 0, 0, 1)


def test_one_of_two_near_twins_is_run_as_long_as_there_are_others() -> None:
    pool = drawn(15)
    jittered = [
        Mixture.normalized({d: share * factor for (d, share), factor in zip(mixture.items(), jitter, strict=True)})
        for mixture, jitter in zip(pool, np.random.default_rng(1).uniform(0.97, 1.03, (15, 4)), strict=True)
    ]

    plan = plan_pilot(NAMES, 12, pool=[*pool, *jittered])

    taken = [
        (mixture in plan.mixtures) + (other in plan.mixtures) for mixture, other in zip(pool, jittered, strict=True)
    ]
    assert max(taken) == 1
    assert sum(taken) == 12
    assert len(set(plan_pilot(NAMES, 30, pool=[*pool, *jittered]).mixtures)) == 30


def test_a_distance_to_keep_never_leaves_a_pool_without_another_mixture() -> None:
    rng = np.random.default_rng(3)
    box = np.full(4, 0.02), np.full(4, 0.7)
    pool = scattered(np.full((1, 4), 0.25), 200, *box, rng)
    first = pool[:1]

    apart = separation(first, pool[1:40], 39)

    assert 0 < apart < 0.1 * np.median(distances(pool, pool))
    chosen = first
    for _ in range(39):  # in whatever order: here the most crowded first
        clear = pool[1:40][distances(pool[1:40], chosen).min(1) >= max(apart, 1e-6)]
        assert len(clear)
        chosen = np.concatenate([chosen, clear[[int(distances(clear, chosen).min(1).argmin())]]])


def test_chosen_members_tell_more_than_random_ones_by_every_law() -> None:
    pool = drawn(60, seed=5)
    plan = plan_pilot(NAMES, 8, pool=pool)
    shares, rng = np.array([mixture.array(NAMES) for mixture in pool]), np.random.default_rng(0)
    # Other plausible laws than those that the plan was made for.
    judge = Information(plan.laws, shares.min(0), shares.max(0), noise=0.005, rng=np.random.default_rng(99))
    for law in plan.laws:
        random = [judge.variance(shares[rng.permutation(60)[:8]], law) for _ in range(40)]
        assert judge.variance(plan.shares, law) < np.quantile(random, 0.2)


@pytest.mark.parametrize(
    ("pool", "runs", "told"),
    [
        (drawn(20, names=("code", "web", "maths", "books")), 6, "mixture 1 of the pool doesn't fit: .*lacks 'math'"),
        (drawn(5), 6, "6 runs are to be chosen, but the pool has 5 mixtures"),
        ([*drawn(5), drawn(5)[2]], 6, "has 5 mixtures .*: 1 given twice"),
        (pd.DataFrame({"code": [0.5], "web": [0.5]}), 1, "no column 'books' and none that begins"),
        (
            pd.DataFrame({"code": [0.5], "web": [0.5], "books": [0.2], "math": [0.1]}),
            1,
            "row 1 of the pool.*sum to 1.3",
        ),
    ],
)
def test_a_pool_that_does_not_do_is_named(pool: object, runs: int, told: str) -> None:
    with pytest.raises((ConstraintError, MixtureError), match=told):
        plan_pilot(NAMES, runs, pool=pool)  # type: ignore[arg-type]  # each case's own


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"mixture": {"a": 0.4, "b": 0.6}}\n{"mix": 1}\n', "line 2 has no entry 'mixture'"),
        ("a.jsonl", '{"mixture": {"a": 0.4, "b": 0.7}}\n', "line 1: proportions sum to 1.1"),
        ("a.jsonl", "mixture: {a: 1}\n", "line 1 is not JSON"),
        ("a.csv", "name,a,b\nx,0.4,0.6\ny,0.4,high\n", "line 3: the proportion of domain 'b' is not a number: 'high'"),
        ("a.csv", "name,a,b\n", "it is empty"),
    ],
)
def test_a_file_that_holds_no_mixtures_is_named_with_its_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(MixtureError, match=told) as error:
        read_mixtures(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(("count", "least"), [(3, 0.02), (7, 0.02), (10, 0.02), (40, 0.005)])
def test_no_domain_has_nearly_everything_or_nothing_unless_asked(count: int, least: float) -> None:
    plan = plan_pilot([f"d{i}" for i in range(count)], count + 2 if count < 20 else 8)

    assert plan.shares.max() <= 0.7
    assert plan.shares.min() >= least - 1e-9


@pytest.mark.parametrize(
    ("bounds", "rows"),
    [
        ({"a": (0.0, 0.9)}, [(0.0, 0.9), (0.02, 0.7), (0.02, 0.7)]),
        ({"a": (0.5, 1.0)}, [(0.5, 1.0), (0.0, 0.7), (0.0, 0.7)]),
        ({"a": (0.0, 0.1), "b": (0.0, 0.1)}, [(0.0, 0.1), (0.0, 0.1), (0.02, 0.9)]),
        ({"a": 0.9}, [(0.9, 0.9), (0.01, 0.7), (0.01, 0.7)]),
    ],
)
def test_the_practical_box_gives_way_to_bounds(
    bounds: dict[str, float | tuple[float, float]], rows: list[tuple[float, float]]
) -> None:
    box = plan_pilot(["a", "b", "c"], 4, bounds=bounds).box

    assert np.stack([box.lower, box.upper], axis=1) == pytest.approx(np.array(rows))


def test_a_cap_by_tokens_is_no_floor() -> None:
    box = plan_pilot(["a", "b", "c"], 4, tokens=1e9, available_tokens={"a": 1e7, "b": 1e9, "c": 1e9}).box

    assert (box.lower[0], box.upper[0]) == pytest.approx((0.008, 0.04))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(2, 8),
    ends=st.lists(st.tuples(st.floats(0, 0.3), st.floats(0.3, 1)), min_size=1, max_size=8),
)
def test_a_bounded_domain_keeps_the_proportions_that_its_bounds_allow(
    count: int, ends: list[tuple[float, float]]
) -> None:
    names = [f"d{i}" for i in range(count)]
    bounds = dict(zip(names, ends, strict=False))
    try:
        asked = constrain(names, bounds=bounds)
        usable(asked)
    except ConstraintError:
        return

    box = practical(asked, bounds)

    usable(box)
    for i in range(len(bounds)):
        (low, high), (least, most) = (
            (
                max(each.lower[i], 1 - np.delete(each.upper, i).sum()),
                min(each.upper[i], 1 - np.delete(each.lower, i).sum()),
            )
            for each in (asked, box)
        )
        assert least == pytest.approx(low, abs=1e-9)
        assert most == pytest.approx(high, abs=1e-9)
