"""Estimators of entropy: their published bias on known distributions, and errors that are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy, multinomial

from bimix_tracking.entropy.counter import EntropyCounter
from bimix_tracking.entropy.estimators import (
    ESTIMATORS,
    Spectrum,
    chao_shen,
    grassberger,
    miller_madow,
    plug_in,
    standard_error,
)
from bimix_tracking.entropy.sample_error import token_curves, von_neumann_curve

counts = st.lists(st.integers(0, 40), min_size=1, max_size=40)


def mean_of(name: str, share: np.ndarray, draws: int, repeats: int = 4000) -> float:
    rng = np.random.default_rng(1)
    rows, times = np.unique(rng.multinomial(draws, share, repeats), axis=0, return_counts=True)
    return float(np.average([ESTIMATORS[name](Spectrum.of(row)) for row in rows], weights=times))


@given(counts)
def test_plug_in_is_scipys(seen: list[int]) -> None:
    expected = entropy(seen) if any(seen) else 0.0

    assert plug_in(Spectrum.of(seen)) == pytest.approx(expected, abs=1e-12)


@given(counts)
def test_a_spectrum_is_all_that_is_needed(seen: list[int]) -> None:
    spectrum = Spectrum.of(seen[:7]) + Spectrum.of(seen[7:])
    whole = Spectrum.of(seen)

    assert (spectrum.counts.tolist(), spectrum.outcomes.tolist()) == (whole.counts.tolist(), whole.outcomes.tolist())
    assert (whole.total, whole.distinct, whole.once) == (sum(seen), sum(map(bool, seen)), seen.count(1))


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_bias_is_exactly_what_enumeration_gives(draws: int) -> None:
    # All outcomes of so few draws can be listed: the mean of the plug-in is known exactly.
    share = np.array([0.5, 0.3, 0.2])
    outcomes = [(a, b, draws - a - b) for a in range(draws + 1) for b in range(draws + 1 - a)]
    exact = sum(multinomial.pmf(o, draws, share) * entropy(o) for o in outcomes)

    assert mean_of("plug-in", share, draws, 40_000) == pytest.approx(exact, abs=0.005)


def test_biases_are_those_that_were_published() -> None:
    # 1,000 equal outcomes in 2,000 draws: the plug-in's first-order bias is −(K − 1) / 2N (Miller, 1955), Miller–Madow
    # takes it away as far as the outcomes are known; Grassberger's is nearly unbiased, and Chao and Shen's goes too far
    # where outcomes are equal.
    share, draws = np.full(1000, 1e-3), 2000
    truth = math.log(1000)
    biases = {name: mean_of(name, share, draws, 300) - truth for name in ESTIMATORS}

    assert biases["plug-in"] == pytest.approx(-999 / 4000, rel=0.15)
    assert abs(biases["miller-madow"]) < 0.35 * abs(biases["plug-in"])
    assert abs(biases["grassberger"]) < 0.02
    assert 0 < biases["chao-shen"] < 0.6 * abs(biases["plug-in"])


def test_on_a_long_tail_all_are_too_low_and_the_corrected_ones_less() -> None:
    share = 1 / np.arange(1, 20_001)
    share /= share.sum()
    truth = float(entropy(share))
    biases = {name: mean_of(name, share, 3000, 60) - truth for name in ESTIMATORS}

    assert biases["plug-in"] < biases["miller-madow"] < biases["grassberger"] < 0.05
    assert abs(biases["chao-shen"]) < 0.6 * abs(biases["plug-in"])


@pytest.mark.parametrize(("n", "g"), [(1, -0.5772156649 - math.log(2)), (2, 2 - 0.5772156649 - math.log(2))])
def test_grassbergers_numbers_are_the_papers(n: int, g: float) -> None:
    # G₁ = −γ − ln 2 and G₂ = 2 − γ − ln 2 (arXiv physics/0307138, Eq. 29)
    assert grassberger(Spectrum.of([n])) == pytest.approx(math.log(n) - g, abs=1e-9)


def test_chao_and_shens_formula_term_by_term() -> None:
    seen, total = [4, 2, 1, 1], 8
    coverage = 1 - 2 / total
    expected = sum(
        -(coverage * n / total) * math.log(coverage * n / total) / (1 - (1 - coverage * n / total) ** total)
        for n in seen
    )

    assert chao_shen(Spectrum.of(seen)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", list(ESTIMATORS))
@pytest.mark.parametrize("seen", [[], [1], [5], [1, 1], [1] * 9])
def test_small_and_degenerate_samples_have_a_number(name: str, seen: list[int]) -> None:
    value = ESTIMATORS[name](Spectrum.of(seen))

    assert math.isfinite(value)
    assert value >= -1e-12 or name == "grassberger"


def test_miller_and_madows_correction() -> None:
    seen = Spectrum.of([5, 3, 1])

    assert miller_madow(seen) == pytest.approx(plug_in(seen) + 2 / 18, abs=1e-12)


def test_standard_error_is_the_spread_of_independent_draws() -> None:
    share = np.array([0.5, 0.25, 0.15, 0.1])
    rows = np.random.default_rng(2).multinomial(4000, share, 3000)
    found = [plug_in(Spectrum.of(row)) for row in rows]

    assert np.mean([standard_error(Spectrum.of(row)) for row in rows[:100]]) == pytest.approx(np.std(found), rel=0.05)


def _texts(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Texts that each keep to one of many subjects, as real ones do: their tokens are not independent."""
    subjects = rng.integers(0, 1000, count)
    return [(rng.zipf(1.6, 128) % 50 + 50 * subject).astype(np.uint16) for subject in subjects]


def test_the_jackknifes_error_is_the_spread_between_samples_of_whole_texts() -> None:
    rng = np.random.default_rng(3)
    found = [token_curves(_texts(rng, 256))["plug-in"]["shannon"] for _ in range(40)]

    spread = np.std([curve.value for curve in found], ddof=1)
    told = np.sqrt(np.mean([curve.error**2 for curve in found]))
    assert told == pytest.approx(spread, rel=0.35)
    # Tokens taken as independent would tell less than half of it.
    counter = EntropyCounter()
    for text in _texts(rng, 256):
        counter.add(text)
    assert counter.standard_errors()[0] < 0.5 * spread


def test_a_curve_is_of_disjoint_parts_that_double() -> None:
    texts = _texts(np.random.default_rng(4), 64)
    curve = token_curves(texts)["plug-in"]["joint"]

    assert curve.sizes == (512, 1024, 2048, 4096, 8192)
    whole, halves = EntropyCounter(), [EntropyCounter(), EntropyCounter()]
    for number, text in enumerate(texts):
        whole.add(text)
        halves[number // 32].add(text)
    assert curve.values[-1] == pytest.approx(whole.joint, abs=1e-12)
    assert curve.values[-2] == pytest.approx(np.mean([half.joint for half in halves]), abs=1e-12)
    assert list(curve.values) == sorted(curve.values)
    assert curve.drift == pytest.approx(curve.values[-1] - curve.values[-2])
    assert not curve.converged


def test_one_text_tells_nothing_of_its_error() -> None:
    curve = token_curves([np.arange(9)])["plug-in"]["shannon"]

    assert curve.sizes == (9,)
    assert curve.value == pytest.approx(math.log(9))
    assert math.isnan(curve.error)
    assert math.isnan(curve.drift)
    assert not curve.converged


def test_equal_embeddings_have_converged() -> None:
    curve = von_neumann_curve([np.array([1.0, 0.0])] * 5)

    assert (curve.sizes, curve.value, curve.error) == ((1, 2, 5), 0.0, 0.0)
    assert curve.converged
