"""Ranks between model sizes: correlations, intervals, what breaks, the verdict, and what cannot be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from bimix_tracking import Observations
from bimix_tracking.selection.dependence import inverted_interval
from bimix_tracking.selection.rank_transfer import RankTransfer, rank_transfer
from bimix_tracking.selection.size_ranks import Rank, SizePair, Transfer

SIZES = (1e6, 1e7)
Array = npt.NDArray[np.float64]


def table(
    mixtures: int = 12,
    sizes: Sequence[float] = SIZES,
    *,
    own: float = 0.0,
    noise: float = 0.0,
    repeats: int = 1,
    length: float = 1e8,
) -> pd.DataFrame:
    """Return a sweep of two domains at several sizes; `own`: how far a size's mixture effects are its own."""
    rng = np.random.default_rng(3)
    shares = np.linspace(0.1, 0.9, mixtures)
    rows = []
    for size in sizes:
        bent = own * rng.standard_normal((2, mixtures))
        for i, a in enumerate(shares):
            for repeat in range(repeats):
                luck = noise * rng.standard_normal(2)
                for part in (0.25, 0.5, 1.0):
                    level = 2.0 + 300 / size**0.5 + 0.3 / part**0.5
                    rows.append(
                        {"run": f"{size:g}-{i}-{repeat}", "size": size, "tokens": part * length, "a": a, "b": 1 - a}
                        | {
                            "la": level * a**-0.1 + bent[0, i] + luck[0],
                            "lb": level * (1 - a) ** -0.05 + bent[1, i] + luck[1],
                        }
                    )
    return pd.DataFrame(rows)


def read(rows: pd.DataFrame, **columns: str) -> Observations:
    asked: Mapping[str, str] = {"model_size": "size"} | columns
    return Observations.from_wide(
        rows,
        proportions=["a", "b"],
        losses={"a": "la", "b": "lb"},
        tokens="tokens",
        run="run",
        model_size=asked["model_size"] or None,
        schedule_tokens=asked.get("schedule_tokens"),
    )


def found(rows: pd.DataFrame, **columns: str) -> RankTransfer:
    ranks = rank_transfer(read(rows, **columns))
    assert ranks is not None
    return ranks


def test_correlations_are_those_of_the_last_losses(reference_data: Path) -> None:
    tables = [pd.read_csv(reference_data / f"slimpajama_{size}.csv") for size in ("122m", "310m")]
    domains = [c.removeprefix("weight_") for c in map(str, tables[0]) if c.startswith("weight_")]
    shares, losses = [f"weight_{d}" for d in domains], [f"{d}_loss" for d in domains]
    one, other = (
        t.sort_values("n_tokens").groupby([t[c].round(4) for c in shares])[losses].last().dropna() for t in tables
    )
    other = other.loc[one.index]
    both = pd.concat(tables, ignore_index=True)
    both["run"] = both.groupby([*shares, "model_size"]).ngroup().astype(str)
    obs = Observations.from_wide(
        both,
        proportions=dict(zip(domains, shares, strict=True)),
        losses=dict(zip(domains, losses, strict=True)),
        tokens="n_tokens",
        run="run",
        model_size="model_size",
    )

    ranks = rank_transfer(obs)
    assert ranks is not None
    (pair,) = ranks.pairs

    assert (pair.mixtures, ranks.verdict, ranks.breaking, ranks.left_out) == (60, Transfer.HOLDS, (), {})
    assert pair.mean.correlation == pytest.approx(spearmanr(one.sum(axis=1), other.sum(axis=1)).statistic, abs=1e-12)
    for domain in domains:
        expected = spearmanr(one[f"{domain}_loss"], other[f"{domain}_loss"]).statistic
        assert pair.targets[domain].correlation == pytest.approx(expected, abs=1e-12)
    small, large = (t.sum(axis=1).to_numpy(float) for t in (one, other))
    assert pair.regret == pytest.approx(large[small.argmin()] - large.min(), abs=1e-12)
    assert 0 < pair.regret < 0.1 * pair.gain
    assert ranks.sentence == (
        "Ranks carry over from 122M to 310M. "
        "Correlation 0.97 over 60 mixtures run at both sizes (90 % interval 0.95 to 0.98)."
    )


