"""Realised against nominal shares: no false alarms under any way of drawing, an alarm where shares really are off."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from scipy.stats import t as student

from bimix_tracking import DomainLossRecorder
from bimix_tracking.recording.drift import Drift, student_beyond

Shares = tuple[float, ...]


def alarms(
    nominal: Shares, *, runs: int = 100, windows: int = 150, lengths: Shares | None = None, drawn: Shares | None = None
) -> int:
    """Return how many simulated runs of 16 documents a window were told of, documents being drawn independently."""
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(runs):
        drift = Drift(len(nominal))
        for _ in range(windows):
            documents = rng.multinomial(16, drawn or nominal)
            if lengths is None:
                tokens = 100 * documents
            else:
                tokens = np.array(
                    [rng.geometric(1 / long, n).sum() for long, n in zip(lengths, documents, strict=True)]
                )
            drift.add(tokens, np.array(nominal))
            if drift.beyond_noise():
                told += 1
                break
    return told


@pytest.mark.parametrize(
    ("nominal", "lengths"),
    [
        ((0.5, 0.5), None),
        ((0.4, 0.2, 0.2, 0.1, 0.05, 0.03, 0.02), None),
        ((0.9, 0.099, 0.001), None),  # a domain that may well not come at all
        ((0.5, 0.3, 0.15, 0.05), (50.0, 50.0, 50.0, 50.0)),  # documents of very different lengths, alike in mean
    ],
)
def test_sampling_noise_is_no_drift(nominal: Shares, lengths: Shares | None) -> None:
    assert alarms(nominal, lengths=lengths) <= 1  # one run in a thousand may be told by chance


def test_proportions_of_documents_instead_of_tokens_are_told() -> None:
    assert alarms((0.5, 0.3, 0.2), lengths=(50.0, 100.0, 50.0)) == 100


def test_another_mixture_than_asked_for_is_told() -> None:
    assert alarms((0.5, 0.3, 0.2), drawn=(0.35, 0.45, 0.2)) == 100


def test_an_exact_sampler_that_is_off_is_told_and_one_that_is_right_is_not() -> None:
    for tokens, expected in (([512, 512], []), ([500, 524], [0, 1]), ([511, 513], [])):  # the last is within 1 %
        drift = Drift(2)
        for _ in range(20):
            drift.add(np.array(tokens), np.array([0.5, 0.5]))
        assert drift.beyond_noise() == expected


def test_a_domain_nobody_asked_for_is_told() -> None:
    drift = Drift(2)
    for _ in range(16):
        drift.add(np.array([1000, 1]), np.array([1.0, 0.0]))

    told = drift.warning(["code", "web"])

    assert told is not None
    assert "'web' has a realised share of 0.000999, against a nominal share of 0" in told


def test_it_goes_on_where_it_was_saved() -> None:
    rng = np.random.default_rng(1)
    whole, first = Drift(3), Drift(3)
    windows = [rng.multinomial(64, [0.5, 0.3, 0.2]) for _ in range(30)]
    for window in windows:
        whole.add(window, np.array([0.4, 0.4, 0.2]))
    for window in windows[:11]:
        first.add(window, np.array([0.4, 0.4, 0.2]))
    second = Drift.from_lists(json.loads(json.dumps(first.to_lists())))
    for window in windows[11:]:
        second.add(window, np.array([0.4, 0.4, 0.2]))

    assert second.to_lists() == whole.to_lists()


@pytest.mark.parametrize("degrees", [15, 20, 100, 10_000])
@pytest.mark.parametrize("chance", [1e-3, 1e-6, 1e-9])
def test_the_quantile_of_t_is_scipy_s(degrees: int, chance: float) -> None:
    assert student_beyond(chance, degrees) == pytest.approx(student.isf(chance, degrees), rel=0.005)


def test_the_recorder_warns_once_and_goes_on() -> None:
    recorder = DomainLossRecorder(["code", "web"], {"code": 0.5, "web": 0.5})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(1, 60):
            recorder.add([0, 1], [200.0, 300.0], [100, 150])
            row = recorder.log_train(step)

    (said,) = caught
    assert "at step 16, domain 'code' has a realised share of 0.4, against a nominal share of 0.5" in str(said.message)
    assert "of different lengths drawn in these proportions" in str(said.message)
    assert (row["bimix_share/code"], row["bimix_nominal/code"]) == (0.4, 0.5)
