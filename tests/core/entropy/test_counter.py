"""Entropies of tokens: against SciPy on dense counts, against loops, as counts that add, on the disk as in memory."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from bimix_tracking.entropy import pair_counts
from bimix_tracking.entropy.counter import EntropyCounter, entropy_mixture
from bimix_tracking.errors import CorpusError, MixtureError
from bimix_tracking.mixture import Mixture

texts = st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=5)
# Ids on both sides of 2¹⁶, where pairs begin to take 64 bits.
any_ids = st.lists(st.lists(st.sampled_from([0, 1, 65_535, 65_536, 2**31 - 1]), max_size=9), min_size=1, max_size=5)
kinds = st.sampled_from([np.uint16, np.int32, np.uint32, np.int64, np.uint64])


def counted(sequences: list[list[int]], kind: npt.DTypeLike = int) -> EntropyCounter:
    counter = EntropyCounter()
    for sequence in sequences:
        counter.add(np.array(sequence, kind))
    return counter


def pairs_of(sequences: list[list[int]]) -> Counter[tuple[int, int]]:
    return Counter(pair for sequence in sequences for pair in itertools.pairwise(sequence))


@given(texts, kinds)
def test_entropies_are_those_of_dense_counts(sequences: list[list[int]], kind: npt.DTypeLike) -> None:
    counter = counted(sequences, kind)

    pairs = np.zeros((7, 7))
    for (one, two), n in pairs_of(sequences).items():
        pairs[one, two] = n
    assert counter.tokens == sum(map(len, sequences))
    assert counter.pairs == pairs.sum()
    tokens = np.bincount([token for sequence in sequences for token in sequence], minlength=7)
    assert counter.shannon == pytest.approx(entropy(tokens) if tokens.any() else 0, abs=1e-12)
    assert counter.joint == pytest.approx(entropy(pairs.ravel()) if pairs.any() else 0, abs=1e-12)
    # Eq. 12, as it is printed: −Σ P(x, x′) log P(x′ | x)
    conditional = 0.0
    for (one, two), n in pairs_of(sequences).items():
        conditional -= n / pairs.sum() * np.log(pairs[one, two] / pairs[one].sum())
    assert counter.conditional == pytest.approx(conditional, abs=1e-12)
    # The chain rule is that of the tokens that have a next one.
    firsts = entropy(pairs.sum(axis=1)) if pairs.any() else 0
    assert firsts + counter.conditional == pytest.approx(counter.joint, abs=1e-12)


def test_a_sequences_last_token_is_a_token() -> None:
    counter = counted([[0, 1]] * 100)

    assert counter.entropies() == pytest.approx((math.log(2), 0, 0), abs=1e-12)
    assert counted([[7], [8, 7], [9]]).shannon == pytest.approx(entropy([2, 1, 1]))


@given(texts)
def test_shannon_and_conditional_entropy_make_the_joint_one_but_for_the_ends(sequences: list[list[int]]) -> None:
    counter = counted(sequences)

    ends = 1 - counter.pairs / max(counter.tokens, 1)
    # Leaving out this part of the tokens moves their entropy by so much at most (Audenaert, 2007).
    most = ends * math.log(6) + entropy([ends, 1 - ends]) if ends <= 6 / 7 else math.log(7)
    assert abs(counter.shannon + counter.conditional - counter.joint) <= most + 1e-12


@given(any_ids)
def test_any_id_is_counted_as_itself(sequences: list[list[int]]) -> None:
    found, counts = counted(sequences).counts()

    assert {(int(one), int(two)): int(n) for (one, two), n in zip(found, counts, strict=True)} == pairs_of(sequences)


@given(any_ids)
def test_counts_add_and_can_be_saved(sequences: list[list[int]]) -> None:
    whole, parts = counted(sequences), EntropyCounter()
    for sequence in reversed(sequences):
        parts += counted([sequence])

    assert parts.to_bytes() == whole.to_bytes()
    again = EntropyCounter.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again.tokens == whole.tokens
    assert again.entropies() == whole.entropies()
    assert again.to_bytes() == whole.to_bytes()
    again += parts
    assert again.pairs == 2 * whole.pairs
    assert again.joint == pytest.approx(whole.joint, abs=1e-12)


@given(any_ids, st.integers(1, 5))
def test_threads_merge_to_the_same(sequences: list[list[int]], workers: int) -> None:
    parts = EntropyCounter()
    for sequence in sequences:
        parts += counted([sequence])

    parts.unite(workers)

    assert parts.to_bytes() == counted(sequences).to_bytes()


def test_many_narrow_and_wide_runs_merge_alike() -> None:
    # Pairs of ids below 2¹⁶ and their counts are merged as one number each, others are not.
    rng = np.random.default_rng(0)
    tables = [rng.zipf(1.3, (3, 500)) % 900 for _ in range(40)]
    for shift in (0, 1 << 16):
        found = EntropyCounter()
        for table in tables:
            part = EntropyCounter()
            part.add(table + shift)
            found += part
            found.settle()
        found.unite(2)
        expected = pairs_of([(row + shift).tolist() for table in tables for row in table])
        pairs, counts = found.counts()
        assert {(int(a), int(b)): int(n) for (a, b), n in zip(pairs, counts, strict=True)} == expected


@given(any_ids, st.integers(0, 4))
def test_what_was_added_can_be_taken_away(sequences: list[list[int]], place: int) -> None:
    kept, taken = sequences[:place], sequences[place:]

    assert counted(sequences).without(counted(taken)).to_bytes() == counted(kept).to_bytes()


def test_what_was_not_added_cannot_be_taken_away() -> None:
    with pytest.raises(ValueError, match="it was not added"):
        counted([[1, 2, 3]]).without(counted([[3, 2]]))


def test_a_table_is_a_sequence_a_row() -> None:
    table = np.arange(12).reshape(3, 4) % 5
    rows, at_once = EntropyCounter(), EntropyCounter()
    at_once.add(table)
    for row in table:
        rows.add(row)

    assert at_once.to_bytes() == rows.to_bytes()
    assert at_once.pairs == 9


def test_pairs_can_be_left_out_where_a_text_ends() -> None:
    cut, apart = EntropyCounter(), counted([[1, 2], [3, 1]])
    cut.add([1, 2, 3, 1], [True, False, True])

    assert cut.to_dict() == apart.to_dict()


def test_sequences_of_one_token_have_tokens_and_no_pairs() -> None:
    counter = EntropyCounter()
    counter.add([7])
    counter.add([[1], [2]])

    assert (counter.tokens, counter.pairs) == (3, 0)
    assert counter.entropies() == pytest.approx((math.log(3), 0, 0))


def test_counts_beyond_the_memory_go_to_files_that_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_counts, "_BUFFER", 1 << 10)
    rng = np.random.default_rng(0)
    ids = (rng.zipf(1.2, 60_000) % 3000).astype(np.uint16)
    parts = ids[:30_001], ids[30_000:]
    whole = EntropyCounter()
    for part in parts:
        whole.add(part)
    small = EntropyCounter(memory=20_000, folder=tmp_path)
    for part in parts:
        other = EntropyCounter(memory=20_000, folder=tmp_path)
        other.add(part)
        small += other
        del other  # its files must stay as long as they are needed

    assert sum(1 for _ in tmp_path.rglob("*.npy")) > 20
    assert small.spectra()[1].distinct == whole.spectra()[1].distinct > 20_000
    assert small.entropies("grassberger") == pytest.approx(whole.entropies("grassberger"), abs=1e-12)
    pieces = list(small._pairs.runs())
    assert len(pieces) > 10
    # Merged piece by piece: no piece is as large as what memory there is, and borders are in one piece only.
    assert max(len(piece.keys) for piece in pieces) < 5_000
    assert all(a.keys[-1] < b.keys[0] for a, b in itertools.pairwise(pieces))
    assert EntropyCounter.from_bytes(small.to_bytes()).joint == pytest.approx(whole.joint, abs=1e-12)
    del small, pieces
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad", [[-1, 2], [2**31], [0.5], np.zeros((2, 2, 2), int), np.array([2**63], np.uint64), ["a"]]
)
def test_what_is_no_token_id_is_refused(bad: npt.ArrayLike) -> None:
    with pytest.raises(CorpusError, match="token ids must be integers from 0 on"):
        EntropyCounter().add(bad)


def test_ids_beyond_the_vocabulary_are_refused() -> None:
    counter = EntropyCounter(50)
    counter.add(np.array([0, 49], np.uint16))

    with pytest.raises(CorpusError, match="token id 50 is beyond the vocabulary of 50: is this its tokenizer"):
        counter.add(np.array([0, 50], np.uint16))


@pytest.mark.parametrize("bad", [b"", b"xxxx" + bytes(16), EntropyCounter().to_bytes()[:-3]])
def test_what_are_no_counts_is_refused(bad: bytes) -> None:
    with pytest.raises(CorpusError, match="these are not counts of tokens"):
        EntropyCounter.from_bytes(bad)
    with pytest.raises(CorpusError, match="these are not counts of tokens"):
        EntropyCounter.from_dict({"counts": bad.hex()})


@pytest.mark.parametrize("name", ["pile", "slimpajama"])
def test_the_papers_joint_mixture_is_that_of_shannon_and_conditional(name: str, reference_data: Path) -> None:
    # Tables 4 and 5 print r of SE, CE and JE: JE = SE + CE, so r_JE ∝ r_SE · r_CE, if Eq. 13 is what made them.
    table = pd.read_csv(reference_data / f"paper_mixtures_{name}.csv", index_col="domain")
    se, ce = np.log(table["se"]), np.log(table["ce"])  # but for a constant that the softmax takes out

    found = entropy_mixture((se + ce - (se + ce).min()).to_dict())

    printed = table["je"]
    # To the printed digits: 4 decimals of each of the two factors.
    error = 0.5e-4 * (1 + found.array() * (1 / table["se"] + 1 / table["ce"]).to_numpy())
    assert np.all(np.abs(found.array() - printed.to_numpy()) <= error)
    assert np.abs(found.array() - printed.to_numpy()).max() < 1e-4


entropies = st.lists(st.floats(0, 12), min_size=1, max_size=6).map(
    lambda found: {f"d{i}": h for i, h in enumerate(found)}
)


@given(entropies, st.floats(0.2, 5))
def test_entropy_mixture_is_a_softmax(found: dict[str, float], temperature: float) -> None:
    weights = {name: math.exp(h / temperature) for name, h in found.items()}
    expected = Mixture.normalized(weights)

    mixture = entropy_mixture(found, temperature=temperature)

    assert mixture.array() == pytest.approx(expected.array(), abs=1e-12)


@given(entropies, st.floats(0, 1e3))
def test_a_constant_changes_nothing_and_tokens_weigh(found: dict[str, float], constant: float) -> None:
    tokens = {name: i + 1.0 for i, name in enumerate(found)}
    moved = {name: h + constant for name, h in found.items()}

    weighed = entropy_mixture(moved, available_tokens=tokens)

    assert entropy_mixture(moved).array() == pytest.approx(entropy_mixture(found).array(), rel=1e-9)
    assert weighed.array() == pytest.approx((entropy_mixture(found) * Mixture.normalized(tokens)).array(), rel=1e-9)


@pytest.mark.parametrize(
    ("found", "options", "text"),
    [
        ({"a": math.nan}, {}, "'a' must be a finite number of nats, got nan"),
        ({"a": -1.0}, {}, "'a' must be a finite number of nats, got -1.0"),
        ({"a": 1.0}, {"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"a": 1.0}, {"available_tokens": {"b": 1.0}}, r"in one only: \['a', 'b'\]"),
        ({"a": 1.0}, {"available_tokens": {"a": 0.0}}, "all weights are 0"),
        ({}, {}, "at least one domain"),
    ],
)
def test_what_makes_no_mixture_is_refused(found: dict[str, float], options: dict[str, float], text: str) -> None:
    with pytest.raises(MixtureError, match=text):
        entropy_mixture(found, **options)  # type: ignore[arg-type]  # one of them each time