def test_ranks_know_neither_order_nor_level_nor_unit() -> None:
    rows = table(own=0.05)
    plain = found(rows)
    shuffled = found(rows.sample(frac=1, random_state=1))
    bent = found(rows.assign(la=np.where(rows["size"] == SIZES[1], np.exp(rows["la"]), rows["la"])))

    assert shuffled.pairs[0].mean == plain.pairs[0].mean
    assert bent.pairs[0].targets["a"] == plain.pairs[0].targets["a"]
    assert bent.pairs[0].mean != plain.pairs[0].mean


def test_weights_decide_what_the_mean_is() -> None:
    obs = read(table(own=0.05))
    ranks = rank_transfer(obs, weights={"a": 1.0, "b": 0.0})
    assert ranks is not None

    assert ranks.pairs[0].mean == ranks.pairs[0].targets["a"] != ranks.pairs[0].targets["b"]


@given(st.integers(4, 40), st.floats(-1, 1), st.floats(0, 0.5))
def test_an_interval_holds_its_correlation_and_is_mirrored(count: int, rank: float, more: float) -> None:
    low, high = inverted_interval(rank, count)
    mirrored = inverted_interval(-rank, count)
    above = inverted_interval(min(rank + more, 1), count)

    assert -1 <= low < rank + 0.06
    assert rank - 0.06 < high <= 1
    assert mirrored == pytest.approx((-high, -low), abs=0.06)  # both are of samples
    assert above[0] >= low
    assert above[1] >= high


def drawn(true: float, count: int, draws: int, seed: int) -> list[SizePair]:
    """Return pairs of sizes whose values are normal and correlate by so much."""
    rng = np.random.default_rng(seed)
    moment = 2 * np.sin(np.pi * true / 6)
    one, chance = rng.standard_normal((2, draws, count))
    other = moment * one + np.sqrt(1 - moment**2) * chance
    correlations = [float(spearmanr(x, y).statistic) for x, y in zip(one, other, strict=True)]
    return [SizePair(1e6, 1e7, count, Rank(r, *inverted_interval(r, count)), {}) for r in correlations]


def share(pairs: Sequence[SizePair], verdict: Transfer) -> float:
    return float(np.mean([pair.verdict is verdict for pair in pairs]))


@pytest.mark.parametrize(("true", "count"), [(0.97, 6), (0.97, 20), (0.8, 10), (0.5, 20)])
def test_intervals_hold_nine_times_in_ten(true: float, count: int) -> None:
    pairs = drawn(true, count, 500, seed=11)
    above = np.mean([pair.mean.low > true for pair in pairs])
    below = np.mean([pair.mean.high < true for pair in pairs])

    assert max(above, below) <= 0.08  # 5 % and three standard errors of 500 samples
    if count == 20:
        assert above + below >= 0.05


def test_verdicts_err_as_seldom_as_they_say_and_find_what_holds() -> None:
    assert share(drawn(0.5, 10, 500, seed=1), Transfer.HOLDS) <= 0.08
    assert share(drawn(0.8, 10, 500, seed=2), Transfer.FAILS) <= 0.08
    assert share(drawn(0.97, 10, 500, seed=3), Transfer.HOLDS) >= 0.88
    assert share(drawn(0.0, 20, 500, seed=4), Transfer.FAILS) >= 0.9
    assert np.mean([pair.mean.breaks for pair in drawn(0.9, 20, 500, seed=5)]) <= 0.08
    assert np.mean([pair.mean.breaks for pair in drawn(0.97, 20, 500, seed=6)]) <= 0.02
    assert np.mean([pair.mean.breaks for pair in drawn(0.5, 20, 500, seed=7)]) >= 0.9


@pytest.mark.parametrize(
    ("rank", "verdict"),
    [
        (Rank(0.95, 0.8, 0.99), Transfer.HOLDS),
        (Rank(0.95, 0.4, 0.99), Transfer.UNKNOWN),
        (Rank(0.7, 0.5, 0.85), Transfer.DOUBTFUL),
        (Rank(0.4, 0.1, 0.85), Transfer.DOUBTFUL),
        (Rank(0.4, 0.1, 0.7), Transfer.FAILS),
        (Rank(math.nan, math.nan, math.nan), Transfer.UNKNOWN),
    ],
)
def test_the_verdict_is_of_the_correlation_and_its_interval(rank: Rank, verdict: Transfer) -> None:
    assert SizePair(1e6, 1e7, 8, rank, {}).verdict is verdict


