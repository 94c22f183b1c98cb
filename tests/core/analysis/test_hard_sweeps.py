"""Sweeps that no design would make: what can be said of them is right, the rest is an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from bimix_tracking import Analysis, Observations, analyze
from bimix_tracking.errors import ObservationsError, RecommendationError
from bimix_tracking.fitting.outcome import Outcome
from bimix_tracking.selection.law_choice import select_law

Array = npt.NDArray[np.float64]
VOLUMES = np.geomspace(1e8, 1e10, 6)


def mixtures(domains: int, runs: int, concentration: float = 3.0) -> Array:
    return np.random.default_rng(3).dirichlet(np.full(domains, concentration), runs)


def sweep(
    shares: Array,
    volumes: Sequence[float] | Array | Callable[[np.random.Generator], Array] = VOLUMES,
    *,
    targets: Sequence[str] | None = None,
    missing: Callable[[int, str], bool] | None = None,
    eval_tokens: Mapping[str, float] | None = None,
) -> Observations:
    """Return losses by a transfer law with a little noise."""
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(shares.shape[1])]
    targets = names if targets is None else targets
    alpha, beta = rng.uniform(0.05, 0.2, len(names)), rng.uniform(0.3, 0.8, len(names))
    rows = []
    for i, mixture in enumerate(shares):
        luck = np.exp(0.003 * rng.standard_normal(len(names)))
        taught = np.maximum(mixture + 0.1 * np.roll(mixture, 1), 1e-3)
        for s in volumes(rng) if callable(volumes) else volumes:
            loss = luck * taught**-alpha * ((s / 1e9) ** -beta + 2) * np.exp(0.003 * rng.standard_normal(len(names)))
            row: dict[str, object] = {"run": f"run-{i:02d}", "tokens": s}
            row |= {f"p{name}": share for name, share in zip(names, mixture, strict=True)}
            row |= {f"l{t}": np.nan if missing and missing(i, t) else loss[names.index(t)] for t in targets}
            row |= {f"e{t}": tokens for t, tokens in (eval_tokens or {}).items()}
            rows.append(row)
    more: dict[str, Any] = {} if eval_tokens is None else {"eval_tokens": {t: f"e{t}" for t in eval_tokens}}
    return Observations.from_wide(
        pd.DataFrame(rows),
        proportions={name: f"p{name}" for name in names},
        losses={name: f"l{name}" for name in targets},
        run="run",
        tokens="tokens",
        **more,
    )


def right(found: Analysis) -> None:
    """Check what holds of every recommendation."""
    rec = found.recommendation
    assert sum(rec.mixture.values()) == pytest.approx(1)
    assert rec.kkt_residual < 1e-6
    assert rec.gain >= -1e-9
    assert all(np.isfinite(loss) for t, loss in rec.predicted.items() if rec.weights[t] > 0)


def test_runs_that_share_no_step_are_fitted_like_those_that_do() -> None:
    shares = mixtures(4, 16)
    ragged = analyze(sweep(shares, lambda rng: np.sort(rng.uniform(1e8, 1e10, 5))), 1e10, replicates=40)
    even = analyze(sweep(shares), 1e10, replicates=40)

    for found in (ragged, even):
        right(found)
        assert found.validation is not None
        assert found.validation.mean_error < 0.008
    for domain in even.fit.domains:
        assert ragged.recommendation.mixture[domain] == pytest.approx(even.recommendation.mixture[domain], abs=0.06)


def test_with_one_volume_the_mixture_is_that_of_this_volume() -> None:
    found = analyze(sweep(mixtures(4, 16), [1e9]), 2e10, replicates=40)

    right(found)
    assert found.recommendation.volume == pytest.approx(1e9)
    assert any("one token volume was observed" in text for text in found.recommendation.warnings)
    assert found.worth is not None
    assert found.worth.fraction is None


@pytest.mark.parametrize("domains", [2, 4])
def test_one_target_is_served_by_a_law_that_sees_all_proportions(domains: int) -> None:
    found = analyze(sweep(mixtures(domains, 16), targets=["d1"]), 1e10, replicates=40)

    right(found)
    assert found.fit.law != "bimix"
    # Its own proportion is what helps it most.
    low, high = found.fit.tried("d1")
    assert found.recommendation.mixture["d1"] > (low + high) / 2


def test_a_target_in_three_runs_is_fitted_by_what_they_tell() -> None:
    found = analyze(sweep(mixtures(4, 16), missing=lambda run, target: target == "d2" and run > 2), 1e10, replicates=40)

    right(found)
    assert found.fit.targets["d2"].runs == 3
    # Six checkpoints each: what it lacks is runs.
    assert found.fit.targets["d2"].outcome is not Outcome.TOO_FEW_CHECKPOINTS


@pytest.mark.parametrize("law", ["auto", "bimix"])
def test_repeats_of_one_mixture_tell_nothing_of_others(law: str) -> None:
    obs = sweep(np.tile(mixtures(3, 1), (8, 1)))

    with pytest.raises(RecommendationError, match=r"'d0': .*Add at least one run with another proportion.*'d2'"):
        analyze(obs, 1e10, law=law, replicates=40)


def test_repeats_of_two_mixtures_are_answered_between_them() -> None:
    shares = np.repeat(mixtures(3, 2), 5, axis=0)

    found = analyze(sweep(shares), 1e10, replicates=40)

    right(found)
    assert found.fit.law == "bimix"
    assert found.validation is None  # neither can be held out
    mixture = found.recommendation.mixture.array(("d0", "d1", "d2"))
    assert (mixture >= shares.min(0) - 1e-9).all()
    assert (mixture <= shares.max(0) + 1e-9).all()


def test_a_weight_of_0_counts_nothing_and_only_zeros_are_an_error() -> None:
    obs = sweep(mixtures(4, 16))

    found = analyze(obs, 1e10, weights={"d0": 0.0, "d3": 0.0}, replicates=40)
    right(found)
    even = analyze(obs, 1e10, replicates=40).recommendation.mixture
    assert found.recommendation.mixture["d1"] + found.recommendation.mixture["d2"] > even["d1"] + even["d2"]

    with pytest.raises(RecommendationError, match="weight"):
        analyze(obs, 1e10, weights=dict.fromkeys(obs.domains, 0.0), replicates=0)


def test_losses_of_no_evaluation_tokens_count_like_those_of_unknown_many() -> None:
    shares = mixtures(3, 12)
    known, none, some = (
        analyze(sweep(shares, eval_tokens=given), 1e10, law="bimix", replicates=0)
        for given in (None, dict.fromkeys(("d0", "d1", "d2"), 0.0), {"d0": 0.0, "d1": 1e6, "d2": 1e6})
    )

    for found in (none, some):
        right(found)
        for domain in known.fit.domains:
            expected = known.fit.targets[domain].parameters["alpha"]
            assert found.fit.targets[domain].parameters["alpha"] == pytest.approx(expected, rel=1e-3)


def test_of_very_many_domains_the_laws_that_would_take_a_day_are_left_out_with_the_reason() -> None:
    obs = sweep(mixtures(260, 12, 1.0), VOLUMES[::2])

    selection = select_law(obs)

    assert selection.fit.law == "bimix"
    for law in ("transfer", "additive", "exponential"):
        assert "parameters for each of 260 targets: too slow to fit" in selection.excluded[law]
    assert selection.validation is not None
    assert len(selection.fit.targets) == 260


def test_two_mixtures_are_too_few_to_hold_out_and_that_is_said() -> None:
    obs = sweep(np.repeat(mixtures(3, 2), 2, axis=0))

    with pytest.raises(ObservationsError, match="mixtures"):
        analyze(obs, 1e10, law="ensemble", replicates=0)
