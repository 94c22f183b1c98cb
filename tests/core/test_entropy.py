"""Entropies of tokens: against SciPy on dense counts, against loops, and as counts that add."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from bimix_tracking.entropy import EntropyCounter

texts = st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=5)


def counted(sequences: list[list[int]]) -> EntropyCounter:
    counter = EntropyCounter()
    for sequence in sequences:
        counter.add(np.array(sequence, int))
    return counter


@given(texts)
def test_entropies_are_those_of_dense_counts(sequences: list[list[int]]) -> None:
    counter = counted(sequences)

    tokens = np.bincount([t for s in sequences for t in s], minlength=7)
    pairs = np.zeros((7, 7))
    for sequence in sequences:
        for one, two in itertools.pairwise(sequence):
            pairs[one, two] += 1
    assert counter.tokens == tokens.sum()
    assert counter.shannon == pytest.approx(entropy(tokens) if tokens.any() else 0, abs=1e-12)
    assert counter.joint == pytest.approx(entropy(pairs.ravel()) if pairs.any() else 0, abs=1e-12)
    # Eq. 12, as it is printed: −Σ P(x, x′) log P(x′ | x)
    conditional = 0.0
    for (one, two), n in Counter((s[i], s[i + 1]) for s in sequences for i in range(len(s) - 1)).items():
        conditional -= n / pairs.sum() * np.log(pairs[one, two] / pairs[one].sum())
    assert counter.conditional == pytest.approx(conditional, abs=1e-12)


@given(texts)
def test_counts_add_and_can_be_saved(sequences: list[list[int]]) -> None:
    whole, parts = counted(sequences), EntropyCounter()
    for sequence in sequences:
        parts += counted([sequence])

    assert parts.to_dict() == whole.to_dict()
    again = EntropyCounter.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert (again.shannon, again.joint, again.conditional) == (whole.shannon, whole.joint, whole.conditional)


def test_pairs_can_be_left_out_where_a_text_ends() -> None:
    cut, apart = EntropyCounter(), counted([[1, 2], [3, 1]])
    cut.add([1, 2, 3, 1], [True, False, True])

    assert cut.to_dict() == apart.to_dict()


@pytest.mark.parametrize("bad", [[-1, 2], [2**31], [0.5]])
def test_what_is_no_token_id_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="token ids must be integers from 0 on"):
        EntropyCounter().add(bad)