def test_of_several_sizes_a_failure_decides_and_little_data_does_not() -> None:
    holds = SizePair(1e6, 1e7, 20, Rank(0.97, 0.92, 0.99), {})
    little = SizePair(1e6, 1e8, 4, Rank(0.6, -0.7, 0.99), {})
    fails = SizePair(1e7, 1e8, 20, Rank(0.2, -0.2, 0.5), {"a": Rank(0.1, -0.3, 0.4)})

    assert RankTransfer((holds, little)).verdict is Transfer.HOLDS
    assert RankTransfer((holds, little)).decisive is holds
    assert RankTransfer((holds, little, fails)).verdict is Transfer.FAILS
    assert RankTransfer((holds, little, fails)).breaking == ("a",)
    assert "do not carry over from 10M to 100M" in RankTransfer((holds, little, fails)).sentence


def test_sizes_whose_effects_are_their_own_fail() -> None:
    ranks = found(table(mixtures=20, own=1.0))

    assert ranks.verdict is Transfer.FAILS
    assert set(ranks.breaking) == {"a", "b"}
    assert ranks.notes[1] == "Targets whose rank breaks between sizes: 'a', 'b'."


def test_noise_that_repeats_tell_of_excuses_a_target() -> None:
    noisy = found(table(mixtures=20, noise=0.5, repeats=3)).pairs[0]
    clear = found(table(mixtures=20, own=0.5, repeats=3)).pairs[0]

    assert noisy.targets["b"].correlation < 0.8
    assert noisy.targets["b"].most < 0.9
    assert "b" not in noisy.breaking
    assert clear.targets["b"].most == 1.0
    assert "b" in clear.breaking


def test_mixtures_are_one_within_a_thousandth() -> None:
    rows = table()
    large = rows["size"] == SIZES[1]
    near = rows.assign(a=np.where(large, rows["a"] + 5e-4, rows["a"]), b=np.where(large, rows["b"] - 5e-4, rows["b"]))
    apart = rows.assign(a=np.where(large, rows["a"] + 5e-3, rows["a"]), b=np.where(large, rows["b"] - 5e-3, rows["b"]))

    assert found(near).pairs[0].mixtures == 12
    assert (found(near).pairs[0].law, found(apart).pairs[0].law) == ("", "additive")


@pytest.mark.parametrize(
    ("paired", "sentence"),
    [
        (0, "No mixture was run at two sizes: whether ranks carry over is not checked."),
        (2, "Mixtures run at two sizes: 2. A rank correlation takes 4, a reliable one about 10."),
        (4, "Too few mixtures to judge whether ranks carry over from 1M to 10M. Correlation 1.00 over 4 mixtures"),
    ],
)
def test_too_few_mixtures_tell_nothing_and_what_it_takes_is_said(paired: int, sentence: str) -> None:
    rows = table()
    kept = rows[(rows["size"] == SIZES[0]) | rows["a"].isin(rows["a"].unique()[:paired])]
    if not paired:
        large = rows["size"] == SIZES[1]
        moved = rows.assign(a=rows["a"] + 0.01 * large, b=rows["b"] - 0.01 * large)
        kept = moved[~large | rows["a"].isin(rows["a"].unique()[:3])]
    ranks = found(kept)

    assert ranks.verdict is Transfer.UNKNOWN
    assert ranks.sentence.startswith(sentence)
    assert ranks.sentence.endswith("`bimix plan --anchor` proposes which mixtures to run at the larger size.")
    assert len(ranks.rows()) == (3 if paired == 4 else 0)


