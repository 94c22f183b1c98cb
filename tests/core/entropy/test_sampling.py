"""A sample of a stream: the same whatever the parts and their order, and every sequence as likely as any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bimix_tracking.entropy.sampling import SequenceSample, priorities

streams = st.lists(st.integers(0, 7), min_size=1, max_size=40)


def offered(lengths: list[int], places: list[int], most: int) -> SequenceSample:
    sample = SequenceSample(most)
    order = priorities("a file", len(lengths))
    for place in places:
        sample.offer(np.full(lengths[place], place), [lengths[place]], order[place : place + 1])
    return sample


@given(streams, st.integers(1, 60), st.randoms(use_true_random=False), st.integers(0, 40))
def test_parts_in_any_order_give_the_same(lengths: list[int], most: int, random: object, cut: int) -> None:
    places = list(range(len(lengths)))
    whole = offered(lengths, places, most)
    random.shuffle(places)  # type: ignore[attr-defined]  # hypothesis says no type
    one, other = offered(lengths, places[:cut], most), offered(lengths, places[cut:], most)
    one += SequenceSample.from_bytes(other.to_bytes())

    assert [s.tolist() for s in one.sequences()] == [s.tolist() for s in whole.sequences()]
    assert one.to_bytes() == whole.to_bytes()
    # As many as are needed: without the last of them there would be fewer than asked for.
    kept = whole.sequences()
    assert whole.elements == sum(lengths) or whole.elements - len(kept[-1]) < most <= whole.elements


def test_all_at_once_or_one_by_one() -> None:
    lengths = [3, 1, 4, 1, 5]
    flat = np.repeat(np.arange(5), lengths)
    sample = SequenceSample(6)
    sample.offer(flat, lengths, priorities("a file", 5))

    assert sample.to_bytes() == offered(lengths, [4, 3, 2, 1, 0], 6).to_bytes()


def test_so_many_elements_cut_the_last_sequence() -> None:
    sample = offered([4, 4, 4], [0, 1, 2], 100)

    assert [len(s) for s in sample.sequences(6)] == [4, 2]
    assert [len(s) for s in sample.sequences()] == [4, 4, 4]
    assert sample.sequences(0) == []


def test_what_cannot_get_in_is_not_wanted() -> None:
    order = priorities("a file", 1000)
    sample = SequenceSample(10)
    sample.offer(np.zeros(1000), np.ones(1000, int), order)
    sample.sequences()

    assert sample.wants(order).sum() == 10


def test_every_sequence_is_as_likely_as_any_other() -> None:
    found = np.zeros(50)
    for seed in range(2000):
        order = priorities("a file", 50, seed=seed)
        found[np.argsort(order)[:10]] += 1

    # Of 2,000 samples each sequence is in 400 ± 18.
    assert np.abs(found - 400).max() < 4.5 * 18


def test_priorities_go_on_where_a_part_ends() -> None:
    whole = priorities("a file", 10, seed=3)

    assert np.array_equal(
        np.concatenate([priorities("a file", 4, seed=3), priorities("a file", 6, start=4, seed=3)]), whole
    )
    assert len({*whole.tolist(), *priorities("b file", 10, seed=3).tolist()}) == 20


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.float32])
def test_elements_keep_their_kind(dtype: type) -> None:
    sample = SequenceSample(4, dtype)
    sample.offer(np.arange(3, dtype=dtype), [3], priorities("a", 1))

    assert SequenceSample.from_bytes(sample.to_bytes()).sequences()[0].dtype == dtype