def test_mixtures_that_differ_are_ranked_by_a_law_which_refutes_nothing() -> None:
    rows = table(mixtures=24)
    odd = rows["a"].map({a: i % 2 == 1 for i, a in enumerate(rows["a"].unique())}).astype(bool)
    own = table(mixtures=24, own=1.0)
    holds, other = (found(each[odd == (each["size"] == SIZES[1])]) for each in (rows, own))

    assert (holds.verdict, holds.pairs[0].law, holds.pairs[0].mixtures) == (Transfer.HOLDS, "additive", 12)
    assert "over 12 mixtures, predicted from 1M and run at 10M" in holds.sentence
    assert other.pairs[0].mean.correlation < 0.8
    assert (other.verdict, other.breaking) == (Transfer.UNKNOWN, ())
    assert other.sentence.startswith("Fewer than four mixtures were run at both 1M and 10M. Correlation ")


def test_runs_that_end_before_their_schedule_are_left_out_and_named() -> None:
    rows = table().assign(schedule=1e8)
    cut = rows[(rows["run"] != "1e+07-3-0") | (rows["tokens"] <= 0.6e8)]
    ranks = found(cut, schedule_tokens="schedule")

    assert ranks.pairs[0].mixtures == 11
    assert ranks.left_out == {"1e+07-3-0": "it ends at 50 % of its schedule"}
    assert ranks.notes[-1] == "Run '1e+07-3-0' is not compared: it ends at 50 % of its schedule."


def test_of_runs_of_several_lengths_those_are_compared_that_have_most_mixtures_in_common() -> None:
    rows = table()
    large, some = rows["size"] == SIZES[1], rows["a"].isin(rows["a"].unique()[:3])
    longer = rows[large & some].assign(tokens=lambda t: 4 * t["tokens"], run=lambda t: t["run"] + "-long", la=0.5)
    ranks = found(pd.concat([rows, longer]))

    assert ranks.pairs[0].mean.correlation == found(rows).pairs[0].mean.correlation
    assert list(ranks.left_out) == [f"1e+07-{i}-0-long" for i in range(3)]
    assert set(ranks.left_out.values()) == {"its length, 400M tokens, is not that of the runs compared"}


def test_a_target_at_one_size_is_named_and_one_missing_loss_costs_one_mixture() -> None:
    rows = table()
    large = rows["size"] == SIZES[1]
    absent = found(rows.assign(lb=rows["lb"].where(~large)))
    holes = found(rows.assign(lb=rows["lb"].where(rows["run"] != "1e+07-3-0")))

    assert (absent.missing, list(absent.pairs[0].targets)) == (("b",), ["a"])
    assert absent.pairs[0].mean == absent.pairs[0].targets["a"]
    assert "Not evaluated at both sizes, so not in the mean: 'b'." in absent.notes
    assert (holes.missing, holes.pairs[0].mixtures) == ((), 11)


def test_one_size_unknown_sizes_and_aligned_runs_have_no_ranks_between_sizes() -> None:
    assert rank_transfer(read(table(sizes=SIZES[:1]))) is None
    assert rank_transfer(read(table(), model_size="")) is None
    assert rank_transfer(replace(read(table()), reference=1e7)) is None


def test_what_is_shown_is_json_a_table_and_a_card_that_hostile_names_do_not_break() -> None:
    rows = table(own=0.1).rename(columns={"la": "<b>la</b>"})
    obs = Observations.from_wide(
        rows, proportions=["a", "b"], losses={"<b>": "<b>la</b>", "b": "lb"}, tokens="tokens", run="run",
        model_size="size",
    )  # fmt: skip
    ranks = rank_transfer(obs)
    assert ranks is not None
    document = json.loads(json.dumps(ranks.to_dict(), allow_nan=False))
    frame = ranks.to_frame()

    assert document["verdict"] == ranks.verdict
    assert list(document["pairs"][0]["targets"]) == ["b", "<b>"]
    assert len(document["pairs"][0]["runs"]) == 12
    assert list(frame["target"]) == ["", "b", "<b>"]
    assert frame["correlation"][1] == ranks.pairs[0].targets["b"].correlation
    assert [len(row) for row in ranks.rows()] == 3 * [len(ranks.head())]
    assert repr(ranks).splitlines()[1] == f"  {ranks.sentence}"
    assert "<b>" not in ranks._repr_html_()
    assert "&lt;b&gt;" in ranks._repr_html_()
